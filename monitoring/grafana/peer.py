"""The dashboard of one peer, from what it tells of itself."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.grafana.panels import (
    GREEN,
    RATE,
    RED,
    YELLOW,
    Sheet,
    lines,
    or_none,
    stat,
    timeline,
)

ME = 'run=~"$run",peer_id=~"$peer"'


def dashboard() -> Dashboard:
    """Return it."""
    sheet = Sheet("ctpeer-peer", "ctpeer: one peer", "What one peer does, and how well.")
    sheet.choice("run", "Run", "label_values(ctpeer_epoch, run)")
    sheet.choice("peer", "Peer", 'label_values(ctpeer_epoch{run=~"$run"}, peer_id)')
    _numbers(sheet)
    _training(sheet)
    _rounds(sheet)
    _network(sheet)
    _machine(sheet)
    return sheet.made()


def _numbers(sheet: Sheet) -> None:
    sheet.numbers(
        stat(
            "State",
            f"max by (state) (ctpeer_state{{{ME}}}) == 1",
            "What the daemon does; `ctpeer status` says why.",
            legend="{{state}}",
        ),
        stat("Epoch", f"max(ctpeer_epoch{{{ME}}})", "The last epoch that it committed."),
        stat(
            "Training loss",
            f"max(ctpeer_loss_nats{{{ME}}})",
            "Mean of the last ten epochs, in nats a token; 0 before the first.",
            decimals=3,
        ),
        stat(
            "Speed",
            f"sum(ctpeer_tokens_per_second{{{ME}}})",
            "Tokens a second over half a minute.",
            unit="suffix:tok/s",
            decimals=0,
        ),
        stat(
            "Group",
            f"max(ctpeer_group_peers{{{ME}}})",
            "Peers in its last committed round; 1 means that it trains alone.",
            steps=((None, YELLOW), (2, GREEN)),
        ),
        stat(
            "Failed rounds",
            f"sum(peer:ctpeer_rounds_failed:increase10m{{{ME}}})"
            f" / clamp_min(sum(peer:ctpeer_rounds:increase10m{{{ME}}}), 1)"
            " or vector(0)",
            "Share of its rounds of the last ten minutes.",
            unit="percentunit",
            decimals=0,
            steps=((None, GREEN), (0.2, YELLOW), (0.5, RED)),
        ),
        stat(
            "Free disk",
            f"min(ctpeer_disk_free_bytes{{{ME}}})",
            "Under its home.",
            unit="bytes",
            decimals=1,
            steps=((None, RED), (2**30, YELLOW), (5 * 2**30, GREEN)),
        ),
        stat(
            "Alerts",
            f'count(ALERTS{{alertstate="firing",{ME}}}) or vector(0)',
            "That fire for this peer; docs/alerts.md says what to do.",
            steps=((None, GREEN), (1, RED)),
        ),
    )


def _training(sheet: Sheet) -> None:
    sheet.row(
        "Training",
        lines(
            "Training loss",
            {"loss": f"max(ctpeer_loss_nats{{{ME}}})"},
            "Mean of the last ten epochs, in nats a token.",
            unit="suffix:nats",
        ),
        lines(
            "Held-out score",
            {"{{name}}": or_none(f"max by (name) (ctpeer_heldout{{{ME}}})", "name")},
            "On data that nobody trains on; none before the first evaluation.",
        ),
        lines(
            "Tokens",
            {
                "trained": f"sum(rate(ctpeer_tokens_total{{{ME}}}{RATE}))",
                "trained again": f"sum(rate(ctpeer_repeated_tokens_total{{{ME}}}{RATE}))",
                "of no use": f"sum(rate(ctpeer_dropped_tokens_total{{{ME}}}{RATE}))",
            },
            "Again after a crash; of no use in contributions that came too late or were lost.",
            unit="suffix:tok/s",
        ),
        lines(
            "Epoch and generation",
            {
                "epoch": f"max(ctpeer_epoch{{{ME}}})",
                "last good": f"max(ctpeer_last_good_epoch{{{ME}}})",
                "generation": f"max(ctpeer_generation{{{ME}}})",
            },
            "A rollback begins a generation at the last good epoch.",
        ),
        timeline(
            "State",
            {
                "{{state}}": f"max by (state) (ctpeer_state{{{ME}}})"
                f" and max by (state) (max_over_time(ctpeer_state{{{ME}}}[$__range])) > 0"
            },
            "What the daemon did; states that it was never in are left out.",
            16,
        ),
    )


def _rounds(sheet: Sheet) -> None:
    seconds = f"sum by (phase) (rate(ctpeer_round_seconds_sum{{{ME}}}{RATE}))"
    count = f"sum by (phase) (rate(ctpeer_round_seconds_count{{{ME}}}{RATE}))"
    buckets = f"sum by (le, phase) (rate(ctpeer_round_seconds_bucket{{{ME}}}{RATE}))"
    sheet.row(
        "Rounds",
        lines(
            "Rounds by result",
            {"{{result}}": f"60 * sum by (result) (rate(ctpeer_rounds_total{{{ME}}}{RATE}))"},
            "A failed round keeps the contribution, and is tried again with who is left.",
            unit="suffix:/min",
            stacked=True,
            width=6,
        ),
        lines(
            "Where a round's time goes",
            {"{{phase}}": f"{seconds} / clamp_min({count}, 1e-9)"},
            "Mean of each phase.",
            unit="s",
            stacked=True,
            width=6,
        ),
        lines(
            "The slowest of twenty",
            {"{{phase}}": f"histogram_quantile(0.95, {buckets}) >= 0 or 0 * {count}"},
            "The 95th percentile of each phase.",
            unit="s",
            width=6,
        ),
        lines(
            "Peers",
            {
                "in the group": f"max(ctpeer_group_peers{{{ME}}})",
                "{{state}}": f"max by (state) (ctpeer_peers{{{ME}}})",
            },
            "Others that it knows and reaches, and the group of the last round, itself included.",
            width=6,
        ),
    )


def _network(sheet: Sheet) -> None:
    sheet.row(
        "Network",
        lines(
            "Traffic",
            {
                "sent": f"sum(rate(ctpeer_sent_bytes_total{{{ME}}}{RATE}))",
                "received": f"sum(rate(ctpeer_received_bytes_total{{{ME}}}{RATE}))",
            },
            "With other peers.",
            unit="Bps",
        ),
        lines(
            "Refused input",
            {
                "records": f"sum(rate(ctpeer_records_refused_total{{{ME}}}{RATE}))",
                "parts": f"sum(rate(ctpeer_parts_refused_total{{{ME}}}{RATE}))",
                "misbehaviour": f"sum(rate(ctpeer_peer_misbehaviour_total{{{ME}}}{RATE}))",
                "requests, {{reason}}": "sum by (reason) "
                f"(rate(ctpeer_requests_refused_total{{{ME}}}{RATE}))",
            },
            "What others sent and was not taken. Busy and slow is load; the rest error or malice.",
            unit="suffix:/s",
        ),
        lines(
            "Branches left",
            {
                "branches": f"sum(ctpeer_branches_left_total{{{ME}}})",
                "epochs lost": f"sum(ctpeer_branch_lost_epochs_total{{{ME}}})",
                "epochs rolled back": f"sum(ctpeer_rolled_back_epochs_total{{{ME}}})",
            },
            "Times that its state was not the run's, and what that cost, since its daemon started.",
        ),
    )


def _machine(sheet: Sheet) -> None:
    results = f"sum by (result) (rate(ctpeer_checkpoints_total{{{ME}}}{RATE}))"
    sheet.row(
        "Machine",
        lines(
            "Resident memory",
            {"{{process}}": f"max by (process) (ctpeer_resident_memory_bytes{{{ME}}})"},
            "Of its processes.",
            unit="bytes",
            stacked=True,
        ),
        lines(
            "Free disk",
            {"free": f"min(ctpeer_disk_free_bytes{{{ME}}})"},
            "Under its home; below the line checkpoints are about to fail.",
            unit="bytes",
            steps=((None, RED), (2**30, GREEN)),
        ),
        lines(
            "Deaths of the worker",
            {"{{reason}}": f"sum by (reason) (ctpeer_restarts_total{{{ME}}})"},
            "Since its daemon started; each is followed by a new worker.",
        ),
        lines(
            "Checkpoints",
            {"{{result}}": f"60 * {results}"},
            "Written, failed, and found damaged and set aside.",
            unit="suffix:/min",
            width=12,
        ),
        lines(
            "Age of the last checkpoint",
            {"age": f"max(ctpeer_checkpoint_age_seconds{{{ME}}})"},
            "What a crash would cost at most.",
            unit="s",
            width=12,
        ),
    )
