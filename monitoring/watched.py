"""What the exporter is asked to watch; light, so that a slip of the pen is told at once."""

import dataclasses

from peer.run.manifest import Manifest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watched:
    """What to watch, and from where.

    Attributes:
        run_id: The run.
        addresses: Peers to begin with, named by a person.
        known: Peers that were met before.
        manifest: The run's, if it is here.
        interval_s: From the end of a crawl to the next one.
        allow_private: Whether targets may have private addresses.
    """

    run_id: str
    addresses: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    manifest: Manifest | None = None
    interval_s: float = 15.0
    allow_private: bool = False
