"""The room on the disk that the volunteer allows."""

import dataclasses
import errno
import os
from collections.abc import Callable

from peer.checkpoint.keep import Keep

_TIGHT_SHARE = 0.8
"""From this part of the limit on, old checkpoints make room for new ones."""


@dataclasses.dataclass(frozen=True)
class Room:
    """What may be taken, and what is.

    Attributes:
        used_bytes: Measures what lies there.
        limit_bytes: The most that may; None does not bound it.
    """

    used_bytes: Callable[[], int] = lambda: 0
    limit_bytes: float | None = None

    def policy(self, keep: Keep) -> Keep:
        """Return the policy `keep`, or as few as possible where room is short.

        What validation needs, and what a person fetched, stays in any case.
        """
        if not self.is_short:
            return keep
        return dataclasses.replace(keep, last=1, accepted=min(keep.accepted, 1), every_epochs=None)

    @property
    def is_short(self) -> bool:
        """Whether old checkpoints are to make room."""
        return self.limit_bytes is not None and self.used_bytes() > _TIGHT_SHARE * self.limit_bytes

    @property
    def is_full(self) -> bool:
        """Whether the limit is reached."""
        return self.limit_bytes is not None and self.used_bytes() > self.limit_bytes

    def check(self) -> None:
        """Raise OSError, as a full disk does, if the limit is reached."""
        if self.limit_bytes is not None and self.is_full:
            raise OSError(
                errno.EDQUOT,
                f"{os.strerror(errno.EDQUOT)}: limits.disk_mb allows "
                f"{self.limit_bytes / 1e6:,.0f} MB in the home",
            )
