import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_report_is_one_json_object_with_what_a_reader_needs():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.overhead", "--json", "--runs", "1", "--epochs", "3"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=250,
    )
    report = json.loads(done.stdout)
    assert set(report) >= {"name", "ours", "rival", "ratio", "runs", "spread", "machine"}
    [run] = report["runs"]
    assert report["ratio"] == run["ratio"] == run["ours"] / run["rival"]
    phases = report["milliseconds_per_epoch"]
    assert set(phases["ours"]) >= {"gather", "reduce", "certify", "outer_step"}
    assert set(phases["rival"]) >= {"optimizer"}
