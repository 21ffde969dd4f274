"""Data sets that come with ctpeer, as xz-packed text with an index each. See ATTRIBUTION.md."""

from pathlib import Path

from peer.errors import UsageError

DEMO_PATH = Path(__file__).parent
PREFIX = "demo:"


def demo_names() -> list[str]:
    """Return the names of the data sets."""
    return sorted(path.name for path in DEMO_PATH.iterdir() if (path / "index.json").exists())


def data_folder(spec: str) -> Path:
    """Return the folder that `spec`, a path or a name such as `demo:shakespeare`, means.

    Raises:
        UsageError: There is no demo data set of that name.
    """
    if not spec.startswith(PREFIX):
        return Path(spec)
    name = spec.removeprefix(PREFIX)
    if name not in demo_names():
        known = ", ".join(PREFIX + known for known in demo_names())
        raise UsageError(f"there is no data set {spec!r}; there are {known}")
    return DEMO_PATH / name
