// The tables on the page of a peer: who is there, and what lies on its disk.

import { byId, setText } from "./dom.js";
import { Table } from "./table.js";
import { DECISION_TONES, ago, bytes, count, decimal, shortPeer, shortRoot, spaced, when } from "./words.js";

const PEER_TONES = { "in group": "good", unreachable: "bad", "left out": "bad", behind: "warn" };

const groupTable = new Table(byId("last-group"), {
  caption: "Who brought what to the last epoch",
  key: (row) => row.peer,
  empty: "No round has been committed yet.",
  columns: [
    { name: "peer", text: (r) => (r.mine ? `${shortPeer(r.peer)} (this one)` : shortPeer(r.peer)), title: (r) => r.peer, code: true, sort: (r) => r.peer },
    { name: "loss terms", text: (r) => count(r.terms), number: true, sort: (r) => r.terms },
    { name: "share", text: (r) => `${Math.round(100 * r.share)} %`, number: true, bar: (r) => r.share },
  ],
});
const peersTable = new Table(byId("peers"), {
  caption: "The other peers of the run",
  key: (row) => row.peer_id,
  empty: "",
  columns: [
    { name: "peer", text: (r) => shortPeer(r.peer_id), title: (r) => r.peer_id, code: true, sort: (r) => r.peer_id },
    { name: "state", text: (r) => r.state, tone: (r) => PEER_TONES[r.state], sort: (r) => r.state },
    { name: "epoch", text: (r) => count(r.epoch), number: true, sort: (r) => r.epoch },
    { name: "generation", text: (r) => count(r.generation), number: true, sort: (r) => r.generation },
    { name: "loss terms/s", text: (r) => count(r.loss_terms_per_second), number: true, sort: (r) => r.loss_terms_per_second },
    { name: "seen", text: (r) => ago(r.seen_s), number: true, sort: (r) => r.seen_s },
    { name: "problem", text: (r) => r.misbehaved ?? r.problem ?? "", tone: (r) => (r.misbehaved ? "bad" : null) },
    { name: "address", text: (r) => r.address ?? "", code: true, clip: true, title: (r) => r.address },
  ],
});
const checkpointsTable = new Table(byId("checkpoints"), {
  caption: "The checkpoints on this disk, newest first",
  key: (row) => row.state_root,
  empty: "None is written yet.",
  columns: [
    { name: "epoch", text: (r) => count(r.epoch), number: true, sort: (r) => r.epoch },
    { name: "root", text: (r) => shortRoot(r.state_root), title: (r) => r.state_root, code: true },
    { name: "from epoch", text: (r) => count(r.parent?.epoch), number: true, title: (r) => r.parent?.state_root },
    { name: "generation", text: (r) => count(r.generation), number: true },
    { name: "size", text: (r) => bytes(r.bytes), number: true, sort: (r) => r.bytes },
    { name: "written", text: (r) => when(r.written_unix_s), still: true },
    { name: "remarks", text: (r) => r.remarks, tone: (r) => (r.problem ? "bad" : r.good ? "good" : null) },
  ],
});
const verdictsTable = new Table(byId("verdicts"), {
  caption: "What committees found of the checkpoints, newest first",
  key: (row) => row.round,
  empty: "",
  columns: [
    { name: "round", text: (r) => count(r.round), number: true, sort: (r) => r.round },
    { name: "epoch", text: (r) => count(r.epoch), number: true, sort: (r) => r.epoch },
    { name: "candidate", text: (r) => shortRoot(r.candidate), title: (r) => r.candidate, code: true },
    { name: "decision", text: (r) => r.decision, tone: (r) => DECISION_TONES[r.decision], sort: (r) => r.decision },
    { name: "reason", text: (r) => r.reason },
    { name: "signed by", text: (r) => `${r.signers} of ${r.called}`, number: true },
    { name: "generation", text: (r) => count(r.generation), number: true },
    { name: "last good", text: (r) => (r.last_good_root === r.candidate ? "this one" : shortRoot(r.last_good_root)), title: (r) => r.last_good_root, code: true },
  ],
});
const shardsTable = new Table(byId("shards"), {
  caption: "The shards that this peer trains on",
  key: (row) => row.name,
  empty: "None is chosen yet.",
  columns: [
    { name: "shard", text: (r) => r.name, sort: (r) => r.name },
    { name: "size", text: (r) => bytes(r.bytes), number: true, sort: (r) => r.bytes },
    { name: "why", text: (r) => r.reason, tone: (r) => (r.refused ? "bad" : null), sort: (r) => r.reason },
  ],
});

/** Fill all of them from a view. */
export function showTables({ status, last_group: group, lineage }) {
  const whole = Object.values(group).reduce((sum, terms) => sum + terms, 0) || 1;
  const members = Object.entries(group).map(([peer, terms]) => (
    { peer, terms, share: terms / whole, mine: peer === status.peer_id }
  ));
  groupTable.update(members.sort((a, b) => b.terms - a.terms));
  const alone = status.reachability === null && status.addresses.length === 0;
  const others = status.swarm_peers.map((peer) => ({ ...peer, misbehaved: status.peers_misbehaved[peer.peer_id] }));
  peersTable.update(others, alone ? "This peer meets no others (or has not loaded yet)." : "No other peer is known. Whoever has the invite can join.");
  const good = status.validation?.last_good.state_root;
  checkpointsTable.update(lineage.checkpoints.map((entry) => ({ ...entry, good: entry.state_root === good, remarks: remarksOn(entry, good) })), lineage.problem ?? "None is written yet.");
  verdictsTable.update(lineage.verdicts, status.validation === null ? "Nothing is judged here." : "No verdict yet.");
  const quarantined = Object.entries(status.shards_quarantined).map(([name, reason]) => ({ name, bytes: null, reason: `not trained on: ${reason}`, refused: true }));
  const refused = new Set(quarantined.map(({ name }) => name));
  shardsTable.update([...quarantined, ...status.shards.filter(({ name }) => !refused.has(name))]);
  const size = status.shards.reduce((sum, shard) => sum + shard.bytes, 0);
  setText(byId("shards-title"), status.shards.length ? `Shards: ${count(status.shards.length)}, ${bytes(size)}` : "Shards");
}

function remarksOn(entry, good) {
  const scores = Object.entries(entry.scores).map(([name, value]) => `${spaced(name)} ${decimal(value)}`);
  return [
    entry.problem && `damaged: ${entry.problem}`, entry.state_root === good && "last good",
    entry.accepted_by && "accepted", entry.fetched && "fetched", ...scores,
  ].filter(Boolean).join(", ");
}
