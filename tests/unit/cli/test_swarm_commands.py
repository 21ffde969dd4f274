"""`ctpeer identity`, `invite` and `peers` on stand-in statuses."""

import json
import time

import pytest
from click.testing import CliRunner

from peer.cli.main import main
from peer.identity import Identity
from peer.run.invite import parse_invite

ID = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
RUN = "shakespeare-0123456789abcdef0123456789abcdef"
ADDRESSES = [f"/ip4/127.0.0.1/tcp/31337/p2p/{ID}", f"/ip4/192.168.1.7/tcp/31337/p2p/{ID}"]
PEER = {
    "peer_id": ID,
    "address": ADDRESSES[0],
    "epoch": 1234,
    "generation": 0,
    "state": "in group",
    "loss_terms_per_second": 5678.9,
    "seen_s": 3.2,
}


@pytest.fixture
def ctpeer(tmp_path, monkeypatch):
    """Run a command in this process on a home of its own."""
    monkeypatch.setenv("CTPEER_HOME", str(tmp_path / "home"))

    def run(*arguments):
        return CliRunner().invoke(main, arguments)

    return run


@pytest.fixture
def answer(monkeypatch):
    """Let the daemon answer with a status."""

    def set_status(**status):
        status = {"run_id": RUN, "reason": "gathering the epoch's batch"} | status
        for command in ("invite", "peers"):
            monkeypatch.setattr(f"peer.cli.{command}.get_status", lambda home: status)

    return set_status


@pytest.mark.parametrize("command", ["invite", "peers"])
def test_without_a_daemon_the_exit_code_is_3(command, ctpeer):
    result = ctpeer(command)
    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr.startswith("ctpeer: no daemon runs on the home")


def test_a_home_without_an_identity_gets_one_and_keeps_it(ctpeer, tmp_path):
    first = json.loads(ctpeer("identity", "--json").stdout)
    path = tmp_path / "home" / "identity.key"
    assert first == {"schema": 1, "peer_id": first["peer_id"], "key_path": str(path)}
    assert path.stat().st_mode & 0o777 == 0o600
    assert Identity.load_or_create(path).peer_id == first["peer_id"]
    text = ctpeer("identity").stdout
    assert text == f"peer id     {first['peer_id']}\nkey         {path}\n"


def test_a_damaged_identity_is_refused_and_kept(ctpeer, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "identity.key").write_bytes(b"junk")
    result = ctpeer("identity")
    assert result.exit_code == 78
    assert "is not an identity key" in result.stderr
    assert (tmp_path / "home" / "identity.key").read_bytes() == b"junk"


def test_an_invite_is_one_line_that_names_run_and_addresses(ctpeer, answer):
    answer(addresses=ADDRESSES)
    result = ctpeer("invite")
    assert result.exit_code == 0
    assert result.stdout.count("\n") == 1
    invite = parse_invite(result.stdout, time.time())
    assert invite.run_id == RUN
    assert invite.addresses == tuple(reversed(ADDRESSES))
    assert invite.expires_s is None


def test_an_invite_that_expires_says_when(ctpeer, answer):
    answer(addresses=ADDRESSES)
    before_s = time.time()
    body = json.loads(ctpeer("invite", "--expires", "7d", "--json").stdout)
    assert 0 <= body["expires_unix_s"] + 1 - before_s - 7 * 86_400 < 60
    assert parse_invite(body["invite"], before_s).expires_s == body["expires_unix_s"]
    assert body["run_id"] == RUN
    assert body["addresses"] == list(reversed(ADDRESSES))


@pytest.mark.parametrize("status", [{}, {"addresses": []}, {"addresses": None}, {"run_id": None}])
def test_without_an_address_yet_the_sentence_says_what_to_do(status, ctpeer, answer):
    answer(**status)
    result = ctpeer("invite")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert (
        "no address yet that others could dial (gathering the epoch's batch); wait" in result.stderr
    )


def test_with_unusable_addresses_alone_the_sentence_says_what_to_do(ctpeer, answer):
    answer(addresses=["/ip4/0.0.0.0/tcp/31337"])
    result = ctpeer("invite")
    assert result.exit_code == 1
    assert "none of this peer's addresses (/ip4/0.0.0.0/tcp/31337) could be" in result.stderr
    assert "swarm.announce" in result.stderr


def test_an_expiry_that_is_no_time_is_a_usage_error(ctpeer, answer):
    answer(addresses=ADDRESSES)
    assert ctpeer("invite", "--expires", "soon").exit_code == 2


def test_peers_are_a_table_with_a_head(ctpeer, answer):
    behind = PEER | {"peer_id": "Qmother", "state": "behind", "epoch": 7, "seen_s": None}
    answer(swarm_peers=[PEER, behind | {"loss_terms_per_second": None, "address": None}])
    head, first, second = ctpeer("peers").stdout.splitlines()
    assert head.split() == [
        "peer",
        "state",
        "epoch",
        "generation",
        "loss",
        "terms/s",
        "seen",
        "address",
    ]
    assert first.split() == [ID, "in", "group", "1234", "0", "5,679", "3", "s", "ago", ADDRESSES[0]]
    assert second.split() == ["Qmother", "behind", "7", "0", "-", "-", "-"]
    assert head.index("epoch") + len("epoch") == first.index("1234") + 4 == second.index(" 7 ") + 2


def test_peers_as_json_are_what_the_daemon_says(ctpeer, answer):
    answer(swarm_peers=[PEER])
    body = json.loads(ctpeer("peers", "--json").stdout)
    assert body == {"schema": 1, "run_id": RUN, "peers": [PEER]}


@pytest.mark.parametrize("status", [{}, {"swarm_peers": []}, {"swarm_peers": None}])
def test_a_lone_peer_is_told_how_to_invite(status, ctpeer, answer):
    answer(**status)
    assert ctpeer("peers").stdout.startswith("no other peer is known; `ctpeer invite`")
    assert json.loads(ctpeer("peers", "--json").stdout)["peers"] == []


def test_a_strangers_words_do_not_reach_the_terminal_raw(ctpeer, answer):
    answer(swarm_peers=[PEER | {"address": "\x1b[2J" + "x" * 1000, "state": "a\nb"}])
    lines = ctpeer("peers").stdout.splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert len(lines[1]) < 300
