"""A visitor's own key lies on the disk no longer than its node needs it."""

import asyncio

from peer.config.home import Home
from peer.config.settings import SwarmSettings
from peer.daemon import visit
from peer.daemon.visit import visiting

ADDRESS = "/ip4/127.0.0.1/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"


class Node:
    dht = None
    stopped = False

    async def stop(self):
        self.stopped = True


def test_the_key_is_gone_once_the_node_runs(tmp_path, monkeypatch):
    node, paths = Node(), []

    async def start(options, *_arguments):
        assert options.identity_path.is_file()
        paths.append(options.identity_path)
        return node

    monkeypatch.setattr(visit.Node, "start", start)
    monkeypatch.setattr(visit, "Discovery", lambda *_arguments: None)

    async def scenario():
        async with visiting(Home(tmp_path), SwarmSettings(), "run", (ADDRESS,)):
            assert not paths[0].parent.exists()
            assert not node.stopped

    asyncio.run(scenario())
    assert node.stopped
