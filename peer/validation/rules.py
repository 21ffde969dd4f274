"""What the peers of a run hold to when they judge a checkpoint; numbers only."""

import dataclasses

from peer.run.manifest import ValidationSection

SEATS, QUORUM, RESERVES = 7, 5, 5
MAX_ROSTER = 512
CHUNKS = 32

STRIKES = 3
STRIKE_ROUNDS = 20
"""So many rounds a strike counts, and so many rounds a peer that is away keeps its tenure."""
BARRED_ROUNDS = 100
KEPT_ACCEPTED = 5
"""The baseline is the best of so many accepted checkpoints, so that small losses do not add up."""
LAPSED_CANDIDATES = 3
"""After so many candidates without a verdict the roster is drawn from who is here now."""
MAX_HALVINGS = 10

POINTS_A_NAT = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """What the manifest settles.

    Attributes:
        run_id: The run.
        every_epochs: Every so many epochs there is a candidate.
        tenure_epochs: In so many epochs a peer must have contributed before it may sit.
        margin_points: How much worse than the baseline is bad, in 1e-4 nats.
        tolerance_points: How far two honest scores of one chunk may be apart, in 1e-4 nats.
        rows: How many held-out rows are scored.
    """

    run_id: str
    every_epochs: int = 100
    tenure_epochs: int = 100
    margin_points: int = 500
    tolerance_points: int = 5
    rows: int = 128

    @classmethod
    def of(cls, run_id: str, section: ValidationSection) -> "Rules":
        """Return the rules of the run whose manifest has that section.

        Tenure is as long as the distance of candidates: shorter, and one group could make it up
        between two verdicts; longer, and a young run has nobody to judge it. Only for a run that
        judges checkpoints at all.
        """
        assert section.every_epochs
        return cls(
            run_id=run_id,
            every_epochs=section.every_epochs,
            tenure_epochs=section.every_epochs,
            margin_points=round(section.margin * POINTS_A_NAT),
            # Rounding alone puts scores that are all but the same a point apart.
            tolerance_points=max(1, round(section.tolerance * POINTS_A_NAT)),
            rows=section.rows,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """How long a peer waits, by its own clock; nothing that two peers must agree on.

    Attributes:
        tickets_s: For tickets, where not the whole roster sent one.
        commit_s: For commits: an evaluation on the slowest peer that may keep the others waiting.
        patience: When a quorum has committed, the rest may take so many times as long.
        settle_s: Within it whatever one peer sees, the others see, too: twice the time between
            two looks, and the way through the DHT.
        turn_s: For a peer to propose the verdict before the next one does.
        verdict_s: For the verdict as a whole.
    """

    tickets_s: float = 15.0
    commit_s: float = 120.0
    patience: float = 1.5
    settle_s: float = 4.0
    turn_s: float = 2.5
    verdict_s: float = 60.0

    @classmethod
    def paced(cls, look_s: float) -> "Timing":
        """Return the times for a peer that looks every `look_s`; scoring takes what it takes."""
        usual = cls()
        return cls(
            tickets_s=usual.tickets_s * look_s,
            commit_s=usual.commit_s,
            patience=usual.patience,
            settle_s=usual.settle_s * look_s,
            turn_s=usual.turn_s * look_s,
            verdict_s=usual.verdict_s * look_s,
        )
