"""Which run a person means, and whom to ask first."""

import pytest

from monitoring.chosen import choose
from peer.config.home import Home
from peer.errors import ConfigurationError, UsageError
from peer.run.demo import demo_run_path
from peer.run.directory import RunDirectory
from peer.run.invite import Invite, dump_invite

RUN_ID = "tiny-" + "0" * 32
PEER = "QmW7BuuTPoeVZ2KL69Q7UxWmu3xi8J1yA46p9RpmV8LYfY"
ADDRESS = f"/ip4/203.0.113.7/tcp/31337/p2p/{PEER}"


def chosen(run, peers=(), home=None):
    return choose(str(run), peers, home, 15.0, allow_private=False)


def test_an_invite_says_the_run_and_whom_to_ask():
    watched = chosen(dump_invite(Invite(RUN_ID, (ADDRESS,))), [ADDRESS])
    assert (watched.run_id, watched.addresses) == (RUN_ID, (ADDRESS,))


def test_a_run_id_needs_somebody_to_ask(tmp_path):
    assert chosen(RUN_ID, [ADDRESS]).run_id == RUN_ID
    with pytest.raises(ConfigurationError, match="is known: give an invite"):
        chosen(RUN_ID, home=Home(tmp_path))


def test_a_home_knows_peers(tmp_path):
    (tmp_path / "known_peers.json").write_text(f'{{"peers": {{"{PEER}": ["{ADDRESS}"]}}}}')
    assert chosen(RUN_ID, home=Home(tmp_path)).known == (ADDRESS,)


def test_a_directory_says_the_run_and_its_manifest():
    watched = chosen(demo_run_path(), [ADDRESS])
    assert watched.manifest == RunDirectory.open(demo_run_path()).manifest


@pytest.mark.parametrize("run", ["nonsense", "/nowhere/at/all", "ctpeer1x"])
def test_what_is_no_run_is_one_clear_sentence(run):
    with pytest.raises((UsageError, ConfigurationError)):
        chosen(run, [ADDRESS])
