// The page of a whole swarm: asks its exporter every few seconds. It commands nothing.

import { Chart } from "./chart.js";
import { byId, setAttribute, setRows, setText } from "./dom.js";
import { ask, Feed, Refused } from "./feed.js";
import { say } from "./state.js";
import { Table } from "./table.js";
import { DECISION_TONES, ago, count, decimal, plural, shortPeer, shortRoot, spaced } from "./words.js";

const INTERVAL_MS = 3000;
const AT_WORK = ["training", "averaging", "evaluating", "silent"];

const lossChart = new Chart(byId("loss-chart"), { unit: "nats", digits: 3, empty: "No peer has told of a loss yet." });
const heldoutChart = new Chart(byId("heldout-chart"), { unit: "", digits: 3, empty: "No peer has told of a score yet." });
const liveChart = new Chart(byId("live-chart"), { unit: "peers", digits: 1, steps: true, empty: "The curve begins with the first epoch that is seen." });

const board = new Table(byId("board"), {
  caption: "Who did how much in the newest epochs, the greatest contribution first",
  key: (row) => row.peer_id,
  empty: "Nobody has contributed to an epoch that is known here.",
  columns: [
    { name: "peer", text: (r) => shortPeer(r.peer_id), title: (r) => r.peer_id, code: true, sort: (r) => r.peer_id },
    { name: "now", text: (r) => (r.live ? r.told.phase ?? "live" : "gone"), tone: (r) => (r.live ? "good" : "quiet"), sort: (r) => String(r.live) },
    { name: "share", text: (r) => `${(100 * r.share).toFixed(1)} %`, number: true, bar: (r) => r.share, sort: (r) => r.share },
    { name: "loss terms", text: (r) => count(r.loss_terms), number: true, sort: (r) => r.loss_terms },
    { name: "epochs", text: (r) => count(r.epochs), number: true, sort: (r) => r.epochs },
    { name: "behind", text: (r) => count(r.epochs_behind), number: true, sort: (r) => r.epochs_behind, tone: (r) => (r.epochs_behind > 1 ? "warn" : null) },
    { name: "seats", text: (r) => (r.seats ? `${count(r.seats_agreed)} of ${count(r.seats)} agreed` : "–"), number: true, sort: (r) => r.seats },
    { name: "strikes", text: (r) => (r.barred ? `${count(r.strikes)}, barred` : count(r.strikes)), number: true, sort: (r) => r.strikes, tone: (r) => (r.strikes ? "bad" : null) },
    { name: "tokens/s, as told", text: (r) => count(r.told.tokens_per_second), number: true, sort: (r) => r.told.tokens_per_second },
    { name: "device", text: (r) => r.told.device ?? "–", sort: (r) => r.told.device },
    { name: "version", text: (r) => r.told.version ?? "–", sort: (r) => r.told.version },
  ],
});
const verdictsTable = new Table(byId("verdicts"), {
  caption: "What committees found of the checkpoints, newest first",
  key: (row) => row.round,
  empty: "No verdict is known yet.",
  columns: [
    { name: "round", text: (r) => count(r.round), number: true, sort: (r) => r.round },
    { name: "epoch", text: (r) => count(r.epoch), number: true, sort: (r) => r.epoch },
    { name: "candidate", text: (r) => shortRoot(r.state_root), title: (r) => r.state_root, code: true },
    { name: "decision", text: (r) => r.decision, tone: (r) => DECISION_TONES[r.decision], sort: (r) => r.decision },
    { name: "why", text: (r) => r.words ?? r.reason },
    { name: "loss", text: (r) => decimal(r.candidate_nats), number: true, sort: (r) => r.candidate_nats },
    { name: "baseline's", text: (r) => decimal(r.baseline_nats), number: true, sort: (r) => r.baseline_nats },
    { name: "signed by", text: (r) => `${count(r.signers)} of ${count(r.called)}`, number: true },
    { name: "generation", text: (r) => count(r.generation), number: true },
  ],
});

async function load() {
  const problem = ask("healthz").then(() => null, (error) => {
    if (error instanceof Refused) return error.message;
    throw error;
  });
  const [words, swarm, leaderboard, verdicts, curves] = await Promise.all(
    [problem, ask("swarm"), ask("leaderboard"), ask("verdicts"), ask("curves")],
  );
  return { words, swarm, leaderboard, verdicts, curves };
}

function show({ words, swarm, leaderboard, verdicts, curves }) {
  setAttribute(document.body, "data-silent", null);
  setAttribute(byId("link"), "data-link", words === null ? "live" : "lost");
  setText(byId("link-text"), `seen ${ago(Math.max(0, Date.now() / 1000 - swarm.unix_time_s))}`);
  setText(byId("run-id"), swarm.run_id);
  const [tone, word, reason] = judge(swarm, words);
  setAttribute(byId("state"), "data-tone", tone);
  say(word, reason);
  showFacts(swarm, verdicts);
  lossChart.update(curves.loss);
  heldoutChart.update(curves.heldout, baselines(swarm));
  liveChart.update(curves.live);
  setRows(byId("states"), stateRows(swarm));
  setRows(byId("since"), totalRows(swarm));
  const builds = { ...swarm.peers.by_version, ...swarm.peers.by_device };
  setRows(byId("builds"), Object.entries(builds).filter(([, n]) => n).map(([name, n]) => [name, plural(n, "peer")]));
  board.update(leaderboard.peers.map((row) => ({ ...row, told: row.self_reported ?? {} })));
  verdictsTable.update(verdicts.verdicts);
}

/** The swarm in a word, and why, worst first. */
function judge(swarm, words) {
  const { peers, epoch_spread: spread, branches } = swarm;
  if (words !== null) return ["bad", "not seen", words];
  const at = `${plural(peers.live, "peer")} at epoch ${count(swarm.epoch)} of generation ${count(swarm.generation)}`;
  if (peers.live === 0) return ["bad", "nobody there", "No peer of the run tells of itself."];
  if (branches > 1) return ["warn", "split", `${at}; they hold ${count(branches)} different states at one epoch`];
  if (spread > 2) return ["warn", "training", `${at}; the last of them is ${plural(spread, "epoch")} behind`];
  const busy = AT_WORK.reduce((sum, state) => sum + (peers.by_state[state] ?? 0), 0);
  return busy ? ["good", "training", at] : ["quiet", "resting", `${at}; none of them is at work`];
}

/** What simple models reach on the held-out data: agreed on by the run, not told by peers. */
function baselines(swarm) {
  return Object.entries(swarm.heldout_baselines).map(([name, value]) => ({ name, value }));
}

function showFacts(swarm, verdicts) {
  const { peers, self_reported: told, shards } = swarm;
  setText(byId("epoch"), count(swarm.epoch));
  setText(byId("epoch-sub"), `generation ${count(swarm.generation)}, group of ${count(swarm.group_peers)}`);
  setText(byId("live"), `${count(peers.live)} live`);
  setText(byId("live-sub"), peers.newcomers ? `and ${plural(peers.newcomers, "newcomer")}` : "no newcomers");
  setText(byId("speed"), count(told.tokens_per_second));
  setText(byId("speed-sub"), "tokens/s in all");
  setText(byId("loss"), told.loss_nats === null ? "–" : `${decimal(told.loss_nats)} nats`);
  setText(byId("heldout"), decimal(told.heldout));
  setText(byId("heldout-sub"), baselines(swarm).map(({ name, value }) => `${name} ${decimal(value, 2)}`).join(", "));
  setText(byId("good"), verdicts.last_good ? `epoch ${count(verdicts.last_good.epoch)}` : "–");
  setText(byId("good-sub"), verdicts.last_good ? shortRoot(verdicts.last_good.state_root) : "nothing is judged yet");
  setText(byId("cover"), shards ? `${count(shards.claimed)} of ${count(shards.count)}` : "–");
  setText(byId("cover-sub"), shards ? "claimed by somebody" : "the index is not here yet");
}

function stateRows({ peers, self_reported: told }) {
  return [
    ...Object.entries(peers.by_state).filter(([, n]) => n).map(([state, n]) => [spaced(state), count(n)]),
    ["group, as told", told.group_peers === null ? null : plural(told.group_peers, "peer")],
  ];
}

function totalRows({ loss_terms: lossTerms, self_reported: told, verdicts }) {
  return [
    ["loss terms", count(lossTerms)],
    ["rounds, as told", count(told.rounds_committed)],
    ["failed, as told", count(told.rounds_failed), told.rounds_failed ? "warn" : null],
    ["refused, as told", count(told.refused), told.refused ? "warn" : null],
    ["verdicts", count(Object.values(verdicts).reduce((sum, n) => sum + n, 0))],
    ...Object.entries(verdicts).filter(([, n]) => n).map(([decision, n]) => [`· ${decision}`, count(n), DECISION_TONES[decision]]),
  ];
}

function lose(error) {
  setAttribute(byId("link"), "data-link", "lost");
  setAttribute(byId("state"), "data-tone", error instanceof Refused ? "quiet" : "bad");
  if (error instanceof Refused) {
    setText(byId("link-text"), "waiting");
    say("looking", error.message);
    return;
  }
  setAttribute(document.body, "data-silent", "");
  setText(byId("link-text"), "gone");
  say("gone", "The exporter does not answer. What is below is what it said last; this page comes back by itself.");
}

new Feed(load, { intervalMs: INTERVAL_MS, onView: show, onSilence: lose }).now();
