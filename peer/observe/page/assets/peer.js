// The page of one peer: asks its supervisor once a second, and gives it commands.

import { Chart } from "./chart.js";
import { byId, setAttribute, setProse, setRows, setText } from "./dom.js";
import { ask, Feed, Refused } from "./feed.js";
import { Table } from "./table.js";
import { ago, brief, bytes, count, decimal, duration, plural, shortPeer, shortRoot, spaced, when } from "./words.js";

const TONES = {
  training: "good", averaging: "good", evaluating: "good", following: "good", holding: "good",
  paused: "warn", restarting: "warn", failed: "bad",
};
const ENDING = new Set(["finishing", "stopping", "stopped", "failed"]);
const PEER_TONES = { "in group": "good", unreachable: "bad", "left out": "bad", behind: "warn" };
const DECISION_TONES = { accept: "good", reject: "bad", inconclusive: "warn" };
const QUESTIONS = {
  finish: ["Finish? The epoch under way is completed and saved, then the daemon ends.", "Finish"],
  stop: ["Stop? A checkpoint of the last epoch is written, then the daemon ends.", "Stop"],
};

const key = location.hash.slice(1);
let last = null, heardMs = 0, silent = false;

const lossChart = new Chart(byId("loss-chart"), {
  unit: "nats", digits: 3, empty: "The curve begins with the first epoch that this peer contributes to.",
});
const heldoutChart = new Chart(byId("heldout-chart"), {
  unit: "", digits: 3, empty: "Nothing has been scored yet.",
});
const groupChart = new Chart(byId("group-chart"), {
  unit: "peers", digits: 1, steps: true, empty: "The curve begins with the first epoch.",
});

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

function show(view) {
  last = view;
  heardMs = Date.now();
  silent = false;
  if (byId("notice").dataset.about === "key") notice(null);
  setAttribute(document.body, "data-silent", null);
  setAttribute(byId("link"), "data-link", "live");
  setText(byId("link-text"), "live");
  const { status } = view;
  showState(view);
  showFacts(status);
  showCurves(view);
  setRows(byId("rounds"), roundRows(status));
  setRows(byId("judging"), judgingRows(status));
  setRows(byId("process"), processRows(view));
  showTables(view);
  showInvite(status);
  setText(byId("version"), `ctpeer ${status.version}`);
  const metrics = byId("metrics");
  metrics.hidden = !/^https?:\/\//.test(status.metrics_url);
  setAttribute(metrics, "href", metrics.hidden ? null : status.metrics_url);
}

function showState({ status, paused, quiet_s: quietS }) {
  setText(byId("run-name"), status.run_name ?? "");
  setText(byId("run-id"), status.run_id);
  setAttribute(byId("state"), "data-state", status.state);
  setAttribute(byId("state"), "data-tone", quietS !== null ? "warn" : TONES[status.state] ?? "quiet");
  say(status.state, status.reason);
  const ended = ENDING.has(status.state);
  const focused = document.activeElement;
  byId("resume").hidden = paused === null;
  byId("pause-part").hidden = paused !== null;
  for (const id of ["pause", "resume", "pause-for", "finish"]) byId(id).disabled = ended;
  byId("stop").disabled = ended && status.state !== "finishing";
  if (focused?.closest("[hidden]")) (paused === null ? byId("pause") : byId("resume")).focus();
  if (byId("stop").disabled) closeQuestion();
}

/** Show the state; who listens is told when it changes, not each time that its reason does. */
function say(word, reason) {
  if (byId("state-word").textContent !== word) {
    setText(byId("announce"), `${word}: ${reason}`);
    document.title = `${word} – ctpeer`;
  }
  setText(byId("state-word"), word);
  setProse(byId("state-reason"), reason);
}

function showFacts(status) {
  const { contribution, heldout, peers, checkpoint } = status;
  setText(byId("epoch"), count(status.epoch));
  const target = contribution.target_weight;
  byId("contribution").value = target ? Math.min(1, contribution.weight / target) : 0;
  setText(byId("contribution-text"), target ? `${count(contribution.weight)} of ${count(target)} loss terms` : "");
  setText(byId("loss"), status.loss === null ? "–" : `${decimal(status.loss)} nats`);
  setText(byId("loss-sub"), status.loss === null ? "" : "mean of the last ten epochs");
  setText(byId("heldout-name"), heldout.name ? `Held-out, ${spaced(heldout.name)}` : "Held-out");
  setText(byId("heldout"), decimal(heldout.value));
  const levels = Object.entries(heldout.baselines).map(([name, value]) => `${name} ${decimal(value, 2)}`);
  setText(byId("heldout-sub"), levels.join(", "));
  setText(byId("speed"), count(status.tokens_per_second));
  setText(byId("speed-sub"), `tokens/s, ${brief(status.tokens_total)} so far`);
  setText(byId("live"), `${count(peers.live)} live`);
  const known = peers.known ? `${count(peers.reachable)} of ${plural(peers.known, "other")} reachable` : "no other is known";
  setText(byId("live-sub"), peers.in_group > 1 ? `${known}, group of ${count(peers.in_group)}` : known);
  setText(byId("saved"), checkpoint ? `epoch ${count(checkpoint.epoch)}` : "none yet");
  setText(byId("saved-sub"), status.checkpoint_problem ?? (checkpoint ? ago(checkpoint.age_s) : ""));
  setAttribute(byId("saved-sub"), "data-tone", status.checkpoint_problem ? "bad" : null);
}

function showCurves({ status, history }) {
  const levels = Object.entries(status.heldout.baselines).map(([name, value]) => ({ name, value }));
  lossChart.update(history.loss);
  heldoutChart.update(history.heldout, levels.filter(({ value }) => value !== null), spaced(status.heldout.name));
  groupChart.update(history.group);
}

function roundRows(status) {
  const { rounds } = status;
  return [
    ["committed", count(rounds.committed)],
    ["failed", count(rounds.failed), rounds.failed ? "warn" : null],
    ...Object.entries(rounds.failed_by_reason).map(([reason, n]) => [`· ${spaced(reason)}`, count(n)]),
    ["last failure", rounds.last_failure],
    ["parts refused", status.parts_refused ? count(status.parts_refused) : null, "warn"],
    ["tokens dropped", status.tokens_dropped ? count(status.tokens_dropped) : null],
    ["tokens done again", status.tokens_repeated ? count(status.tokens_repeated) : null],
    ["epochs lost in branches", status.epochs_lost_in_branches ? count(status.epochs_lost_in_branches) : null, "warn"],
    ["last branch left", status.last_branch_left],
    ["micro-batch", status.micro_batch ? plural(status.micro_batch, "sample") : null],
  ];
}

function judgingRows(status) {
  const now = status.validation;
  if (now === null) return [["now", "nothing is judged: the run has no validation, or nothing is loaded yet"]];
  const { last_good: good, last_verdict: verdict } = now;
  const decisions = Object.entries(now.decisions).map(([decision, n]) => `${count(n)} ${decision}`);
  return [
    ["now", now.doing ?? now.phase],
    ["candidate", now.candidate_epoch === null ? null : `epoch ${count(now.candidate_epoch)}`],
    ["last good", `epoch ${count(good.epoch)}, ${shortRoot(good.state_root)}${good.age_s === null ? "" : `, ${ago(good.age_s)}`}`, "good"],
    ["verdicts", `${count(now.round)} in all${decisions.length ? `; here ${decisions.join(", ")}` : ""}`],
    ["last verdict", verdict && `${verdict.decision} of epoch ${count(verdict.epoch)}: ${verdict.reason}`, verdict && DECISION_TONES[verdict.decision]],
    ["our seats", `${count(now.seats_held)} held, ${count(now.seats_scored)} scored, ${count(now.seats_agreed)} agreed`],
    ["strikes", now.strikes ? count(now.strikes) : null, "bad"],
    ["problem", now.problem, "warn"],
    ["rollbacks", status.rollbacks ? count(status.rollbacks) : null, "warn"],
    ["last rollback", status.last_rollback],
  ];
}

function processRows({ status, quiet_s: quietS, rss_bytes: rss }) {
  const restarts = Object.entries(status.restarts_by_reason).map(([reason, n]) => `${spaced(reason)} ${count(n)}`);
  return [
    ["up", duration(status.uptime_s)],
    ["worker", status.worker_pid === null ? "none at present" : `process ${status.worker_pid}`, status.worker_pid === null ? "warn" : null],
    ["silent for", quietS === null ? null : duration(quietS), "warn"],
    ["memory", bytes(status.rss_bytes)],
    ...Object.entries(rss).map(([name, size]) => [`· ${name}`, bytes(size)]),
    ["restarts", status.restarts ? `${count(status.restarts)}: ${restarts.join(", ")}` : "none", status.restarts ? "warn" : null],
    ["device", status.device],
    ["model", status.parameters === null ? null : `${brief(status.parameters)} parameters, ${status.task}`],
    ["role", status.role],
    ["peer id", status.peer_id],
    ["reached", status.reachability],
    ["supervisor", `process ${status.pid}`],
  ];
}

function showTables({ status, last_group: group, lineage }) {
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

function showInvite(status) {
  byId("invite-row").hidden = status.invite === null;
  setText(byId("invite"), status.invite ?? "");
  setProse(byId("invite-hint"), status.invite === null
    ? "There is none: this peer has no address that others could dial (yet)."
    : "Whoever gets this string joins the run with `ctpeer start`. It is no secret.");
}

function lose(error) {
  setAttribute(byId("link"), "data-link", "lost");
  if (error instanceof Refused) {
    notice(error.message, "key");
    setText(byId("link-text"), "refused");
    return;
  }
  setAttribute(document.body, "data-silent", "");
  silent = true;
  for (const button of byId("actions").querySelectorAll("button, select")) button.disabled = true;
  closeQuestion();
  setAttribute(byId("state"), "data-tone", "bad");
  const again = "`ctpeer start` starts it again, and this page comes back by itself.";
  if (last && ENDING.has(last.status.state)) say("ended", `The daemon has ended (${last.status.reason}). ${again}`);
  else if (error.name === "TimeoutError") say("no answer", "The daemon is there, but does not answer. What is below is what it said last.");
  else say("gone", `No daemon answers at this address: it has ended, or was killed. ${again}`);
}

function notice(text, about = "command") {
  const shown = byId("notice");
  shown.hidden = text === null;
  shown.dataset.about = about;
  setProse(shown, text ?? "");
}

async function order(name, body = {}) {
  notice(null);
  try {
    await ask(name, { key, method: "POST", body });
  } catch (error) {
    notice(error instanceof Refused ? error.message : "The command did not get through: the daemon does not answer.");
  }
  await feed.now();
}

let asked = null;

function openQuestion(name) {
  const [text, word] = QUESTIONS[name];
  asked = name;
  setText(byId("ask-text"), text);
  setText(byId("ask-yes"), word);
  byId("ask-yes").disabled = byId("ask-no").disabled = false;
  byId("ask").hidden = false;
  byId("commands").hidden = true;
  byId("ask-no").focus();
}

function closeQuestion() {
  if (asked === null) return;
  const from = asked;
  asked = null;
  byId("ask").hidden = true;
  byId("commands").hidden = false;
  byId(from).focus();
}

byId("pause").addEventListener("click", () => {
  const forS = byId("pause-for").value;
  order("pause", forS ? { for_s: Number(forS) } : {});
});
byId("resume").addEventListener("click", () => order("resume"));
byId("finish").addEventListener("click", () => openQuestion("finish"));
byId("stop").addEventListener("click", () => openQuestion("stop"));
byId("ask-no").addEventListener("click", closeQuestion);
byId("ask-yes").addEventListener("click", () => { const name = asked; closeQuestion(); order(name); });
byId("ask").addEventListener("keydown", (event) => { if (event.key === "Escape") closeQuestion(); });
byId("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(byId("invite").textContent);
    setText(byId("copy"), "Copied");
  } catch {
    getSelection().selectAllChildren(byId("invite"));
    setText(byId("copy"), "Selected");
  }
  setTimeout(() => setText(byId("copy"), "Copy"), 2000);
});
addEventListener("hashchange", () => location.reload());

const feed = new Feed(() => ask("view", { key }), { onView: show, onSilence: lose });
feed.now();
setInterval(() => {
  if (silent) setText(byId("link-text"), last ? `last heard ${ago((Date.now() - heardMs) / 1000)}` : "not heard yet");
}, 1000);
