"""Says when the volunteer's limits on the line are too low for the run, and when no longer."""

import logging
from collections import defaultdict
from collections.abc import Callable

from peer.events import LimitFelt, Message
from peer.swarm.throttle import Throttle
from peer.training.group import Group
from peer.training.haste import (
    Places,
    complaint,
    needed_bytes_per_s,
    serving_bytes_per_s,
    serving_complaint,
)
from peer.training.muster import Muster

log = logging.getLogger(__name__)


class LineWatch:
    """Compares the limits with what others' deadlines ask for.

    Args:
        muster: Has the line and the deadlines; the others' are taken to be ours.
        elements: Numbers in a contribution.
        codec_name: How contributions and averages travel.
        upload: Bounds what others fetch.
        emit: Takes events.
    """

    def __init__(
        self,
        muster: Muster,
        elements: int,
        codec_name: str,
        upload: Throttle,
        emit: Callable[[Message], None],
    ) -> None:
        self._muster = muster
        self._elements = elements
        self._codec = codec_name
        self._upload = upload
        self._emit = emit
        self._felt: defaultdict[str, dict[str, str | None]] = defaultdict(dict)

    def begin(self) -> None:
        """Say whether others can fetch averages here."""
        muster = self._muster
        needed = serving_bytes_per_s(muster.limits.frame_timeout_s, self._elements, self._codec)
        rates = muster.line.up.bytes_per_s, self._upload.bytes_per_s
        found = serving_complaint(*rates, needed)
        if found is not None:
            self._note(found[0], "serving", found[1])

    def look(self, group: Group) -> None:
        """Say whether the limits are too low for a round of `group`."""
        muster = self._muster
        reduces = muster.identity.peer_id in group.reducers
        places = Places(len(group.members), len(group.reducers), reduces)
        up, down = needed_bytes_per_s(muster.limits, self._elements, self._codec, places)
        for direction, throttle, needed in (
            ("upload", muster.line.up, up),
            ("download", muster.line.down, down),
        ):
            words = complaint(direction, throttle.bytes_per_s, needed, places)
            self._note(f"limits.{direction}_mb_per_s", "rounds", words)

    def _note(self, limit: str, concern: str, words: str | None) -> None:
        """Report what of all is wrong with `limit`, if `words` on one concern are new."""
        felt = self._felt[limit]
        if felt.get(concern) == words:
            return
        felt[concern] = words
        if words is not None:
            log.warning("%s", words)
        self._emit(LimitFelt(limit=limit, words="; ".join(filter(None, felt.values())) or None))
