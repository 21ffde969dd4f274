import os
import subprocess
import sys

import pytest

from peer.config.home import Home
from peer.daemon import lock
from peer.errors import ConfigurationError


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path)
    home.prepare()
    return home


def test_a_second_holder_is_refused_and_told_of_the_first(home):
    with (
        lock.hold(home),
        pytest.raises(ConfigurationError, match=rf"process {os.getpid()}\) already runs"),
        lock.hold(home),
    ):
        pass


def test_the_lock_is_free_after_its_holder_left(home):
    with lock.hold(home):
        assert not lock.wait_until_free(home, 0.0)
    assert lock.wait_until_free(home, 0.0)
    with lock.hold(home):
        pass


def test_a_home_without_a_daemon_ever_is_free(home):
    assert lock.wait_until_free(home, 0.0)


def test_the_lock_of_a_killed_holder_is_free(home):
    code = (
        "import os, sys; from pathlib import Path; from peer.config.home import Home;"
        "from peer.daemon import lock; held = lock.hold(Home(Path(sys.argv[1])));"
        "held.__enter__(); print('held', flush=True); os.read(0, 1)"
    )
    command = [sys.executable, "-c", code, str(home.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        assert not lock.wait_until_free(home, 0.0)
        holder.kill()
    assert lock.wait_until_free(home, 5.0)
