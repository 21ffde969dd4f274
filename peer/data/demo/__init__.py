"""Data sets that come with ctpeer, as xz-packed text with an index each. See ATTRIBUTION.md."""

from pathlib import Path

from peer.errors import UsageError

DEMO_PATH = Path(__file__).parent
PREFIX = "demo:"


def demo_names() -> list[str]:
    """Return the names of the data sets."""
    return sorted(path.name for path in DEMO_PATH.iterdir() if (path / "index.json").exists())


def demo_path(spec: str) -> Path:
    """Return the folder of the data set that `spec`, such as `demo:shakespeare`, names.

    Raises:
        UsageError: There is none of that name.
    """
    name = spec.removeprefix(PREFIX)
    if name not in demo_names():
        raise UsageError(f"there is no data set {spec!r}; there are {', '.join(demo_names())}")
    return DEMO_PATH / name
