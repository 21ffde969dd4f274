"""The demo run, shared by everybody who types `ctpeer start` and nothing else."""

from pathlib import Path


def demo_run_path() -> Path:
    """Return the demo's run directory."""
    return Path(__file__).parent
