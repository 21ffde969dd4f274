"""What the machine does beside us, as far as it can be measured."""

import asyncio
import os
import subprocess
import sys
import time

import pytest

from peer.config.home import Home
from peer.config.settings import Settings
from peer.daemon.memory_watch import MemoryWatch
from peer.daemon.senses import OthersLoad, Senses, idle_s, on_battery

BURN = "import time\nend = time.monotonic() + 2.5\nwhile time.monotonic() < end: pass"


@pytest.fixture
def supplies(tmp_path):
    """Make a folder of power supplies: name -> its files."""

    def make(**found):
        for name, files in found.items():
            (tmp_path / name).mkdir()
            for file, text in files.items():
                (tmp_path / name / file).write_text(text + "\n")
        return tmp_path

    return make


MAINS = {"type": "Mains", "online": "1"}
UNPLUGGED = {"type": "Mains", "online": "0"}
FULL = {"type": "Battery", "status": "Full"}
DISCHARGING = {"type": "Battery", "status": "Discharging"}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({}, None),
        ({"AC": MAINS}, None),
        ({"AC": MAINS, "BAT0": FULL}, False),
        ({"AC": UNPLUGGED, "BAT0": DISCHARGING}, True),
        ({"BAT0": DISCHARGING}, True),
        ({"AC": MAINS, "BAT0": DISCHARGING}, False),
        ({"AC": MAINS, "mouse": DISCHARGING | {"scope": "Device"}}, None),
        ({"AC": UNPLUGGED, "BAT0": FULL, "BAT1": DISCHARGING}, True),
        ({"strange": {}}, None),
    ],
)
def test_power_is_read_from_what_the_kernel_lists(supplies, found, expected):
    assert on_battery(supplies(**found)) is expected


def test_the_load_of_others_leaves_out_our_own_and_the_polite():
    load = OthersLoad()
    assert load.share() is None
    ours = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(os.cpu_count())]
    try:
        time.sleep(1.2)  # the kernel counts while time passes
        busy, ours_alone = load._before, load.share()
    finally:
        for process in ours:
            process.kill()
            process.wait()
    assert busy is not None
    assert 0.0 <= ours_alone < 0.9


def test_two_looks_in_a_row_say_nothing():
    load = OthersLoad()
    load.share()
    assert load.share() is None


def test_somebody_s_absence_is_a_time_or_unknown():
    seconds = idle_s()
    assert seconds is None or seconds >= 0.0


def test_only_what_is_asked_for_is_looked_at(tmp_path):
    home = Home(tmp_path)
    nothing = Senses(home, Settings.model_validate({"pause": {"on_battery": False}}))
    assert not nothing.needed
    seen = nothing.look()
    assert seen.on_battery is seen.others_share is seen.idle_s is seen.disk_share is None
    (tmp_path / "file").write_bytes(b"x" * 5_000_000)
    limited = Senses(home, Settings.model_validate({"limits": {"disk_mb": 10}}))
    assert limited.needed
    assert limited.look().disk_share == pytest.approx(0.5, abs=0.01)


def test_memory_beyond_the_limit_is_named_the_second_time():
    watch = MemoryWatch(1e6)

    async def look():
        return [await watch.look(os.getpid()) for _ in range(2)]

    first, second = asyncio.run(look())
    assert first is None
    assert "limits.memory_mb allows 1" in second


def test_no_limit_of_memory_is_never_exceeded():
    assert asyncio.run(MemoryWatch(None).look(os.getpid())) is None
