"""The dashboard of a whole run, from what `ctpeer-monitor` found.

What peers say of themselves is marked so; the rest is proven by signatures.
"""

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.grafana.panels import GREEN, RATE, RED, RUN, YELLOW, Sheet, bars, lines, stat


def dashboard() -> Dashboard:
    """Return it."""
    sheet = Sheet("ctpeer-swarm", "ctpeer: the swarm", "How a whole run does.")
    sheet.choice("run", "Run", "label_values(ctpeer_swarm_epoch, run)")
    _numbers(sheet)
    _progress(sheet)
    _peers(sheet)
    _members(sheet)
    _trouble(sheet)
    return sheet.made()


def _numbers(sheet: Sheet) -> None:
    sheet.numbers(
        stat("Epoch", f"max(ctpeer_swarm_epoch{{{RUN}}})", "The newest certified epoch."),
        stat(
            "Live peers",
            f"max(ctpeer_swarm_peers{{{RUN}}})",
            "That contributed to certified epochs lately.",
            steps=((None, RED), (1, YELLOW), (2, GREEN)),
        ),
        stat(
            "Group",
            f"max(ctpeer_swarm_group_peers{{{RUN}}})",
            "Peers in the middle one of the newest certificates.",
            steps=((None, YELLOW), (2, GREEN)),
        ),
        stat(
            "Branches",
            f"max(ctpeer_swarm_branches{{{RUN}}})",
            "States that peers claim at one epoch; above 1 the swarm is split.",
            steps=((None, GREEN), (2, RED)),
        ),
        stat(
            "Certified work",
            f"max(rate(ctpeer_swarm_loss_terms_total{{{RUN}}}{RATE}))",
            "Loss terms a second in certificates.",
            unit="suffix:/s",
            decimals=0,
        ),
        stat(
            "Failed rounds",
            f"max(run:ctpeer_swarm_rounds_failed:increase10m{{{RUN}}}"
            f" / clamp_min(run:ctpeer_swarm_rounds:increase10m{{{RUN}}}, 1))"
            " or vector(0)",
            "Share of the rounds of the last ten minutes, by the peers' own word.",
            unit="percentunit",
            decimals=0,
            steps=((None, GREEN), (0.2, YELLOW), (0.5, RED)),
        ),
        stat(
            "Last crawl",
            f"max(ctpeer_swarm_crawl_age_seconds{{{RUN}}})",
            "How old all this is.",
            unit="s",
            decimals=0,
            steps=((None, GREEN), (120, YELLOW), (300, RED)),
        ),
        stat(
            "Alerts",
            f'count(ALERTS{{alertstate="firing",{RUN}}}) or vector(0)',
            "That fire for this run and its peers; docs/alerts.md says what to do.",
            steps=((None, GREEN), (1, RED)),
        ),
    )


def _progress(sheet: Sheet) -> None:
    sheet.row(
        "Progress",
        lines(
            "Epoch",
            {
                "certified": f"max(ctpeer_swarm_epoch{{{RUN}}})",
                "last good": f"max(ctpeer_swarm_last_good_epoch{{{RUN}}}) or vector(0)",
            },
            "The newest certified epoch, and the last that validators accepted.",
        ),
        lines(
            "Loss",
            {
                "training, self-reported": f"max(ctpeer_swarm_self_reported_loss_nats{{{RUN}}})"
                " or vector(0)",
                "held-out, self-reported": f"max(ctpeer_swarm_self_reported_heldout{{{RUN}}})"
                " or vector(0)",
            },
            "Of the middle peer. Training loss is in nats, the held-out score in the task's unit; 0"
            " before anybody has one.",
        ),
        lines(
            "Work",
            {
                "certified loss terms": f"max(rate(ctpeer_swarm_loss_terms_total{{{RUN}}}{RATE}))",
                "tokens, self-reported": "max("
                f"ctpeer_swarm_self_reported_tokens_per_second{{{RUN}}})",
            },
            "What certificates prove beside what peers claim.",
            unit="suffix:/s",
        ),
    )


def _peers(sheet: Sheet) -> None:
    def by(label: str) -> dict[str, str]:
        return {f"{{{{{label}}}}}": f"max by ({label}) (ctpeer_swarm_peers_by_{label}{{{RUN}}})"}

    sheet.row(
        "Peers",
        lines(
            "Peers",
            {
                "live": f"max(ctpeer_swarm_peers{{{RUN}}})",
                "in a group": f"max(ctpeer_swarm_group_peers{{{RUN}}})",
                "newcomers": f"max(ctpeer_swarm_newcomers{{{RUN}}})",
            },
            "No certificate names a newcomer yet; nothing that it says is counted.",
        ),
        lines(
            "What they do",
            by("state"),
            "By their own word; `silent` ones say nothing.",
            stacked=True,
        ),
        lines(
            "How far they lie behind",
            {
                "the last": f"max(ctpeer_swarm_epoch_spread{{{RUN}}})",
                "the middle one": f"max(ctpeer_swarm_epochs_behind_median{{{RUN}}})",
            },
            "Behind the newest certified epoch.",
            unit="suffix:epochs",
        ),
        bars("Versions", by("version"), "Of ctpeer, by their own word.", width=6),
        bars("Devices", by("device"), "By their own word.", width=6),
        lines(
            "Branches",
            {"branches": f"max(ctpeer_swarm_branches{{{RUN}}})"},
            "States that peers claim at one epoch; more than one for long is a split.",
            steps=((None, GREEN), (2, RED)),
            width=6,
        ),
        lines(
            "Generation",
            {"generation": f"max(ctpeer_swarm_generation{{{RUN}}})"},
            "How many rollbacks the run has seen.",
            width=6,
        ),
    )


def _members(sheet: Sheet) -> None:
    sheet.row(
        "Contributors",
        bars(
            "Loss terms of each",
            {"{{member}}": f"max by (member) (ctpeer_swarm_member_loss_terms{{{RUN}}})"},
            "In the certificates at hand; the end of the peer id names it.",
            width=12,
        ),
        lines(
            "Epochs behind",
            {"{{member}}": f"max by (member) (ctpeer_swarm_member_epochs_behind{{{RUN}}})"},
            "How far each lies behind the newest certified epoch.",
            unit="suffix:epochs",
            width=12,
        ),
    )


def _trouble(sheet: Sheet) -> None:
    failures = f"rate(ctpeer_swarm_crawl_failures_total{{{RUN}}}{RATE})"
    sheet.row(
        "Trouble",
        lines(
            "Rounds, self-reported",
            {
                "{{result}}": "60 * max by (result) "
                f"(rate(ctpeer_swarm_self_reported_rounds_total{{{RUN}}}{RATE}))"
            },
            "Of all live peers together.",
            unit="suffix:/min",
            stacked=True,
            width=6,
        ),
        lines(
            "Refused input",
            {
                "by the monitor: {{reason}}": "max by (reason) "
                f"(rate(ctpeer_swarm_records_refused_total{{{RUN}}}{RATE}))",
                "by peers, self-reported": "max("
                f"rate(ctpeer_swarm_self_reported_refused_total{{{RUN}}}{RATE}))",
            },
            "Records that are not what the protocol allows; and what peers did not take.",
            unit="suffix:/s",
            width=6,
        ),
        lines(
            "Crawls",
            {
                "took": f"max(ctpeer_swarm_crawl_seconds{{{RUN}}})",
                "age": f"max(ctpeer_swarm_crawl_age_seconds{{{RUN}}})",
            },
            "How long the last crawl took, and how old it is.",
            unit="s",
            steps=((None, GREEN), (300, RED)),
            width=6,
        ),
        lines(
            "Failures of the monitor",
            {
                "{{stage}}": f"60 * max by (stage) ({failures})",
                "p2pd restarts": f"max(ctpeer_swarm_node_restarts_total{{{RUN}}})",
            },
            "Steps of crawls that failed a minute, and restarts of its own p2pd since it started.",
            width=6,
        ),
    )
