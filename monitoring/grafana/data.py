"""The dashboard of data coverage: which share of the run's data is trained on, and by how many."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.grafana.panels import (
    GREEN,
    RATE,
    RED,
    RUN,
    YELLOW,
    Sheet,
    bars,
    by_peer,
    lines,
    stat,
)


def dashboard() -> Dashboard:
    """Return it."""
    sheet = Sheet(
        "ctpeer-data",
        "ctpeer: data coverage",
        "Which shards are trained on, by how many peers, and what of that work is kept.",
    )
    sheet.choice("run", "Run", "label_values(ctpeer_swarm_epoch, run)")
    _numbers(sheet)
    _coverage(sheet)
    _work(sheet)
    return sheet.made()


def _now(name: str) -> str:
    return f"max(ctpeer_swarm_{name}{{{RUN}}}) or vector(0)"


def _share(part: str, whole: str) -> str:
    return (
        f"max(ctpeer_swarm_{part}{{{RUN}}}) / clamp_min(max(ctpeer_swarm_{whole}{{{RUN}}}), 1)"
        " or vector(0)"
    )


def _numbers(sheet: Sheet) -> None:
    sheet.numbers(
        stat(
            "Covered",
            _share("shards_claimed", "shards"),
            "Share of the run's shards that at least one live peer says it trains on.",
            unit="percentunit",
            decimals=0,
            steps=((None, RED), (0.5, YELLOW), (0.95, GREEN)),
        ),
        stat("Shards", _now("shards"), "Of the run, held-out ones left out."),
        stat("Claimed", _now("shards_claimed"), "By at least one live peer."),
        stat("Claims", _now("claims"), "Of all live peers on shards."),
        stat(
            "Peers a shard",
            _share("claims", "shards"),
            "Claims for each shard, on average.",
            decimals=1,
            steps=((None, YELLOW), (1, GREEN)),
        ),
        stat(
            "Peers with claims",
            _now("claiming_peers"),
            "Live peers that say what they train on.",
            steps=((None, YELLOW), (1, GREEN)),
        ),
        stat(
            "Quarantined",
            f"sum(ctpeer_shards_quarantined_total{{{RUN}}}) or vector(0)",
            "Shards that peers which are scraped could not use: damaged, or not to be had.",
            steps=((None, GREEN), (1, RED)),
        ),
        stat(
            "Lost work",
            f"(sum(increase(ctpeer_dropped_tokens_total{{{RUN}}}[10m]))"
            f" + sum(increase(ctpeer_repeated_tokens_total{{{RUN}}}[10m])))"
            f" / clamp_min(sum(increase(ctpeer_tokens_total{{{RUN}}}[10m])), 1)"
            " or vector(0)",
            "Share of the tokens of the last ten minutes that were of no use, or trained on again.",
            unit="percentunit",
            decimals=1,
            steps=((None, GREEN), (0.1, YELLOW), (0.3, RED)),
        ),
    )


def _coverage(sheet: Sheet) -> None:
    sheet.row(
        "Coverage",
        lines(
            "Shards",
            {"all": _now("shards"), "claimed": _now("shards_claimed")},
            "A gap that stays means that peers choose the same shards; see their data.include.",
        ),
        bars(
            "Shards by claims",
            {"{{claims}}": f"max by (claims) (ctpeer_swarm_shards_by_claims{{{RUN}}})"},
            "How many shards have no peer, one, two, and so on.",
        ),
        lines(
            "Shards by claims over time",
            {"{{claims}}": f"max by (claims) (ctpeer_swarm_shards_by_claims{{{RUN}}})"},
            "Peers choose by what others claim, so this evens out as they come.",
            stacked=True,
        ),
    )


def _work(sheet: Sheet) -> None:
    sheet.row(
        "Work of peers that are scraped",
        lines(
            "Tokens",
            {"{{peer}}": by_peer(f"rate(ctpeer_tokens_total{{{RUN}}}{RATE})")},
            "Trained on, by peer.",
            unit="suffix:tok/s",
            stacked=True,
        ),
        lines(
            "Rows",
            {"{{peer}}": by_peer(f"rate(ctpeer_samples_total{{{RUN}}}{RATE})")},
            "Trained on, by peer.",
            unit="suffix:/s",
            stacked=True,
        ),
        lines(
            "Tokens of no use",
            {
                "dropped": f"sum(rate(ctpeer_dropped_tokens_total{{{RUN}}}{RATE})) or vector(0)",
                "trained again": f"sum(rate(ctpeer_repeated_tokens_total{{{RUN}}}{RATE}))"
                " or vector(0)",
            },
            "Dropped with contributions that came too late or were lost; again after a crash.",
            unit="suffix:tok/s",
        ),
    )
