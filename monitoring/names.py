"""Every metric of the swarm exporter: its name, type, help text and labels.

What is `self_reported` is the word of peers, bounded and aggregated; everything else is proven by
signatures that the exporter checked, or is its own count. Run and peer id are labels of the target,
not of the series. Dashboards and rules are made from this list.
"""

import dataclasses
from enum import StrEnum

from peer.events import Phase
from peer.observe.metrics import DECISIONS
from peer.swarm.records import Refusal

MAX_VERSIONS = 16
"""Versions of ctpeer that are told apart; the peers of all others are `other`."""
MAX_MEMBERS = 64
"""Peers that have series of their own: those that contributed most lately."""
MEMBER_CHARS = 12
"""Of a peer id, its end: beginnings are alike."""
OTHER = "other"

SILENT = "silent"
"""The state of a peer that is there and says nothing of what it does."""
STATES = (*(phase.value for phase in Phase), SILENT, OTHER)
DEVICES = ("cpu", "cuda", OTHER)
RECORD_KINDS = ("peer", "status", "claim", "good")
CLAIM_COUNTS = ("0", "1", "2", "3", "4_or_more")
REASONS = tuple(reason.value for reason in Refusal)


class Stage(StrEnum):
    """The steps of a crawl, each of which may fail by itself."""

    NODE = "node"
    RECORDS = "records"
    MANIFEST = "manifest"
    CERTIFICATES = "certificates"
    VERDICTS = "verdicts"


class Unfit(StrEnum):
    """Why an address that a peer announced is no target for Prometheus."""

    MALFORMED = "malformed"
    HOST_NAME = "host_name"
    PRIVATE = "private"
    NOT_UNICAST = "not_unicast"
    UNPROVEN = "unproven"
    TAKEN = "taken"
    NEWCOMER = "newcomer"
    TOO_MANY = "too_many"


@dataclasses.dataclass(frozen=True)
class Family:
    """A metric.

    Attributes:
        name: Without the suffix that its type gives it.
        type: `gauge` or `counter`.
        help: What it says.
        labels: The values that each label may have; none listed are bounded in number only.
    """

    name: str
    type: str
    help: str
    labels: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    @property
    def exposed(self) -> str:
        """The name in queries."""
        return f"{self.name}_total" if self.type == "counter" else self.name


def _gauge(name: str, text: str, **labels: tuple[str, ...]) -> Family:
    return Family(f"ctpeer_swarm_{name}", "gauge", text, labels)


def _counter(name: str, text: str, **labels: tuple[str, ...]) -> Family:
    return Family(f"ctpeer_swarm_{name}", "counter", text, labels)


FAMILIES = (
    # Who is there: signed records of peers that a certificate names, or of all in a young run.
    _gauge("peers", "Live peers that contributed to certified epochs lately."),
    _gauge("newcomers", "Live peers that no certificate names yet; counted nowhere else."),
    _gauge("peers_by_state", "Live peers by what they say that they do.", state=STATES),
    _gauge("peers_by_version", "Live peers by the ctpeer that they say they run.", version=()),
    _gauge("peers_by_device", "Live peers by the device that they say they use.", device=DEVICES),
    # Where the run is: from certificates.
    _gauge("certificates", "Certificates that are at hand; 0 means that none can be had."),
    _gauge("epoch", "The newest certified epoch."),
    _gauge("generation", "How many rollbacks the certified head has seen."),
    _gauge("epoch_spread", "How many epochs the last of the live peers lies behind the head."),
    _gauge("epochs_behind_median", "How many epochs the middle live peer lies behind the head."),
    _gauge("branches", "State roots that live peers claim at one epoch: above 1, it is split."),
    _gauge("group_peers", "Peers in the middle one of the newest certificates."),
    _counter("loss_terms", "Loss terms in certificates since this exporter started."),
    _gauge("member_loss_terms", "Loss terms of a peer in the certificates at hand.", member=()),
    _gauge("member_epochs_behind", "How many epochs a peer lies behind the head.", member=()),
    # What peers say of themselves.
    _gauge("self_reported_tokens_per_second", "Sum over live peers, each clamped."),
    _gauge("self_reported_loss_nats", "Training loss of the middle live peer."),
    _gauge("self_reported_heldout", "Held-out score of the middle live peer, in the task's unit."),
    _gauge("self_reported_group_peers", "Size of the last group of the middle live peer."),
    _counter(
        "self_reported_rounds",
        "Rounds of live peers since this exporter started, each peer clamped.",
        result=("committed", "failed"),
    ),
    _counter(
        "self_reported_refused",
        "Input that live peers refused since this exporter started, each peer clamped.",
    ),
    # Data: from signed claims and the run's own index.
    _gauge("shards", "Training shards of the run."),
    _gauge("shards_claimed", "Training shards that at least one live peer says it trains on."),
    _gauge("claims", "Claims of live peers on training shards."),
    _gauge("claiming_peers", "Live peers that claim any training shard."),
    _gauge(
        "shards_by_claims", "Training shards by how many peers claim them.", claims=CLAIM_COUNTS
    ),
    # Validation: from verdicts, checked by making them again.
    _counter("verdicts", "Verdicts that this exporter has seen, by decision.", decision=DECISIONS),
    _gauge("verdict_round", "The number of the newest verdict; 0 before the first."),
    _gauge("verdict_epoch", "The epoch that the newest verdict judged."),
    _gauge("verdict_signers", "How many signed the newest verdict."),
    _gauge(
        "verdict_difference_nats", "By how much the newest candidate is worse than its baseline."
    ),
    _gauge(
        "verdict_candidate_nats", "Held-out loss of the newest candidate, median of its judges."
    ),
    _gauge("verdict_baseline_nats", "Held-out loss of its baseline on the same rows."),
    _gauge("last_good_epoch", "The epoch of the last accepted checkpoint."),
    _gauge("last_good_nats", "Held-out loss of the last accepted checkpoint, when it was judged."),
    _gauge("last_good_age_seconds", "Since this exporter learned of the last accepted checkpoint."),
    # Records and targets.
    _gauge("records", "Good records found in the last crawl, by kind.", kind=RECORD_KINDS),
    _counter("records_refused", "Records that were refused, by reason.", reason=REASONS),
    _counter("records_dropped", "Good records beyond what is kept, by kind.", kind=RECORD_KINDS),
    _gauge("targets", "Peers whose /metrics is offered to Prometheus: they opted in."),
    _gauge(
        "targets_refused",
        "Announced addresses that are not offered, by reason.",
        reason=tuple(unfit.value for unfit in Unfit),
    ),
    # The exporter itself.
    _gauge("crawl_age_seconds", "Since the last crawl that brought records; it grows when stuck."),
    _gauge("crawl_seconds", "How long the last crawl took."),
    _counter("crawls", "Crawls by result.", result=("complete", "partial", "failed")),
    _counter(
        "crawl_failures",
        "Steps of crawls that failed.",
        stage=tuple(stage.value for stage in Stage),
    ),
    _gauge("node_up", "Whether this exporter's own p2pd is alive."),
    _counter("node_restarts", "Deaths of this exporter's p2pd that were repaired."),
    _gauge("dht_nodes", "Nodes of the DHT that this exporter knows."),
)
BY_NAME = {family.name.removeprefix("ctpeer_swarm_"): family for family in FAMILIES}
