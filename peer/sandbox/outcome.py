"""What a sandbox came to: the report as JSON has it, and whether all went as it should. Pure."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from peer.sandbox.chronicle import Chronicle, Commits, Injected
from peer.sandbox.plan import Kind

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
    """

    index: int
    alive: bool
    status: Mapping[str, Any] | None
    peer_id: str | None
    commits: Commits


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The report, as JSON has it. `ok` in it says whether all went as it should."""

    report: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Whether every live peer ended as it should, and was where it should have been."""
        return bool(self.report["ok"])


def merge_commits(finals: Iterable[Final]) -> dict[int, dict[str, int]]:
    """Return the commit of each epoch as most live peers have it, by epoch.

    Of as many the one that the lowest index has; what no live peer knows is taken from the others.
    """
    ordered = sorted(finals, key=lambda final: final.index)
    merged = {}
    for epoch in sorted({epoch for final in ordered for epoch in final.commits}):
        having = [final for final in ordered if epoch in final.commits]
        voters = [final for final in having if final.alive] or having
        votes = Counter(_spell(final.commits[epoch]) for final in voters)
        merged[epoch] = json.loads(votes.most_common(1)[0][0])
    return merged


def conclude(
    finals: Sequence[Final],
    chronicle: Chronicle,
    max_epochs: int,
    duration_s: float,
    problems: Sequence[str],
) -> Outcome:
    """Return what a sandbox came to.

    Args:
        finals: The peers, by index.
        chronicle: What happened.
        max_epochs: Where all should have ended.
        duration_s: How long it took.
        problems: What went wrong on the way, in sentences.
    """
    commits = merge_commits(finals)
    peers = [_peer(final, chronicle, commits) for final in finals]
    ids = {final.index: final.peer_id for final in finals}
    problems = [
        *problems,
        *_wrong_ends(finals, max_epochs),
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
                {"epoch": epoch, "group": sorted(terms), "loss_terms": terms}
                for epoch, terms in commits.items()
            ],
        }
    )


def _peer(final: Final, chronicle: Chronicle, commits: Commits) -> dict[str, Any]:
    status = final.status or {}
    # The root is made beside the next epoch's work: one of an earlier epoch would mislead.
    fresh = status.get("state_root_epoch") == status.get("epoch")
    expected = [epoch for epoch in commits if chronicle.expected(final.index, epoch)]
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
        "commits_contributed": sum(commits[e].get(final.peer_id or "", 0) > 0 for e in expected),
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
        "swarm_epoch": one.epoch,
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
