"""What is scored, what a commit hides, which scores agree, and what they decide."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.swarm.testimony import MAX_POINTS
from peer.validation.rules import CHUNKS
from peer.validation.score import (
    Decision,
    Losses,
    Question,
    Reason,
    counted,
    draw_chunks,
    find,
    make_commit,
    make_reveal,
    opens,
    to_points,
)

QUESTION = Question("aa" * 32, "bb" * 32, "cc" * 32)
MARGIN, TOLERANCE = 500, 20

chunk_losses = st.integers(0, 100_000)


def flat(difference, chunks=16):
    return Losses((30_000 + difference,) * chunks, (30_000,) * chunks)


def decide(*differences):
    """Return what one validator's differences decide."""
    base = 30_000
    losses = Losses(tuple(base + d for d in differences), (base,) * len(differences))
    return find({"a": losses}, 1, MARGIN, TOLERANCE)


# ---- the draw


@given(st.integers(0, 500), st.integers(1, 300))
def test_rows_are_drawn_once_each_in_chunks_of_about_equal_size(rows, wanted):
    chunks = draw_chunks(QUESTION, rows, wanted)
    drawn = [row for chunk in chunks for row in chunk]
    assert len(set(drawn)) == len(drawn) == min(rows, wanted)
    assert all(0 <= row < rows for row in drawn)
    assert len(chunks) == min(CHUNKS, len(drawn))
    sizes = {len(chunk) for chunk in chunks}
    assert not sizes or max(sizes) - min(sizes) <= 1


def test_other_rows_are_drawn_for_another_candidate():
    other = Question(QUESTION.seed, "dd" * 32, QUESTION.baseline)
    assert draw_chunks(QUESTION, 10**6, 64) == draw_chunks(QUESTION, 10**6, 64)
    assert draw_chunks(QUESTION, 10**6, 64) != draw_chunks(other, 10**6, 64)


def test_every_row_is_drawn_equally_often():
    counts = [0] * 20
    for number in range(4000):
        for chunk in draw_chunks(Question(f"{number:064x}", "b" * 64, "c" * 64), 20, 5):
            for row in chunk:
                counts[row] += 1
    mean, spread = 1000, math.sqrt(4000 * 0.25 * 0.75)
    assert all(abs(count - mean) < 4.5 * spread for count in counts)


# ---- points, commits and reveals


@pytest.mark.parametrize(
    ("nats", "points"),
    [
        (0.0, 0),
        (3.14159, 31416),
        (math.nan, MAX_POINTS),
        (math.inf, MAX_POINTS),
        (-math.inf, MAX_POINTS),
        (1e30, MAX_POINTS),
        (100.1, MAX_POINTS),
        (99.9, 999_000),
        (-0.5, 0),
    ],
)
def test_losses_become_points(nats, points):
    assert to_points(nats) == points


def test_a_reveal_opens_its_own_commit_only(identities):
    me, other = identities[:2]
    losses, false = flat(3), flat(4)
    commit, reveal = make_commit(me, QUESTION, losses), make_reveal(me, QUESTION, losses)
    assert commit.is_good()
    assert reveal.is_good()
    assert opens(reveal, commit, QUESTION)
    assert not opens(make_reveal(me, QUESTION, false), commit, QUESTION)
    assert not opens(reveal, commit, Question(QUESTION.seed, "dd" * 32, QUESTION.baseline))
    assert not opens(make_reveal(other, QUESTION, losses), commit, QUESTION)


def test_a_copied_commit_is_of_no_use(identities):
    me, copier = identities[:2]
    losses = flat(3)
    copied = make_commit(me, QUESTION, losses).signed_by(copier)
    reveal = make_reveal(me, QUESTION, losses).signed_by(copier)
    assert copied.is_good()
    assert reveal.is_good()
    assert not opens(reveal, copied, QUESTION)


def test_a_reveal_of_unequal_lengths_opens_nothing(identities):
    me = identities[0]
    losses = Losses((1, 2), (1,))
    assert not opens(make_reveal(me, QUESTION, losses), make_commit(me, QUESTION, losses), QUESTION)


def test_a_commit_counts_when_most_of_those_who_reveal_had_seen_it(identities):
    commits = {p.peer_id: make_commit(p, QUESTION, flat(i)) for i, p in enumerate(identities)}
    names = [commit.brief for commit in commits.values()]

    def in_time(*witnesses):
        shown = zip(identities, witnesses, strict=False)
        reveals = {p.peer_id: make_reveal(p, QUESTION, flat(0), seen) for p, seen in shown}
        return [peer in counted(commits, reveals) for peer in commits]

    assert in_time(names, names, names) == [True] * 4
    assert in_time(names, names, names[:3]) == [True] * 4
    assert in_time(names, names[:3], names[:3]) == [True, True, True, False]
    assert in_time(names, [], names, []) == [False] * 4
    assert in_time([names[0]] * 3, [names[1]] * 3, []) == [False] * 4
    assert in_time() == [False] * 4


# ---- the decision


@pytest.mark.parametrize(
    ("difference", "decision"),
    [
        (-10_000, Decision.ACCEPT),
        (0, Decision.ACCEPT),
        (250, Decision.ACCEPT),
        (251, Decision.INCONCLUSIVE),
        (500, Decision.INCONCLUSIVE),
        (501, Decision.REJECT),
        (20_000, Decision.REJECT),
    ],
)
def test_the_margin_decides_where_all_chunks_agree(difference, decision):
    assert decide(*[difference] * 16).decision is decision


@given(st.lists(st.integers(-3000, 6000), min_size=2, max_size=32))
def test_a_rejection_is_above_margin_and_four_standard_errors(differences):
    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    found = decide(*differences)
    if abs(mean - MARGIN) > 0.01 and abs(mean - 4 * error) > 0.01:
        bad = mean > MARGIN and mean > 4 * error
        assert (found.decision is Decision.REJECT) == bad
    assert abs(found.difference_points - mean) <= 1
    assert abs(found.error_points - error) <= 1


@pytest.mark.parametrize("nats", [99.9999, 101, 500, 999, 1e9])
def test_a_state_that_diverged_is_rejected_however_far(nats):
    """Honest scores differ by a millionth and more, which at 500 nats is more than they may."""
    panel = {
        peer: Losses((to_points(nats * (1 + 2e-6 * i)),) * 16, (30_000,) * 16)
        for i, peer in enumerate("abcde", -2)
    }
    found = find(panel, 5, MARGIN, TOLERANCE)
    assert found.decision is Decision.REJECT
    assert found.cluster == tuple("abcde")


def test_a_loss_that_is_not_finite_is_rejected():
    bad = Losses((30_000, MAX_POINTS), (30_000, 30_000))
    found = find(dict.fromkeys("abcde", bad), 5, MARGIN, TOLERANCE)
    assert (found.decision, found.reason) == (Decision.REJECT, Reason.BEYOND)


@pytest.mark.parametrize(
    ("candidate", "decision", "reason"),
    [
        ((30_000, 30_000), Decision.ACCEPT, Reason.NOT_WORSE),
        ((MAX_POINTS - 1, MAX_POINTS - 1), Decision.ACCEPT, Reason.NOT_WORSE),
        ((MAX_POINTS, 30_000), Decision.INCONCLUSIVE, Reason.BAD_BASELINE),
    ],
    ids=["candidate far below", "candidate just below", "candidate beyond, too"],
)
def test_of_a_baseline_beyond_all_bounds_only_what_is_not_is_accepted(candidate, decision, reason):
    odd = Losses(candidate, (30_000, MAX_POINTS))
    found = find(dict.fromkeys("abcde", odd), 5, MARGIN, TOLERANCE)
    assert (found.decision, found.reason) == (decision, reason)


def test_too_few_that_agree_decide_nothing_and_strike_nobody():
    panel = {peer: flat(100 * i) for i, peer in enumerate("abcdefg")}
    found = find(panel, 5, MARGIN, TOLERANCE)
    assert (found.decision, found.reason) == (Decision.INCONCLUSIVE, Reason.TOO_FEW)
    assert found.outliers == ()
    assert find({}, 1, MARGIN, TOLERANCE).decision is Decision.INCONCLUSIVE


def test_who_does_not_agree_is_an_outlier():
    panel = dict.fromkeys("abcde", flat(-10)) | {"x": flat(700), "y": Losses((5,), (5,))}
    found = find(panel, 5, MARGIN, TOLERANCE)
    assert found.decision is Decision.ACCEPT
    assert found.cluster == tuple("abcde")
    assert found.outliers == ("x", "y")


def test_one_false_chunk_makes_an_outlier():
    lie = Losses((30_000 + 25, *[30_000] * 15), (30_000,) * 16)
    found = find(dict.fromkeys("abcde", flat(0)) | {"x": lie}, 5, MARGIN, TOLERANCE)
    assert found.outliers == ("x",)


@given(
    truth=st.tuples(st.tuples(chunk_losses, chunk_losses), st.tuples(chunk_losses, chunk_losses)),
    noise=st.lists(st.integers(-2, 2), min_size=20, max_size=20),
    lies=st.lists(
        st.tuples(st.tuples(chunk_losses, chunk_losses), st.tuples(chunk_losses, chunk_losses)),
        max_size=4,
    ),
)
def test_a_minority_never_moves_what_the_honest_find(truth, noise, lies):
    candidate, baseline = truth
    honest = {
        f"h{i}": Losses(
            (candidate[0] + 2 + noise[4 * i], candidate[1] + 2 + noise[4 * i + 1]),
            (baseline[0] + 2 + noise[4 * i + 2], baseline[1] + 2 + noise[4 * i + 3]),
        )
        for i in range(5)
    }
    liars = {f"x{i}": Losses(*lie) for i, lie in enumerate(lies)}
    found = find(honest | liars, 5, MARGIN, TOLERANCE)
    assert set(honest) <= set(found.cluster)
    true = (sum(candidate) - sum(baseline)) / 2
    # Who is in the cluster is within the tolerance of an honest value, in candidate and baseline.
    assert abs(found.difference_points - true) <= 2 * (TOLERANCE + 2) + 1


@given(st.permutations("abcdefgh"))
def test_the_finding_hangs_on_nothing_but_the_scores(order):
    panel = {peer: flat(10 * i) for i, peer in enumerate("abcdefgh")}
    again = {peer: panel[peer] for peer in order}
    assert find(again, 3, MARGIN, TOLERANCE) == find(panel, 3, MARGIN, TOLERANCE)
