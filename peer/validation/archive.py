"""The verdicts that a peer holds to, on its disk: a file each, and a file that names the last one.

    <round>-<hash>.json   a verdict, in the form in which it travels
    tip                   the hash of the last judgement

What is read is verified again. A verdict that cannot be read ends the chain there: the others have
it, too.
"""

import contextlib
import logging
from pathlib import Path

from peer.errors import MisbehavedError
from peer.run.directory import write_atomically
from peer.validation.judge import follow
from peer.validation.rules import Rules
from peer.validation.verdict import MAX_VERDICT_BYTES, Tip, Verdict

log = logging.getLogger(__name__)

_TIP = "tip"
_HASH_CHARS = 64


class Archive:
    """The verdicts below `folder`, which need not be there; the daemon alone writes to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, verdict: Verdict, *, last: bool = True) -> None:
        """Write `verdict`, and with `last` let the chain end with it.

        Raises:
            OSError: The disk is full or fails.
        """
        judgement = verdict.judgement
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{judgement.round:09d}-{judgement.hash}.json"
        write_atomically(self.folder / name, verdict.to_bytes())
        if last:
            write_atomically(self.folder / _TIP, judgement.hash.encode())

    def get(self, name: str) -> Verdict | None:
        """Return the verdict with the judgement of that hash, its signatures yet to be checked."""
        if len(name) != _HASH_CHARS or not name.isalnum():
            return None
        for path in self.folder.glob(f"*-{name}.json"):
            with contextlib.suppress(OSError, MisbehavedError):
                with path.open("rb") as file:
                    verdict = Verdict.from_bytes(file.read(MAX_VERDICT_BYTES + 1))
                if verdict.judgement.hash == name:
                    return verdict
            log.warning("the verdict in %s cannot be read", path)
        return None

    def chain(self) -> list[Verdict]:
        """Return the verdicts that lead to the last one, oldest first, as far as they are here."""
        found: list[Verdict] = []
        try:
            name = (self.folder / _TIP).read_text().strip()
        except (OSError, ValueError):
            return found
        while (verdict := self.get(name)) is not None:
            found.append(verdict)
            name = verdict.judgement.previous
        return found[::-1]

    def tip(self, rules: Rules, genesis: Tip) -> Tip:
        """Return where the chain ends.

        A chain whose beginning is not here was joined later: its first verdict was believed then.

        Args:
            rules: The run's.
            genesis: The end of a chain without verdicts.

        Raises:
            MisbehavedError: A verdict does not follow from the one before it.
        """
        chain = self.chain()
        if not chain:
            return genesis
        if chain[0].judgement.previous == genesis.hash:
            return follow(rules, genesis, chain)
        first = chain[0].judgement
        return follow(rules, Tip(first.after, first.hash), chain[1:])
