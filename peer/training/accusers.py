"""Who says for long, and alone, that it cannot reach a peer that does not say so. Pure."""

from collections.abc import Collection, Mapping

from peer.training.group import lone_accusations

PATIENCE_S = 10.0
"""A link that fails does so for both ends, and the other end notices within this time."""


class Accusers:
    """Remembers since when one peer alone accuses another one."""

    def __init__(self) -> None:
        self._since_s: dict[tuple[str, str], float] = {}

    def doubted(
        self,
        unreachable: Mapping[str, Collection[str]],
        clients: Collection[str],
        now_s: float,
    ) -> set[str]:
        """Return whose word is not to be taken any more.

        Args:
            unreachable: By peer that came to a group, whom it said that it cannot reach.
            clients: Who of them reduces nothing.
            now_s: The monotonic time.
        """
        said = lone_accusations(unreachable.keys(), unreachable, clients)
        self._since_s = {pair: self._since_s.get(pair, now_s) for pair in said}
        return {a for (a, _), since_s in self._since_s.items() if now_s - since_s > PATIENCE_S}
