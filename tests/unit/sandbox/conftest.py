import pytest

from peer.sandbox.rulings import Ruling


@pytest.fixture
def make_ruling():
    """Return the verdict of a round on an epoch, with some fields changed."""

    def make(number, epoch, decision="accept", **changed):
        rejected = decision == "reject"
        good = 5 * (number - 1) if rejected else epoch
        fields = {
            "round": number,
            "epoch": epoch,
            "candidate": f"{number}" * 64,
            "decision": decision,
            "reason": "for a reason",
            "difference_nats": -0.1,
            "generation": int(rejected),
            "signers": ("id0", "id1"),
            "called": ("id1", "id0", "id2"),
            "struck": (),
            "hash": f"hash {number}",
            "previous": f"hash {number - 1}",
            "small_swarm": True,
            "quorum": 2,
            "goes_on_from": good,
            "last_good_epoch": good,
            "last_good_root": "g" * 64,
        }
        return Ruling(**(fields | changed))

    return make
