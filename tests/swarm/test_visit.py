"""A visitor finds the peers of a run over real nodes, and leaves nothing of the home in use."""

import pytest

from peer.checkpoint.snapshot import SNAPSHOTS
from peer.config.home import Home
from peer.config.settings import SwarmSettings
from peer.daemon.visit import visiting
from peer.errors import ConfigurationError
from peer.swarm.membership import Member, Report, save_known_peers
from peer.swarm.testimony import Good
from peer.swarm.wire import scoped

GOOD = Good(round=1, verdict="a" * 64, state_root="b" * 64, generation=0)
NOBODY = "/ip4/127.0.0.1/tcp/9/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    home.prepare()
    return home


@pytest.fixture(scope="module")
def town(nodes, swarm_tools):
    """Return two peers of the run, each with a state to offer, that only know each other."""
    run_id = swarm_tools.RUN
    first = nodes.start("first")
    second = nodes.start("second", first)
    for epoch, node in enumerate((first, second), 1):

        async def give(channel, epoch=epoch):
            await channel.receive()
            await channel.send({"roots": {f"{epoch:064x}": epoch}})

        body = swarm_tools.peer_body(addresses=node.addresses[:1])
        nodes.do(node.transport.serve(scoped(run_id, SNAPSHOTS), give))
        nodes.do(node.dht.put(run_id, "peer", body, 60.0))
        nodes.do(node.dht.put(run_id, "good", GOOD, 60.0))
    return first, second


@pytest.fixture
def visit(nodes, swarm_tools):
    """Visit the run and return what was found: offers, refusals, what is good, and the trouble."""

    async def look(home, settings, addresses):
        refusals = []
        async with visiting(home, settings, swarm_tools.RUN, addresses) as visit:
            offered = await visit.offered(refusals.append)
            return offered, refusals, await visit.good(offered), visit.trouble

    def run(home, *addresses, **settings):
        return nodes.do(look(home, SwarmSettings(**settings), addresses), 60.0)

    return run


def test_all_peers_are_found_over_one_that_is_named(town, visit, home):
    before = sorted(home.path.iterdir())
    offered, refusals, good, _ = visit(home, town[0].addresses[0])
    assert offered == {node.peer_id: {f"{n:064x}": n} for n, node in enumerate(town, 1)}
    assert refusals == []
    assert good == {node.peer_id: GOOD for node in town}
    assert sorted(home.path.iterdir()) == before


def test_peers_that_the_home_met_before_or_the_settings_name_are_enough(town, visit, home):
    first, second = town
    member = Member(second.peer_id, addresses=second.addresses[:1], report=Report())
    save_known_peers(home.known_peers_path, [member])
    assert set(visit(home)[0]) == {first.peer_id, second.peer_id}
    home.known_peers_path.unlink()
    assert set(visit(home, peers=(first.addresses[0],))[0]) == {first.peer_id, second.peer_id}


def test_who_does_not_answer_is_named_with_its_reason(visit, home):
    offered, _, good, trouble = visit(home, NOBODY)
    assert (offered, good) == ({}, {})
    assert trouble.startswith(f"{NOBODY} cannot be reached")
    assert "\n" not in trouble


def test_a_home_that_knows_nobody_says_what_to_do(visit, home):
    with pytest.raises(ConfigurationError, match=r"knows no peer .* --peers ADDRESS.*--invite"):
        visit(home)
