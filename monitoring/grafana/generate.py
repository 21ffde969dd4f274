"""All dashboards as the JSON that Grafana reads."""

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from monitoring.grafana import data, peer, swarm, validation

DASHBOARDS_PATH = Path(__file__).parent / "dashboards"


def dashboards() -> dict[str, str]:
    """Return every dashboard's file name and text."""
    made = [module.dashboard() for module in (peer, swarm, validation, data)]
    texts = (json.dumps(each, cls=JSONEncoder, indent=1, sort_keys=True) for each in made)
    return {f"{each.uid}.json": f"{text}\n" for each, text in zip(made, texts, strict=True)}


def write(folder: Path) -> None:
    """Write every dashboard into `folder`."""
    for name, text in dashboards().items():
        (folder / name).write_text(text)
