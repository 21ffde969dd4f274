"""How fast a line must be for the deadlines of a round."""

import pytest

from peer.training.haste import complaint, needed_bytes_per_s
from peer.training.muster import Limits
from peer.training.transfer import SLOWEST_BYTES_PER_S

LIMITS = Limits(max_weight=10, target=10)


def test_a_small_model_needs_next_to_nothing():
    up, down = needed_bytes_per_s(LIMITS, 500_000, "none", 2)
    assert up < 0.03e6
    assert up <= down < 0.04e6


@pytest.mark.parametrize("members", [2, 8, 64])
def test_a_large_model_needs_twice_the_slowest_line_at_most(members):
    up, down = needed_bytes_per_s(LIMITS, 10**9, "none", members)
    assert up < 2 * SLOWEST_BYTES_PER_S
    assert down >= up


def test_a_larger_group_and_a_larger_codec_need_more():
    at = [needed_bytes_per_s(LIMITS, 10**7, "none", n)[0] for n in (2, 4, 8)]
    assert at == sorted(at)
    assert needed_bytes_per_s(LIMITS, 10**7, "int8", 8)[0] < at[-1]


def test_a_line_that_is_too_slow_is_said_to_be_with_what_to_do():
    words = complaint("upload", 0.1e6, 0.2e6, 4)
    assert words.startswith("limits.upload_mb_per_s is too low for a group of 4")
    assert "0.20 MB/s" in words


def test_a_line_that_is_fast_enough_or_not_bounded_is_no_complaint():
    assert complaint("upload", 0.2e6, 0.2e6, 4) is None
    assert complaint("upload", None, 1e9, 4) is None
