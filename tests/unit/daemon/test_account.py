"""What a peer tells the run of how it does."""

import math

import pytest

from peer.daemon.account import Account
from peer.events import (
    Evaluated,
    PartRefused,
    PeersSeen,
    Phase,
    PhaseChanged,
    Progress,
    RolledBack,
    RootComputed,
    RoundCommitted,
    RoundFailed,
    RoundFailure,
)
from peer.identity import Identity
from peer.swarm.kinds import KINDS
from peer.swarm.records import seal

COMMITTED = RoundCommitted(
    epoch=3,
    generation=0,
    loss_terms={"a": 60, "b": 40},
    loss=4.5,
    seconds_by_phase={},
    dropped_samples=0,
    dropped_tokens=0,
)


def progress(tokens):
    return Progress(
        samples=1,
        tokens=tokens,
        loss=4.0,
        contribution_samples=1,
        contribution_weight=1,
        tokens_total=tokens,
        seconds=1.0,
    )


def seen(**refused):
    return PeersSeen(
        addresses=(),
        reachability="",
        peers=(),
        sent_bytes=0,
        received_bytes=0,
        refused_records=refused,
        refused_requests={"busy": 1},
    )


@pytest.fixture
def clock():
    class Clock:
        now_s = 0.0

        def __call__(self):
            return self.now_s

    return Clock()


@pytest.fixture
def account(clock):
    return Account(None, clock)


def test_a_peer_that_just_began_has_little_to_tell(account):
    body = account.body()
    assert (body.phase, body.root, body.loss_nats, body.heldout) == ("loading", None, None, None)
    assert body.metrics is None
    assert body.tokens_per_s == 0.0


def test_what_happened_is_told_and_passed_on(account, clock, make_loaded):
    passed = []
    emit = account.listening(passed.append)
    failed = RoundFailed(
        reason=RoundFailure.TRANSFER, detail="", dropped_samples=0, dropped_tokens=0
    )
    events = [
        make_loaded(device="cuda:1"),
        PhaseChanged(phase=Phase.TRAINING, reason=""),
        progress(0),
        COMMITTED,
        failed,
        Evaluated(epoch=3, name="bits_per_byte", value=2.5, metrics={}, seconds=0.1),
        RootComputed(epoch=3, state_root="ab" * 32),
        seen(size=2),
        PartRefused(peer_id="x", reason="not finite"),
    ]
    for event in events:
        emit(event)
    clock.now_s = 10.0
    emit(progress(500))
    body = account.body()
    assert passed[:-1] == events
    assert (body.phase, body.device, body.group) == ("training", "cuda", 2)
    assert (body.committed, body.failed, body.refused) == (1, 1, 4)
    assert (body.loss_nats, body.heldout, body.tokens_per_s) == (4.5, 2.5, 50.0)
    assert (body.generation, body.epoch, body.root) == (0, 3, "ab" * 8)


def test_a_root_is_told_with_the_generation_that_it_is_of(account):
    account.apply(RootComputed(epoch=3, state_root="ab" * 32))
    account.apply(
        RolledBack(
            reason="", generation=1, epoch=2, lost_epochs=1, dropped_samples=0, dropped_tokens=0
        )
    )
    assert (account.body().generation, account.body().epoch) == (0, 3)
    account.apply(RootComputed(epoch=2, state_root="cd" * 32))
    assert (account.body().generation, account.body().epoch) == (1, 2)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_left_out(account, value):
    account.apply(Evaluated(epoch=1, name="x", value=value, metrics={}, seconds=0.1))
    assert account.body().heldout is None


def test_large_numbers_are_cut_to_what_a_record_bears(account, clock, tmp_path):
    account.apply(Evaluated(epoch=1, name="x", value=1e30, metrics={}, seconds=0.1))
    account.apply(seen(size=10**15))
    account.apply(progress(0))
    clock.now_s = 1e-9
    account.apply(progress(10**15))
    body = account.body()
    assert (body.heldout, body.refused, body.tokens_per_s) == (1e6, 10**9, 1e12)
    identity = Identity.load_or_create(tmp_path / "a.key")
    longest = body.model_copy(update={"metrics": "[" + "a" * 45 + "]:65535", "root": "ab" * 8})
    assert len(seal(identity, "a" * 80, "status", 2**52, 1e9, longest)) < KINDS["status"].max_bytes
