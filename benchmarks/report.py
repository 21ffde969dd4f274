"""The form in which every benchmark reports: one JSON object, medians of paired runs."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """Return what a reader needs to know of the machine to place the numbers."""
    with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:  # noqa: PTH123
        models = [
            line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")
        ]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return minimum, median and maximum of `values`."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def report(
    name: str, unit: str, ours: Sequence[float], rival: Sequence[float], **more: Any
) -> dict[str, Any]:
    """Return the report of paired runs: `ours[i]` and `rival[i]` ran one after the other."""
    pairs = list(zip(ours, rival, strict=True))
    ratios = [our / their for our, their in pairs]
    return {
        "name": name,
        "unit": unit,
        "ours": statistics.median(ours),
        "rival": statistics.median(rival),
        "ratio": statistics.median(ratios),
        "runs": [{"ours": our, "rival": their, "ratio": our / their} for our, their in pairs],
        "spread": {"ours": spread(ours), "rival": spread(rival), "ratio": spread(ratios)},
        **more,
        "machine": machine(),
    }


def show(result: dict[str, Any], *, as_json: bool) -> None:
    """Print `result` as one JSON object, or as a line for a person."""
    if as_json:
        print(json.dumps(result, indent=1))
        return
    low, high = result["spread"]["ratio"]["min"], result["spread"]["ratio"]["max"]
    print(
        f"{result['name']}: {result['ours']:.0f} against {result['rival']:.0f} {result['unit']}, "
        f"ratio {result['ratio']:.3f} ({low:.3f} to {high:.3f} in {len(result['runs'])} pairs)"
    )
