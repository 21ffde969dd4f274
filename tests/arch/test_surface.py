"""The names that people and machines rely on. A change here is a change for all of them."""

import click

from monitoring.main import main as monitor
from monitoring.names import FAMILIES
from peer.cli.main import COMMANDS, main
from peer.daemon.lifecycle import State
from peer.daemon.restart import FailureClass
from peer.events import RoundFailure
from peer.observe.metrics import Metrics
from peer.swarm.records import Refusal

CLI = {
    "checkpoint export": "root directory --git --home --json --licence --run",
    "checkpoint fetch": "root --home --invite --json --peers --run --timeout",
    "checkpoint gc": "--damaged --dry-run --fetched --home --json --run",
    "checkpoint list": "--home --json --run",
    "checkpoint log": "root --home --json --max-count --run",
    "checkpoint show": "root --home --json --run",
    "checkpoint verify": "root --home --json --run",
    "completion": "shell",
    "config path": "--home",
    "config show": "--home --json --origin",
    "data choose": "directory --exclude --home --include --json --max-bytes",
    "data index": "folder --attribution --column --heldout --json --licence --name",
    "data show": "spec --json",
    "doctor": "invite --home --json --peers",
    "finish": "--home",
    "identity": "--home --json",
    "invite": "--expires --home --json",
    "logs": "--follow --home --lines",
    "pause": "--for --home",
    "peers": "--home --json",
    "resume": "--home",
    "run init": (
        "directory --codec --data --decay --evaluation-rows --floor --heads --hidden --home --json"
        " --layers --lr --margin --mask-probability --max-grad-norm --model --model-config"
        " --model-from --name --optimizer --pretrained --seed --sequence-length"
        " --target-loss-terms --task --tokenizer --total-epochs --validate-every --vocab-size"
        " --warmup-epochs --weight-decay"
    ),
    "run show": "directory --home --json",
    "run verify": "directory --home --json",
    "start": (
        "run --alone --announce --client --device --hold --home --listen --max-epochs"
        " --metrics-port --micro-batch --page-port --paused --peers --plain --role --threads"
    ),
    "sandbox": (
        "--freeze --home --join-at --json --kill --kill-founder --max-epochs --peers --run"
        " --scenario --timeout --validate-every"
    ),
    "service install": "unit --now --run --user",
    "service status": "unit --json --user",
    "service uninstall": "unit --user",
    "status": "--home --json --watch",
    "stop": "--home",
    "validators": "--home --json --run",
    "verdicts": "--home --json --max-count --run --verify",
    "version": "--json",
}

METRICS = [
    "ctpeer_branch_lost_epochs_total",
    "ctpeer_branches_left_total",
    "ctpeer_build_info",
    "ctpeer_checkpoint_age_seconds",
    "ctpeer_checkpoints_total",
    "ctpeer_contribution_loss_terms",
    "ctpeer_disk_free_bytes",
    "ctpeer_dropped_tokens_total",
    "ctpeer_epoch",
    "ctpeer_evaluations_total",
    "ctpeer_generation",
    "ctpeer_group_peers",
    "ctpeer_heldout",
    "ctpeer_last_good_age_seconds",
    "ctpeer_last_good_epoch",
    "ctpeer_loss_nats",
    "ctpeer_parts_refused_total",
    "ctpeer_peer_misbehaviour_total",
    "ctpeer_peers",
    "ctpeer_received_bytes_total",
    "ctpeer_records_refused_total",
    "ctpeer_repeated_tokens_total",
    "ctpeer_requests_refused_total",
    "ctpeer_resident_memory_bytes",
    "ctpeer_restarts_total",
    "ctpeer_rollbacks_total",
    "ctpeer_rolled_back_epochs_total",
    "ctpeer_round_seconds",
    "ctpeer_rounds_total",
    "ctpeer_samples_total",
    "ctpeer_sent_bytes_total",
    "ctpeer_shards_quarantined_total",
    "ctpeer_state",
    "ctpeer_supervisor_failures_total",
    "ctpeer_tokens_per_second",
    "ctpeer_tokens_total",
    "ctpeer_validator_scores_total",
    "ctpeer_validator_seats_total",
    "ctpeer_validator_strikes_total",
    "ctpeer_verdict_difference_nats",
    "ctpeer_verdicts_total",
    "ctpeer_worker_messages_refused_total",
]

MONITOR_CLI = {
    "watch": (
        "run --allow-host --allow-private --home --interval --json --listen --log-level --peers"
    ),
    "stack": (
        "run --allow-host --allow-private --data --grafana --home --json --monitor --peers "
        "--prometheus --retention --target"
    ),
}

SWARM_METRICS = [
    "ctpeer_swarm_branches",
    "ctpeer_swarm_certificates",
    "ctpeer_swarm_claiming_peers",
    "ctpeer_swarm_claims",
    "ctpeer_swarm_crawl_age_seconds",
    "ctpeer_swarm_crawl_failures_total",
    "ctpeer_swarm_crawl_seconds",
    "ctpeer_swarm_crawls_total",
    "ctpeer_swarm_dht_nodes",
    "ctpeer_swarm_epoch",
    "ctpeer_swarm_epoch_spread",
    "ctpeer_swarm_epochs_behind_median",
    "ctpeer_swarm_generation",
    "ctpeer_swarm_group_peers",
    "ctpeer_swarm_last_good_age_seconds",
    "ctpeer_swarm_last_good_epoch",
    "ctpeer_swarm_last_good_nats",
    "ctpeer_swarm_loss_terms_total",
    "ctpeer_swarm_member_epochs_behind",
    "ctpeer_swarm_member_loss_terms",
    "ctpeer_swarm_newcomers",
    "ctpeer_swarm_node_restarts_total",
    "ctpeer_swarm_node_up",
    "ctpeer_swarm_peers",
    "ctpeer_swarm_peers_by_device",
    "ctpeer_swarm_peers_by_state",
    "ctpeer_swarm_peers_by_version",
    "ctpeer_swarm_records",
    "ctpeer_swarm_records_dropped_total",
    "ctpeer_swarm_records_refused_total",
    "ctpeer_swarm_self_reported_group_peers",
    "ctpeer_swarm_self_reported_heldout",
    "ctpeer_swarm_self_reported_loss_nats",
    "ctpeer_swarm_self_reported_refused_total",
    "ctpeer_swarm_self_reported_rounds_total",
    "ctpeer_swarm_self_reported_tokens_per_second",
    "ctpeer_swarm_shards",
    "ctpeer_swarm_shards_by_claims",
    "ctpeer_swarm_shards_claimed",
    "ctpeer_swarm_targets",
    "ctpeer_swarm_targets_refused",
    "ctpeer_swarm_verdict_baseline_nats",
    "ctpeer_swarm_verdict_candidate_nats",
    "ctpeer_swarm_verdict_difference_nats",
    "ctpeer_swarm_verdict_epoch",
    "ctpeer_swarm_verdict_round",
    "ctpeer_swarm_verdict_signers",
    "ctpeer_swarm_verdicts_total",
]


def surface(command, path=()):
    if isinstance(command, click.Group):
        context = click.Context(command)
        found = {}
        for name in command.list_commands(context):
            found |= surface(command.get_command(context, name), (*path, name))
        return found
    arguments = [p.name for p in command.params if isinstance(p, click.Argument)]
    options = [max(p.opts, key=len) for p in command.params if isinstance(p, click.Option)]
    return {" ".join(path): " ".join(arguments + sorted(options))}


def test_the_commands_and_their_options_are_the_known_ones():
    assert surface(main) == CLI


def test_the_monitor_s_commands_and_their_options_are_the_known_ones():
    assert surface(monitor) == MONITOR_CLI


def test_every_command_says_what_it_does():
    context = click.Context(main)
    for name in COMMANDS:
        assert main.get_command(context, name).get_short_help_str()


def test_the_metrics_are_the_known_ones():
    registry = Metrics(State, RoundFailure, FailureClass, Refusal).registry
    names = []
    for family in registry.collect():
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        names.append(family.name + suffix)
    assert sorted(names) == METRICS


def test_the_metrics_of_the_swarm_are_the_known_ones():
    assert sorted(family.exposed for family in FAMILIES) == SWARM_METRICS


def test_the_metrics_of_the_swarm_name_neither_run_nor_peer_id_and_say_whose_word_they_are():
    for family in FAMILIES:
        assert len(family.labels) <= 1
        assert not {"run", "run_id", "peer_id"} & set(family.labels)
        assert family.help.endswith(".")
