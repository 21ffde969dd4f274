"""The dashboard of the judging of checkpoints: what verdicts say, and who sits in judgement."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.grafana.panels import GREEN, RED, RUN, YELLOW, Sheet, by_peer, lines, stat


def dashboard() -> Dashboard:
    """Return it."""
    sheet = Sheet(
        "ctpeer-validation",
        "ctpeer: validation",
        "Whether what the run makes is good, and how that is judged.",
    )
    sheet.choice("run", "Run", "label_values(ctpeer_swarm_epoch, run)")
    _numbers(sheet)
    _verdicts(sheet)
    _validators(sheet)
    return sheet.made()


def _newest(name: str) -> str:
    return f"max(ctpeer_swarm_{name}{{{RUN}}}) or vector(0)"


def _numbers(sheet: Sheet) -> None:
    sheet.numbers(
        stat("Last good epoch", _newest("last_good_epoch"), "The newest accepted checkpoint."),
        stat(
            "Last good since",
            _newest("last_good_age_seconds"),
            "Since the monitor learned of the last accepted checkpoint.",
            unit="s",
            decimals=0,
        ),
        stat(
            "Its loss",
            _newest("last_good_nats"),
            "On held-out rows, when it was judged; 0 before the first verdict.",
            unit="suffix:nats",
            decimals=3,
        ),
        stat("Judged epoch", _newest("verdict_epoch"), "That the newest verdict is about."),
        stat(
            "Worse by",
            _newest("verdict_difference_nats"),
            "The newest candidate against its baseline; below zero it is better.",
            unit="suffix:nats",
            decimals=4,
            steps=((None, GREEN), (0, YELLOW), (0.1, RED)),
        ),
        stat(
            "Signers",
            _newest("verdict_signers"),
            "Of the newest verdict.",
            steps=((None, YELLOW), (2, GREEN)),
        ),
        stat(
            "Rejected",
            f'max(ctpeer_swarm_verdicts_total{{decision="reject",{RUN}}}) or vector(0)',
            "Checkpoints, since the monitor started.",
            steps=((None, GREEN), (1, RED)),
        ),
        stat(
            "Generation",
            _newest("generation"),
            "Rollbacks that the run has seen.",
            steps=((None, GREEN), (1, YELLOW)),
        ),
    )


def _verdicts(sheet: Sheet) -> None:
    sheet.row(
        "Verdicts",
        lines(
            "Candidate and baseline",
            {
                "candidate": _newest("verdict_candidate_nats"),
                "baseline": _newest("verdict_baseline_nats"),
                "last good": _newest("last_good_nats"),
            },
            "Held-out loss on the rows of the newest verdict, median of its judges.",
            unit="suffix:nats",
        ),
        lines(
            "Difference",
            {"worse by": _newest("verdict_difference_nats")},
            "The newest candidate against its baseline; above the run's margin it is rejected.",
            unit="suffix:nats",
        ),
        lines(
            "Verdicts by decision",
            {"{{decision}}": f"max by (decision) (ctpeer_swarm_verdicts_total{{{RUN}}})"},
            "Since the monitor started. Inconclusive means that too few judged, or disagreed.",
            stacked=True,
        ),
        lines(
            "Epochs",
            {
                "certified": _newest("epoch"),
                "judged": _newest("verdict_epoch"),
                "last good": _newest("last_good_epoch"),
            },
            "The last good one follows the certified one at the distance of candidates.",
            width=12,
        ),
        lines(
            "Signers",
            {"signers": _newest("verdict_signers"), "round": _newest("verdict_round")},
            "Of the newest verdict, and its number.",
            width=12,
        ),
    )


def _validators(sheet: Sheet) -> None:
    def each(name: str) -> str:
        return by_peer(f"ctpeer_{name}{{{RUN}}}")

    sheet.row(
        "Validators that are scraped",
        lines(
            "Seats",
            {"{{peer}}": each("validator_seats_total")},
            "Times that each was called to judge, since its daemon started.",
        ),
        lines(
            "Scores",
            {
                "agreed": f'sum(ctpeer_validator_scores_total{{agreed="yes",{RUN}}}) or vector(0)',
                "did not agree": f'sum(ctpeer_validator_scores_total{{agreed="no",{RUN}}})'
                " or vector(0)",
                "strikes": f"sum(ctpeer_validator_strikes_total{{{RUN}}}) or vector(0)",
            },
            "Whether the scores of peers agree with the others', and verdicts that struck them.",
        ),
        lines(
            "Rollbacks",
            {
                "{{peer}}": each("rollbacks_total"),
                "epochs undone": f"max(ctpeer_rolled_back_epochs_total{{{RUN}}}) or vector(0)",
            },
            "Times that each went back to the last good state.",
        ),
    )
