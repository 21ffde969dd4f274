"""Whether a scenario came to what it should come to. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from peer.sandbox.chronicle import Chronicle
from peer.sandbox.rulings import Row, Ruling
from peer.sandbox.scenario import Scenario, ScenarioName

LONGEST_BACK_S = 60.0
"""How long after a rejection everybody has to be back at the last good state."""

_Review = tuple[dict[str, Any], list[str]]


def review(
    scenario: Scenario,
    row: Row,
    chronicle: Chronicle,
    ids: Mapping[int, str | None],
    live: Sequence[int],
) -> _Review:
    """Return what a report tells of a scenario, and what is wrong, in sentences.

    Args:
        scenario: Which.
        row: The verdicts that most of the live peers hold to.
        chronicle: What happened.
        ids: The peers' ids by index.
        live: The peers that are alive at the end.
    """
    told: dict[str, Any] = {"name": scenario.name.value, "hostile": sorted(scenario.roles)}
    match scenario.name:
        case ScenarioName.POISONED_CANDIDATE:
            more, wrong = _poisoned(scenario, row, chronicle, live)
        case ScenarioName.LYING_VALIDATORS:
            more, wrong = _lied(scenario, row, ids)
        case ScenarioName.KILLED_SEATS:
            more, wrong = _unseated(scenario, row, chronicle)
    return told | more, wrong


def _poisoned(scenario: Scenario, row: Row, chronicle: Chronicle, live: Sequence[int]) -> _Review:
    start = scenario.poison_from
    assert start is not None
    judged = next((i for i, ruling in enumerate(row) if ruling.epoch > start), len(row))
    first, later = row[judged : judged + 1], row[judged + 1 :]
    told: dict[str, Any] = {
        "poisoned_epochs": [],
        "rejected_epoch": first[0].epoch if first and first[0].rejected else None,
        "back_s": None,
    }
    if not first:
        return told, [f"there was no verdict on what was poisoned from epoch {start} on"]
    (ruling,) = first
    newest = chronicle.newest(ruling.candidates_generation) or ruling.epoch
    # What is brought at an epoch leads to the next one.
    told["poisoned_epochs"] = list(range(start + 1, newest + 1))
    if not ruling.rejected:
        return told, [f"the poisoned epoch {ruling.epoch} was not rejected: {ruling.reason}"]
    back_s = chronicle.back_s(ruling.round, ruling.generation, live)
    told["back_s"] = None if back_s is None else round(back_s, 3)
    wrong = [*_not_accepted(row[:judged]), *_not_accepted(later)]
    if back_s is None or back_s > LONGEST_BACK_S:
        wrong.append(f"not all were back at the last good state in {LONGEST_BACK_S:.0f} s")
    if not later:
        wrong.append("there was no verdict after the rejection")
    return told, wrong


def _lied(scenario: Scenario, row: Row, ids: Mapping[int, str | None]) -> _Review:
    strikes = {
        index: sum(peer_id in ruling.struck for ruling in row) for index, peer_id in ids.items()
    }
    liars = scenario.roles
    told = {
        "lies": {str(index): lie for index, lie in sorted(liars.items())},
        "strikes": {str(index): count for index, count in sorted(strikes.items())},
    }
    wrong = _not_accepted(row)
    for index, count in sorted(strikes.items()):
        if index in liars and not count:
            wrong.append(f"peer {index} lied and was not struck")
        if index not in liars and count:
            wrong.append(f"peer {index} was honest and was struck {count} times")
    return told, wrong


def _unseated(scenario: Scenario, row: Row, chronicle: Chronicle) -> _Review:
    epochs = {ruling.epoch for ruling in row}
    hurt = {each.candidate_epoch for each in chronicle.unseated}
    told = {
        "killed": [
            {"peer": each.peer, "candidate_epoch": each.candidate_epoch, "phase": each.phase}
            for each in chronicle.unseated
        ],
        "normal_s": _seconds([ruling for ruling in row if ruling.epoch not in hurt], chronicle),
        "delayed_s": _seconds([ruling for ruling in row if ruling.epoch in hurt], chronicle),
    }
    wrong = _not_accepted(row)
    wrong += [
        f"there was no verdict on epoch {each.candidate_epoch}, where peer {each.peer} was killed"
        for each in chronicle.unseated
        if each.candidate_epoch not in epochs
    ]
    # Candidates that are superseded have no seats.
    wanted = max(1, min(scenario.kills, len(row) - 1))
    if len(chronicle.unseated) < wanted:
        wrong.append(f"{len(chronicle.unseated)} seats were killed, {wanted} were to be")
    return told, wrong


def _not_accepted(row: Sequence[Ruling]) -> list[str]:
    return [
        f"the verdict on epoch {ruling.epoch} is {ruling.decision}: {ruling.reason}"
        for ruling in row
        if not ruling.accepted
    ]


def _seconds(row: Sequence[Ruling], chronicle: Chronicle) -> list[float]:
    found = (chronicle.verdict_s(r.round, r.candidates_generation, r.epoch) for r in row)
    return [round(seconds, 3) for seconds in found if seconds is not None]
