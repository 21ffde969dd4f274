import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_report_is_one_json_object_with_what_a_reader_needs():
    sizes = ["--runs", "1", "--parameters", "1000000", "--donors", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.join", "--json", *sizes],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report) >= {"name", "ours", "rival", "ratio", "runs", "spread", "machine"}
    [run] = report["runs"]
    assert report["ratio"] == run["ratio"] == run["ours"] / run["rival"]
    assert report["state_bytes"] == 12_000_016
    assert report["several_donors_ms"]["median"] > 0
    assert set(report["joiner_cpu_seconds"]) == {"ours", "several", "rival"}
