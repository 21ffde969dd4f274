"""What a sandbox came to: the report as JSON has it, and whether all went as it should. Pure."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from peer.sandbox.chronicle import Chronicle, Commit, Commits, Injected
from peer.sandbox.plan import Kind, Plan
from peer.sandbox.review import review
from peer.sandbox.rulings import Row, Ruling, most_held, superseded, tip_of

SCHEMA_VERSION = 1
SHARE = Fraction(95, 100)
"""In how many of the commits at which it was live a peer has to be."""

_ROOT_CHARS = 12


@dataclasses.dataclass(frozen=True)
class Final:
    """A peer at the end.

    Attributes:
        index: Its number in the sandbox.
        alive: Whether it was neither killed nor ended by itself.
        status: Its last status; None if it never had one.
        peer_id: Its id, if it ever said.
        commits: What it committed, as it says.
        row: The verdicts that it held to.
    """

    index: int
    alive: bool
    status: Mapping[str, Any] | None
    peer_id: str | None
    commits: Commits
    row: Row = ()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The report, as JSON has it. `ok` in it says whether all went as it should."""

    report: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Whether every live peer ended as it should, and was where it should have been."""
        return bool(self.report["ok"])


def merge_commits(finals: Iterable[Final]) -> dict[int, Commit]:
    """Return the commit of each epoch as most live peers have it, by epoch.

    The newest generation's counts. Of as many the one that the lowest index has; what no live peer
    knows is taken from the others.
    """
    ordered = sorted(finals, key=lambda final: final.index)
    merged = {}
    for epoch in sorted({epoch for final in ordered for epoch in final.commits}):
        having = [final for final in ordered if epoch in final.commits]
        voters = [final for final in having if final.alive] or having
        newest = max(final.commits[epoch].generation for final in voters)
        commits = [final.commits[epoch] for final in voters]
        votes = Counter(_spell(c.loss_terms) for c in commits if c.generation == newest)
        merged[epoch] = Commit(newest, json.loads(votes.most_common(1)[0][0]))
    return merged


def conclude(
    finals: Sequence[Final],
    chronicle: Chronicle,
    plan: Plan,
    duration_s: float,
    problems: Sequence[str],
) -> Outcome:
    """Return what a sandbox came to.

    Args:
        finals: The peers, by index.
        chronicle: What happened.
        plan: What was to happen.
        duration_s: How long it took.
        problems: What went wrong on the way, in sentences.
    """
    commits = merge_commits(finals)
    peers = [_peer(final, chronicle, commits) for final in finals]
    ids = {final.index: final.peer_id for final in finals}
    rows = {final.index: final.row for final in finals if final.alive}
    told, wrong = None, list[str]()
    if plan.scenario is not None:
        told, wrong = review(plan.scenario, most_held(rows), chronicle, ids, list(rows))
    problems = [
        *problems,
        *wrong,
        *_wrong_ends(finals, plan.max_epochs),
        *_different_verdicts(rows),
        *_unknown_epochs(chronicle, commits),
        *_absences(peers),
    ]
    statuses = [final.status for final in finals if final.status is not None]
    failed = sum((Counter(s["rounds"]["failed_by_reason"]) for s in statuses), Counter[str]())
    return Outcome(
        {
            "schema": SCHEMA_VERSION,
            "ok": not problems,
            "problems": problems,
            "epochs": chronicle.epoch,
            "duration_s": round(duration_s, 3),
            "peers": peers,
            "failed_rounds": dict(failed),
            "lost_epochs": sum(s["epochs_lost_in_branches"] for s in statuses),
            "events": [_event(one, chronicle, ids, commits) for one in chronicle.injected],
            "commits": [
                {
                    "epoch": epoch,
                    "generation": commit.generation,
                    "group": sorted(commit.loss_terms),
                    "loss_terms": commit.loss_terms,
                }
                for epoch, commit in commits.items()
            ],
            **_judged(most_held(rows), chronicle, plan.validate_every),
            "scenario": told,
        }
    )


def _judged(row: Row, chronicle: Chronicle, every: int) -> dict[str, Any]:
    """Return what the verdicts came to; those of an earlier start of the homes are among them."""
    last = row[-1] if row else None
    good = None if last is None else {"epoch": last.last_good_epoch, "root": last.last_good_root}
    return {
        "verdicts": [_verdict(ruling, chronicle) for ruling in row],
        "generation": last.generation if last is not None else 0,
        "rollbacks": sum(ruling.rejected for ruling in row),
        "superseded": superseded(row, every, chronicle.first_epoch) if every else [],
        "last_good": good,
    }


def _verdict(ruling: Ruling, chronicle: Chronicle) -> dict[str, Any]:
    after_s = chronicle.verdict_s(ruling.round, ruling.candidates_generation, ruling.epoch)
    return {
        "round": ruling.round,
        "epoch": ruling.epoch,
        "candidate": ruling.candidate,
        "decision": ruling.decision,
        "reason": ruling.reason,
        "difference_nats": ruling.difference_nats,
        "generation": ruling.generation,
        "signers": list(ruling.signers),
        "called": list(ruling.called),
        "struck": list(ruling.struck),
        "hash": ruling.hash,
        "small_swarm": ruling.small_swarm,
        "quorum": ruling.quorum,
        "seconds_after_candidate": _rounded(after_s),
    }


def _peer(final: Final, chronicle: Chronicle, commits: Commits) -> dict[str, Any]:
    status = final.status or {}
    # The root is made beside the next epoch's work: one of an earlier epoch would mislead.
    fresh = status.get("state_root_epoch") == status.get("epoch")
    expected = [
        commit
        for epoch, commit in commits.items()
        if chronicle.expected(final.index, epoch, commit.generation)
    ]
    return {
        "index": final.index,
        "peer_id": final.peer_id,
        "alive": final.alive,
        "epoch": status.get("epoch"),
        "generation": status.get("generation"),
        "state_root": status.get("state_root") if fresh else None,
        "heldout": status.get("heldout", {}).get("value"),
        "rounds": status.get("rounds"),
        "restarts": status.get("restarts_by_reason"),
        "commits_expected": len(expected),
        "commits_contributed": sum(c.loss_terms.get(final.peer_id or "", 0) > 0 for c in expected),
    }


def _wrong_ends(finals: Sequence[Final], max_epochs: int) -> list[str]:
    """Return what is wrong about where the live peers ended."""
    live = [final for final in finals if final.alive]
    if not live:
        return ["no peer is alive at the end"]
    problems, roots = [], {}
    for final in live:
        status = final.status or {}
        if status.get("epoch") != max_epochs:
            problems.append(
                f"peer {final.index} ended at epoch {status.get('epoch')}, not at {max_epochs}"
            )
        elif status.get("state_root_epoch") != max_epochs or not status.get("state_root"):
            problems.append(f"peer {final.index} never said its root at epoch {max_epochs}")
        else:
            roots[final.index] = (status.get("generation"), str(status["state_root"]))
    if len(set(roots.values())) > 1:
        each = ", ".join(
            f"peer {index} has {root[:_ROOT_CHARS]} of generation {generation}"
            for index, (generation, root) in roots.items()
        )
        problems.append(f"the roots differ at epoch {max_epochs}: {each}")
    return problems


def _different_verdicts(rows: Mapping[int, Row]) -> list[str]:
    """Return whether the live peers hold to different verdicts."""
    if len({tip_of(row) for row in rows.values()}) <= 1:
        return []
    each = ", ".join(
        f"peer {index} holds to {f'{row[-1].round} {tip_of(row)[:_ROOT_CHARS]}' if row else 'none'}"
        for index, row in rows.items()
    )
    return [f"the newest verdicts differ: {each}"]


def _unknown_epochs(chronicle: Chronicle, commits: Commits) -> list[str]:
    reached = range(chronicle.first_epoch + 1, chronicle.epoch + 1)
    unknown = [epoch for epoch in reached if epoch not in commits]
    return [f"no commit is known of the epochs {_ranges(unknown)}"] if unknown else []


def _absences(peers: Iterable[Mapping[str, Any]]) -> list[str]:
    problems = []
    for peer in peers:
        expected, inside = peer["commits_expected"], peer["commits_contributed"]
        if expected and Fraction(inside, expected) < SHARE:
            problems.append(
                f"peer {peer['index']} was in {inside} of the {expected} commits at which it was "
                f"live; {float(SHARE):.0%} are asked for"
            )
    return problems


def _event(
    one: Injected, chronicle: Chronicle, ids: Mapping[int, str | None], commits: Commits
) -> dict[str, Any]:
    peer_id = ids.get(one.fault.peer)
    event: dict[str, Any] = {
        "kind": one.fault.kind.value,
        "peer": one.fault.peer,
        "epoch": one.fault.epoch,
        "swarm_epoch": one.position[1],
        "at_s": _rounded(one.at_s),
        "next_commit_s": _rounded(chronicle.next_commit_s(one)),
        "regrouped_s": _rounded(chronicle.regrouped_s(one, peer_id, commits)),
    }
    if one.fault.kind is not Kind.KILL:
        event["catch_up_s"] = _rounded(one.catch_up_s)
    if one.fault.kind is Kind.FREEZE:
        event["seconds"] = one.fault.seconds
        event["returned_s"] = _rounded(chronicle.returned_s(one, peer_id, commits))
    return event


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _spell(loss_terms: Mapping[str, int]) -> str:
    return json.dumps(loss_terms, sort_keys=True)


def _ranges(numbers: Sequence[int]) -> str:
    """Return ascending `numbers` in words, runs of them by their ends."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ", ".join(" to ".join(map(str, run)) for run in runs)
