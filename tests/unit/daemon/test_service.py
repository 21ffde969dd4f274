"""Which run a start trains."""

import pytest

from peer.daemon.service import choose_run
from peer.errors import ConfigurationError
from peer.run.demo import demo_run_path
from peer.run.directory import RunDirectory
from peer.run.invite import Invite, dump_invite

ADDRESS = "/ip4/203.0.113.7/tcp/31337/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"


def test_an_invite_that_expired_still_names_a_run_that_is_here(home):
    run_id = RunDirectory.open(demo_run_path()).run_id
    invite = dump_invite(Invite(run_id, (ADDRESS,), 1_000_000_000))
    with pytest.raises(ConfigurationError, match="expired on 2001-09-09"):
        choose_run(home, invite)
    choose_run(home, str(demo_run_path()))
    assert choose_run(home, invite).run_id == run_id
