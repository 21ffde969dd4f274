"""Whose word that the run is elsewhere to follow up: those whose word led nowhere have to wait."""

from collections.abc import Collection, Iterable

_REST_S = 10.0
_LONGEST_REST_S = 600.0


class Leads:
    """Remembers whose word led nowhere."""

    def __init__(self) -> None:
        self._until_s: dict[str, float] = {}
        self._times: dict[str, int] = {}

    def vain(self, peer: str, now_s: float, *, tenured: bool) -> None:
        """Note that the word of `peer` led nowhere.

        A stranger waits longer each time. A peer that works with us may simply be in a state that
        is settled a moment later.
        """
        self._times[peer] = self._times.get(peer, 0) + 1
        doublings = 0 if tenured else min(self._times[peer] - 1, 10)
        self._until_s[peer] = now_s + min(_LONGEST_REST_S, _REST_S * 2**doublings)

    def open(self, peers: Iterable[str], now_s: float) -> set[str]:
        """Return those of `peers` whose word is worth a look now."""
        return {peer for peer in peers if self._until_s.get(peer, now_s) <= now_s}

    def forgive(self) -> None:
        """Listen to everybody again: we stand elsewhere now."""
        self._until_s.clear()

    def forget(self, known: Collection[str]) -> None:
        """Keep nothing about peers that are not `known` any more."""
        for peer in self._times.keys() - set(known):
            del self._times[peer]
            self._until_s.pop(peer, None)
