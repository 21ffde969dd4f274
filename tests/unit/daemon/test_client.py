"""Asking a daemon whose home is not ours; what a daemon answers is in `test_control`."""

import os

import pytest

from peer.daemon.client import get_status
from peer.errors import CtpeerError, NotRunningError


@pytest.fixture
def closed(home):
    """A home that this process, root or not, may not look into."""
    home.path.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    yield home
    if is_root:
        os.seteuid(0)
    home.path.chmod(0o700)


def test_a_home_that_is_closed_to_us_is_said_to_be_somebody_elses(closed):
    with pytest.raises(CtpeerError, match="belongs to somebody else; ask as that user or with su"):
        get_status(closed)


def test_a_file_in_place_of_a_home_is_no_daemon(tmp_path, home):
    (tmp_path / "file").touch()
    with pytest.raises(NotRunningError):
        get_status(type(home)(tmp_path / "file" / "home"))
