"""What a chain of verdicts means for a peer: where it has to be, and which chain counts. Pure."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from peer.swarm.testimony import Good
from peer.training.chain import Fork
from peer.validation.choice import Branch, choose
from peer.validation.judge import follow, resume
from peer.validation.ledger import Ledger, Mark
from peer.validation.rules import POINTS_A_NAT, Rules
from peer.validation.verdict import Judgement, Tip, Verdict

LOOKBACK = 32
"""So many of the newest verdicts a peer keeps at hand, and at most so many it fetches at once.

The whole ledger stands in each of them; see ADR 18.
"""


@dataclasses.dataclass(frozen=True)
class Restart:
    """That a peer has to go on from a good state, in a generation.

    Attributes:
        mark: The state.
        ledger: What it follows from.
        reason: Why, in words.
    """

    mark: Mark
    ledger: Ledger
    reason: str

    @property
    def generation(self) -> int:
        """The generation to go on in."""
        return self.ledger.generation


def restart(
    tip: Tip, place: tuple[int, int], last: Judgement | None, *, joins: bool
) -> Restart | None:
    """Return where a peer has to go, or None if it may stay.

    Args:
        tip: The end of the chain that it holds to.
        place: The generation and epoch at which it is.
        last: The judgement at the end of the chain. Without one the chain says nothing: it may
            have been lost.
        joins: Whether it has not worked in the run yet.
    """
    ledger, good = tip.ledger, tip.ledger.last_good
    generation, epoch = place
    if last is None:
        return None
    if ledger.generation != generation:
        why = f"the run is in generation {ledger.generation}"
        if last.after.generation > generation:
            why = f"verdict {last.round}: {explain(last)}"
        return Restart(good, ledger, f"{why}; going on from epoch {good.epoch}")
    if joins and good.epoch > epoch:
        return Restart(good, ledger, f"joining at epoch {good.epoch}, the last good one")
    return None


def explain(judgement: Judgement) -> str:
    """Return what was found, in words."""
    nats, error = judgement.difference_points, judgement.error_points
    numbers = f"{nats / POINTS_A_NAT:+.4f} nats, standard error {error / POINTS_A_NAT:.4f}"
    return f"{judgement.decision} of epoch {judgement.epoch}: {judgement.reason} ({numbers})"


def continued(
    rules: Rules, chain: Sequence[Verdict], genesis: Tip, row: Sequence[Verdict], *, joins: bool
) -> Tip | None:
    """Return the tip of a chain that others hold to, fully checked; None if it meets ours nowhere.

    Args:
        rules: The run's.
        chain: Our own, oldest first, as far as it is at hand.
        genesis: The end of a chain without verdicts.
        row: Verdicts that others gave, oldest first, at least one.
        joins: Whether we may take their first one on trust, for we know none. So may whoever looked
            back as far as it does: it was away for too long, or was elsewhere.

    Raises:
        MisbehavedError: One of them does not follow from the one before it.
    """
    known = {v.judgement.hash: Tip(v.judgement.after, v.judgement.hash) for v in chain}
    base = {genesis.hash: genesis, **known}.get(row[0].judgement.previous)
    if base is not None:
        return follow(rules, base, row)
    return resume(rules, genesis, row) if joins or len(row) >= LOOKBACK else None


def prefer_chain(
    chain: Sequence[Verdict],
    row: Sequence[Verdict],
    good: Mapping[str, Good],
    eligible: Collection[str],
) -> tuple[Fork, str]:
    """Return whether to leave our chain for one that parted from it.

    Args:
        chain: Our own, oldest first, as far as it is at hand.
        row: What the others have since the common verdict, or as far back as we look.
        good: What peers say that they hold to.
        eligible: Who counts.
    """
    common = row[0].judgement.previous
    if not chain or chain[-1].judgement.hash == common:
        return Fork.SWITCH, "it continues ours"
    # Where the common one is not at hand, all that is came after it.
    at = next((i for i, v in enumerate(chain) if v.judgement.previous == common), 0)
    ours = chain[at:]

    def holders(branch: Sequence[Verdict]) -> dict[str, int]:
        names = {v.judgement.hash for v in branch}
        return {peer: said.round for peer, said in good.items() if said.verdict in names}

    return choose(Branch.of(ours, holders(ours)), Branch.of(row, holders(row)), eligible)
