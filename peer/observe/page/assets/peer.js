// The page of one peer: asks its supervisor once a second, and gives it commands.

import { Chart } from "./chart.js";
import { byId, setAttribute, setProse, setRows, setText } from "./dom.js";
import { ask, Feed, Refused } from "./feed.js";
import { showTables } from "./peer-tables.js";
import { say } from "./state.js";
import { DECISION_TONES, ago, brief, bytes, count, decimal, duration, plural, shortRoot, spaced } from "./words.js";

const TONES = {
  training: "good", averaging: "good", evaluating: "good", following: "good", holding: "good",
  paused: "warn", restarting: "warn", failed: "bad",
};
const ENDING = new Set(["finishing", "stopping", "stopped", "failed"]);
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

function showInvite(status) {
  byId("invite-row").hidden = status.invite === null;
  setText(byId("invite"), status.invite ?? "");
  setProse(byId("invite-hint"), status.invite === null
    ? "There is none: this peer has no address that others could dial (yet)."
    : "Whoever gets this string joins the run with `ctpeer start`. It is no secret.");
}

function lose(error) {
  setAttribute(byId("link"), "data-link", "lost");
  setAttribute(document.body, "data-silent", "");
  closeQuestion();
  for (const button of byId("actions").querySelectorAll("button, select")) button.disabled = true;
  if (error instanceof Refused) {
    notice(error.message, "key");
    setText(byId("link-text"), "refused");
    return;
  }
  silent = true;
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
