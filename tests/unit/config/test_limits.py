"""The sections [limits] and [pause]: what they take, and what they refuse in words."""

import pytest

from peer.config.layers import load_settings
from peer.errors import ConfigurationError


@pytest.fixture
def load(tmp_path):
    def load(text="", environment=None):
        path = tmp_path / "peer.toml"
        path.write_text(text)
        return load_settings(path, {}, environment or {}).settings

    return load


def test_nothing_is_bounded_by_default_but_manners_are_there(load):
    settings = load()
    limits = settings.limits
    assert limits.memory_bytes is limits.disk_bytes is limits.upload_bytes_per_s is None
    assert (limits.nice, limits.batch) == (10, True)
    assert settings.pause.on_battery
    assert not settings.pause.when_busy
    assert settings.pause.windows == ()


def test_limits_are_written_in_megabytes(load):
    limits = load("[limits]\nupload_mb_per_s = 1\nmemory_mb = 2000\ndownload_mb_per_s = 2.5").limits
    assert limits.upload_bytes_per_s == 1e6
    assert limits.download_bytes_per_s == 2.5e6
    assert limits.memory_bytes == 2e9


def test_a_schedule_in_the_environment_is_written_with_semicolons(load):
    pause = load("", {"CTPEER_PAUSE__SCHEDULE": "22:00-07:00; sat,sun 00:00-24:00"}).pause
    assert pause.schedule == ("22:00-07:00", "sat,sun 00:00-24:00")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[limits]\nupload_mb_per_s = 0", "limits.upload_mb_per_s"),
        ("[limits]\nupload_mb = 1", "did you mean upload_mb_per_s"),
        ("[limits]\nnice = -5", "limits.nice"),
        ("[limits]\nmemory_mb = 5", "limits.memory_mb"),
        ("[pause]\nschedule = ['nights']", "write it like 22:00-07:00"),
        ("[pause]\nbusy_percent = 0", "pause.busy_percent"),
    ],
)
def test_what_makes_no_sense_is_refused(load, text, words):
    with pytest.raises(ConfigurationError, match=words):
        load(text)
