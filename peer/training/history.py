"""The certificates that led this peer to where it stands: its own row, newest last."""

import threading
from collections import deque
from collections.abc import Sequence

from peer.training.certificate import Certificate

KEPT = 4096
TENURE_EPOCHS = 512
"""How far back a peer's work counts."""


class History:
    """A bounded row of certificates; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._row: list[Certificate] = []
        self._roots: dict[int, str] = {}
        self._met: deque[frozenset[str]] = deque(maxlen=TENURE_EPOCHS)

    def append(self, certificate: Certificate) -> None:
        """Add the certificate that led to the next epoch; what it replaces is forgotten."""
        base = certificate.vote.base
        with self._lock:
            if self._row and self._row[-1].vote.base.epoch == base.epoch - 1:
                self._row.append(certificate)
                self._roots[base.epoch] = base.state_root
                self._met.append(frozenset(certificate.vote.group))
                if len(self._row) > KEPT:
                    self._roots.pop(self._row.pop(0).vote.base.epoch)
                return
            kept = [c for c in self._row if c.vote.base.epoch < base.epoch]
            joined = kept and kept[-1].vote.base.epoch == base.epoch - 1
            self._take([*kept, certificate] if joined else [certificate])

    def replace(self, row: Sequence[Certificate]) -> None:
        """Take over another row, oldest first."""
        with self._lock:
            self._take(row[-KEPT:])

    def row(self) -> list[Certificate]:
        """Return the whole row, oldest first."""
        with self._lock:
            return list(self._row)

    def root_at(self, epoch: int) -> str | None:
        """Return our state root at `epoch`, if it is still remembered."""
        with self._lock:
            return self._roots.get(epoch)

    def since(self, epoch: int) -> list[Certificate]:
        """Return the certificates on states from `epoch` on, oldest first."""
        return [c for c in self.row() if c.vote.base.epoch >= epoch]

    def tenured(self) -> frozenset[str]:
        """Return the members of the groups of the last `TENURE_EPOCHS` certificates of the row.

        All who are on one row agree about it. So those of a row that was left are not among them,
        and it does not matter whose signatures reached a certificate in time.
        """
        with self._lock:
            return frozenset().union(*(c.vote.group for c in self._row[-TENURE_EPOCHS:]))

    def met(self) -> frozenset[str]:
        """Return the peers that worked on certificates lately, on this row or on one we left."""
        with self._lock:
            return frozenset().union(*self._met)

    def _take(self, row: Sequence[Certificate]) -> None:
        self._row = list(row)
        self._met.extend(frozenset(c.vote.group) for c in row[-TENURE_EPOCHS:])
        self._roots = {c.vote.base.epoch: c.vote.base.state_root for c in row}
