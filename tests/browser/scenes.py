"""What pages are shown in tests: the status of a run after events that a worker could have sent."""

import json
import math

from peer.events import (
    CheckpointWritten,
    Evaluated,
    Loaded,
    PeersSeen,
    Progress,
    RoundCommitted,
    RoundFailed,
    ShardChoice,
    ValidationMoved,
    VerdictAdopted,
)
from peer.observe.status import Snapshot, Surroundings, render

NOW_S = 1_790_000_000.0
ME = "QmNswmcaujfWHVAb4SUUoB7Sg9KF2YHy2ASA1YRH4QncvQ"
OTHERS = tuple(f"Qm{name}{'x' * 30}{name[::-1]}" for name in ("Ada7", "Bode", "Curie", "Dirac9"))
RUN = "shakespeare-1c3f9f9880d54856f20b57260a623294"
EPOCHS = 480


def root(epoch):
    return f"{epoch * 2654435761 % 2**48:012x}" + "0" * 52


def loss(epoch):
    return 3.3 + 3.6 * math.exp(-epoch / 90) + 0.12 * math.sin(epoch * 1.7) * math.exp(-epoch / 400)


def snapshot(peers=OTHERS, peer_words="in group", shard="much-ado-about-nothing.txt"):
    """Return what is known after many epochs with others, judged twice."""
    seen = Snapshot(started_s=0.0)
    names = [shard, *(f"play-{i}.txt" for i in range(1, 14))]
    shards = tuple(
        ShardChoice(name=name, bytes=90_000 + 7_000 * i, reason="everything is wanted")
        for i, name in enumerate(names)
    )
    seen.apply(
        Loaded(
            run_id=RUN,
            run_name="shakespeare",
            task="causal-lm",
            peer_id=ME,
            device="cpu",
            parameters=536_064,
            epoch=0,
            generation=0,
            state_root=root(0),
            checkpoint_unix_time_s=NOW_S - 900,
            tokens_total=0,
            micro_batch=16,
            target_loss_terms=4096,
            heldout_name="bits_per_byte",
            baselines={"unigram": 3.678, "bigram": 2.624},
            shards=shards,
        ),
        0.0,
    )
    for epoch in range(1, EPOCHS + 1):
        members = (ME, *peers[: min(len(peers), epoch // 120)])
        seen.apply(
            RoundCommitted(
                epoch=epoch,
                generation=0,
                loss_terms={peer: 1400 - 230 * i for i, peer in enumerate(members)},
                loss=loss(epoch),
                seconds_by_phase={},
                dropped_samples=0,
                dropped_tokens=0,
            ),
            float(epoch),
        )
        if epoch % 15 == 0:
            value = 2.42 + 1.9 * math.exp(-epoch / 110)
            seen.apply(
                Evaluated(epoch=epoch, name="bits_per_byte", value=value, metrics={}, seconds=1.0),
                float(epoch),
            )
    for reason, detail in (("no_group", "nobody else was ready"), ("transfer", "a part came late")):
        seen.apply(
            RoundFailed(reason=reason, detail=detail, dropped_samples=0, dropped_tokens=0),
            float(EPOCHS),
        )
    for second in range(10):
        seen.apply(
            Progress(
                samples=16,
                tokens=2048,
                loss=3.3,
                contribution_samples=20,
                contribution_weight=2560,
                tokens_total=1_966_080,
                seconds=0.1,
            ),
            EPOCHS + second / 2,
        )
    states = [peer_words, "in group", "behind", "unreachable"]
    seen.apply(
        PeersSeen(
            addresses=(f"/ip4/203.0.113.7/tcp/31337/p2p/{ME}",),
            reachability="public",
            peers=tuple(
                {
                    "peer_id": peer,
                    "address": f"/ip4/198.51.100.{i + 3}/tcp/31337/p2p/{peer}",
                    "epoch": EPOCHS - 3 * (state == "behind"),
                    "generation": 0,
                    "state": state,
                    "problem": "it did not answer in 4 s" if state == "unreachable" else None,
                    "loss_terms_per_second": 1180.0 - 140 * i,
                    "seen_s": 0.7 * i,
                }
                for i, (peer, state) in enumerate(zip(peers, states, strict=False))
            ),
            sent_bytes=1,
            received_bytes=1,
            refused_records={},
            refused_requests={},
        ),
        float(EPOCHS),
    )
    seen.apply(
        CheckpointWritten(
            state_root=root(478), epoch=478, bytes=6_447_104, seconds=0.1, unix_time_s=NOW_S - 8
        ),
        float(EPOCHS),
    )
    seen.apply(
        ValidationMoved(
            phase="waiting for a candidate",
            candidate_epoch=None,
            seat=None,
            round=4,
            generation=0,
            last_good_epoch=400,
            last_good_root=root(400),
            problem=None,
        ),
        float(EPOCHS),
    )
    for number in range(1, 5):
        seen.apply(verdict(number), float(EPOCHS))
    return seen


def verdict(number):
    return VerdictAdopted(
        round=number,
        epoch=100 * number,
        state_root=root(100 * number),
        decision="accept",
        reason="not worse than the baseline",
        difference_nats=-0.4,
        signers=3,
        called=4,
        seat="a member of the committee" if number % 2 else None,
        agreed=True if number % 2 else None,
        struck=False,
        small_swarm=False,
        generation=0,
        last_good_epoch=100 * number,
        last_good_root=root(100 * number),
        unix_time_s=NOW_S - 60 * (5 - number),
    )


def view(state="training", reason="gathering the epoch's batch", *, seen=None, **more):
    """Return what the page of a peer is told."""
    seen = seen or snapshot()
    status = render(
        seen,
        Surroundings(
            state=state,
            reason=reason,
            now_s=EPOCHS + 5.0,
            unix_time_s=NOW_S,
            rss_bytes={"supervisor": 68_000_000, "worker": 655_000_000},
            metrics_url="http://127.0.0.1:8470/metrics",
            run_id=RUN,
            role="trainer",
            pid=4711,
            worker_pid=None if state == "restarting" else 4712,
            invite="ctpeer1" + "7Lp64smCH2ctA13u6b1RZonpoFRVK8689VPC3QGjD7j2SREuTdc2CmDBWEKH" * 2,
        ),
    )
    shown = {
        "schema": 1,
        "status": status,
        "paused": None,
        "quiet_s": None,
        "rss_bytes": {"supervisor": 68_000_000, "worker": 655_000_000},
        "history": seen.history.shown(),
        "last_group": dict(seen.commits[-1].loss_terms) if seen.commits else {},
        "lineage": {
            "checkpoints": [checkpoint(epoch) for epoch in (478, 452, 426, 400, 300)],
            "verdicts": [
                {
                    "round": number,
                    "epoch": 100 * number,
                    "candidate": root(100 * number),
                    "decision": "accept",
                    "reason": "not worse than the baseline",
                    "signers": 3,
                    "called": 4,
                    "generation": 0,
                    "last_good_root": root(100 * number),
                }
                for number in (4, 3, 2, 1)
            ],
            "problem": None,
        },
    }
    return json.loads(json.dumps(shown | more))


def checkpoint(epoch):
    judged = epoch % 100 == 0
    return {
        "state_root": root(epoch),
        "epoch": epoch,
        "generation": 0,
        "parent": {"epoch": epoch - 26, "state_root": root(epoch - 26)},
        "written_unix_s": NOW_S - 2 * (EPOCHS - epoch) - 4,
        "scores": {"bits_per_byte": 2.48} if judged else {},
        "accepted_by": root(epoch) if judged else None,
        "bytes": 6_447_104,
        "fetched": False,
        "problem": None,
    }


def swarm(live=4, branches=1, spread=1):
    """Return what an exporter serves, by path."""
    peers = (ME, *OTHERS)
    common = {"schema": 1, "run_id": RUN, "unix_time_s": NOW_S}
    weights = [1_966_080, 1_204_224, 983_040, 610_304, 204_800]
    return {
        "swarm": common
        | {
            "epoch": EPOCHS,
            "generation": 0,
            "certificates": 64,
            "epoch_spread": spread,
            "branches": branches,
            "group_peers": 4.0,
            "loss_terms": sum(weights),
            "peers": {
                "live": live,
                "newcomers": 2,
                "by_state": {"training": live - 1, "averaging": 1, "paused": 0, "silent": 0},
                "by_version": {"0.1.0": live},
                "by_device": {"cpu": live - 1, "cuda": 1, "other": 0},
            },
            "self_reported": {
                "tokens_per_second": 18_240.0,
                "loss_nats": 3.31,
                "heldout": 2.45,
                "group_peers": 4.0,
                "rounds_committed": 1890,
                "rounds_failed": 7,
                "refused": 0,
            },
            "heldout_baselines": {"unigram": 3.678, "bigram": 2.624},
            "shards": {"count": 40, "claimed": 38, "claims": 61, "by_claims": {"0": 2}},
            "verdicts": {"accept": 4, "inconclusive": 0, "reject": 1},
        },
        "leaderboard": common
        | {
            "peers": [
                {
                    "peer_id": peer,
                    "live": i != len(peers) - 1,
                    "loss_terms": weight,
                    "share": weight / sum(weights),
                    "epochs": 64 - 9 * i,
                    "epochs_behind": i if i < 3 else None,
                    "seats": 4 - i,
                    "seats_scored": 4 - i,
                    "seats_agreed": max(0, 4 - i - (i == 2)),
                    "strikes": int(i == 2),
                    "barred": False,
                    "judged_epochs": 40,
                    "self_reported": None
                    if i == len(peers) - 1
                    else {
                        "version": "0.1.0",
                        "epoch": EPOCHS - i,
                        "client": False,
                        "phase": "training",
                        "device": "cuda" if i == 0 else "cpu",
                        "tokens_per_second": 6100.0 - 900 * i,
                        "loss_nats": 3.3,
                        "heldout": 2.45,
                    },
                }
                for i, (peer, weight) in enumerate(zip(peers, weights, strict=True))
            ]
        },
        "verdicts": common
        | {
            "generation": 0,
            "last_good": {"epoch": 400, "state_root": root(400)},
            "verdicts": [
                {
                    "round": number,
                    "epoch": 100 * number,
                    "state_root": root(100 * number),
                    "decision": "accept" if number != 2 else "reject",
                    "reason": "not worse than the baseline",
                    "words": "not worse than the baseline (-0.4012 nats, standard error 0.0150)",
                    "signers": 3,
                    "called": 4,
                    "candidate_nats": 5.2 - 0.4 * number,
                    "baseline_nats": 5.6 - 0.4 * number,
                    "generation": 0,
                }
                for number in (4, 3, 2, 1)
            ],
        },
        "healthz": {"ok": True, "problem": None},
    }
