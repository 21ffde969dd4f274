"""What cannot work in a swarm: one sentence with what to do, and the exit code."""

import re
import shutil
import socket
import time
from pathlib import Path

import pytest
from mallory import Gang, Mallory

from peer.run.directory import RunDirectory
from peer.run.invite import Invite, dump_invite
from peer.run.manifest import dump_manifest

NOBODY = "/ip4/127.0.0.1/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
DAY_S = 86400


def refused(daemon, *words, code=78, timeout_s=100):
    """Assert that the daemon ended with `code` and one sentence that holds all `words`."""
    assert daemon.wait(timeout_s) == code, daemon.output
    sentence = daemon.output.splitlines()[-1]
    assert sentence.startswith("ctpeer: "), daemon.output
    for word in words:
        assert word in sentence, sentence
    assert "Traceback" not in daemon.output
    daemon.wait_for_no_process()


@pytest.fixture(scope="session")
def run_id(swarm_run):
    return RunDirectory.open(swarm_run).run_id


@pytest.fixture
def gang(tmp_path):
    gang = Gang(tmp_path)
    yield gang
    gang.close()


@pytest.fixture
def invite_from(gang, run_id):
    """Return an invite to a hostile peer that says something else where it is asked for the run."""

    def make(kind):
        member = gang.start(kind, run_id, {}, 1)
        return dump_invite(Invite.of(run_id, gang.addresses(member)))

    return make


@pytest.fixture
def first(make_daemon, swarm_run):
    """Return an honest daemon that others can join."""
    daemon = make_daemon().start(swarm_run, "--paused")
    daemon.wait_until(lambda status: status["invite"] and status["state"] == "paused")
    return daemon


# ---- invites


def test_a_mistyped_invite(daemon, run_id):
    invite = dump_invite(Invite(run_id, (NOBODY,)))
    place = len(invite) // 2
    wrong = "2" if invite[place] != "2" else "3"
    daemon.start(invite[:place] + wrong + invite[place + 1 :])
    refused(daemon, "the invite is mistyped or cut short", "copy it again, whole", code=2)


def test_an_invite_that_was_cut_short(daemon, run_id):
    daemon.start(dump_invite(Invite(run_id, (NOBODY,)))[:-4])
    refused(daemon, "the invite is mistyped or cut short", code=2)


def test_an_expired_invite(daemon, run_id):
    daemon.start(dump_invite(Invite(run_id, (NOBODY,), int(time.time()) - DAY_S)))
    refused(daemon, f"the invite to {run_id} expired on", "`ctpeer invite` prints")


def test_an_invite_of_a_newer_format(daemon, run_id):
    daemon.start(dump_invite(Invite(run_id, (NOBODY,))).replace("ctpeer1", "ctpeer2", 1))
    refused(daemon, "the invite is of format 2", "update ctpeer")


@pytest.mark.slow
def test_an_invite_to_addresses_at_which_nobody_is(daemon, run_id):
    daemon.start(dump_invite(Invite(run_id, (NOBODY,))))
    refused(
        daemon,
        f"the run {run_id} cannot be joined: no peer of the run could be reached",
        NOBODY,
        "ask for a fresh invite",
    )


# ---- what a stranger hands out as the run


class GivesAManifest(Mallory):
    """Gives `text`, a class attribute, as the manifest."""

    text = ""

    async def serve_manifest(self, stream):
        await stream.receive()
        await stream.send({"signatures": None}, self.text.encode())


def gives(text):
    return type("Gives", (GivesAManifest,), {"text": text})


@pytest.mark.slow
def test_a_manifest_with_another_hash(daemon, invite_from, swarm_run, run_id):
    manifest = RunDirectory.open(swarm_run).manifest
    other = manifest.model_copy(
        update={"optimizer": manifest.optimizer.model_copy(update={"lr": 0.5})}
    )
    daemon.start(invite_from(gives(dump_manifest(other))))
    refused(daemon, "cannot be joined", "whose hash is not the invite's", "ask for a fresh invite")


@pytest.mark.slow
@pytest.mark.parametrize(("theirs", "advice"), [(2, "update ctpeer"), (0, "an older ctpeer")])
def test_a_manifest_of_another_protocol(daemon, invite_from, swarm_run, run_id, theirs, advice):
    text = dump_manifest(RunDirectory.open(swarm_run).manifest)
    other = re.sub(r"(?m)^protocol = 1$", f"protocol = {theirs}", text)
    assert other != text
    daemon.start(invite_from(gives(other)))
    refused(daemon, f"the run {run_id} speaks protocol {theirs}, this ctpeer 1", advice)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_manifest_that_is_none(make_daemon, invite_from):
    # At once: each waits for half a minute for somebody who has a better one.
    texts = ("", "no toml = = [", "a = 1\n", "x" * 4000)
    daemons = [make_daemon().start(invite_from(gives(text))) for text in texts]
    for daemon in daemons:
        refused(daemon, "cannot be joined", "ask for a fresh invite")


@pytest.mark.slow
def test_a_run_that_its_peer_does_not_give(daemon, invite_from):
    daemon.start(invite_from(Mallory))
    refused(daemon, "cannot be joined: nobody gave the manifest", "that state is not here")


def test_a_run_directory_of_another_protocol(daemon, swarm_run, tmp_path):
    run = shutil.copytree(swarm_run, tmp_path / "run")
    path = run / "run.toml"
    path.write_text(path.read_text().replace("protocol = 1", "protocol = 2", 1))
    daemon.start(run)
    refused(daemon, "protocol")


# ---- addresses


def test_an_occupied_port_to_listen_at(daemon, swarm_run):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"/ip4/127.0.0.1/tcp/{other.getsockname()[1]}"
        daemon.start(swarm_run, "--listen", address)
        refused(daemon, f"{address} cannot be listened at", "another program uses that port")


def test_an_address_to_listen_at_of_another_machine(daemon, swarm_run):
    daemon.start(swarm_run, "--listen", "/ip4/192.0.2.1/tcp/0")
    refused(daemon, "/ip4/192.0.2.1/tcp/0 cannot be listened at", "no such address")


@pytest.mark.parametrize(
    "address", ["/ip4/203.0.113.7/tcp/31337", "203.0.113.7:31337", "/ip4/203.0.113.7/tcp/0/p2p/Qm"]
)
def test_a_peer_s_address_that_does_not_say_who_answers_there(daemon, swarm_run, address):
    daemon.start(swarm_run, "--peers", address)
    refused(daemon, address, "/p2p/")


# ---- clocks and identities


@pytest.mark.slow
@pytest.mark.parametrize(("offset_s", "where"), [(10, "ahead of"), (-3600, "behind")])
def test_a_clock_that_is_wrong(make_daemon, first, offset_s, where):
    if not FAKETIME.exists():
        pytest.skip("no libfaketime: `apt-get install faketime`")
    late = make_daemon(
        LD_PRELOAD=str(FAKETIME),
        FAKETIME=f"{offset_s:+d}s",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )
    late.start(first.status()["invite"])
    refused(late, "this machine's clock is", f"s {where} that of 1 of 1 peers", "set-ntp true")


def test_a_second_daemon_with_the_same_identity(make_daemon, first):
    second = make_daemon()
    second.home.mkdir()
    shutil.copy(first.home / "identity.key", second.home / "identity.key")
    second.start(first.status()["invite"])
    refused(second, "this very identity", "identity.key")
    assert first.process.poll() is None
