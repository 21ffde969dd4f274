"""The picture as JSON, where the picture is little."""

import json

import pytest

from monitoring import board
from monitoring.findings import Findings
from monitoring.totals import Totals
from monitoring.view import aggregate


@pytest.mark.parametrize("baselines", [{}, {"unigram": 3.678, "bigram": 2.624}])
def test_the_manifests_baselines_stand_apart_from_what_peers_say(baselines):
    found = Findings(now_s=1.0, baselines=baselines)
    swarm = board.swarm("tiny-1", found, aggregate(found, Totals()), Totals())
    assert swarm["heldout_baselines"] == baselines
    assert swarm["self_reported"]["heldout"] is None


def test_an_empty_swarm_is_json():
    found = Findings(now_s=1.0)
    view = aggregate(found, Totals())
    for body in (
        board.swarm("tiny-1", found, view, Totals()),
        board.leaderboard("tiny-1", found, view),
        board.verdicts("tiny-1", found),
    ):
        assert json.loads(json.dumps(body, allow_nan=False)) == body
