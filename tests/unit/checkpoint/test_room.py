"""A limit of the disk: old checkpoints go first, then nothing is written any more."""

import errno

import pytest

from peer.checkpoint.keep import Keep
from peer.checkpoint.room import Room

KEEP = Keep(last=3, accepted=5, every_epochs=100)


@pytest.mark.parametrize("used", [0, 800])
def test_while_there_is_room_the_policy_stays(used):
    assert Room(lambda: used, 1000.0).policy(KEEP) == KEEP


def test_where_room_is_short_as_few_as_possible_stay():
    tight = Room(lambda: 801, 1000.0).policy(KEEP)
    assert tight == Keep(last=1, accepted=1, every_epochs=None)


def test_a_policy_that_keeps_none_accepted_is_not_made_to():
    assert Room(lambda: 900, 1000.0).policy(Keep(accepted=0)).accepted == 0


def test_a_limit_that_is_reached_is_a_full_disk_in_words():
    Room(lambda: 1000, 1000.0).check()
    with pytest.raises(OSError, match=r"limits.disk_mb allows 1 MB") as caught:
        Room(lambda: 1_000_001, 1e6).check()
    assert caught.value.errno == errno.EDQUOT


def test_no_limit_is_never_reached():
    room = Room(lambda: 10**18)
    room.check()
    assert room.policy(KEEP) is KEEP
