// Asks for a page's JSON again and again, and says when nobody answers.

const INTERVAL_MS = 1000;
const HIDDEN_INTERVAL_MS = 10000;
const TIMEOUT_MS = 5000;

/** What an answer says that is none of those hoped for. */
export class Refused extends Error {}

/** Ask `path` once; throws Refused with the answer's words, or what fetch throws. */
export async function ask(path, { key = null, method = "GET", body = null } = {}) {
  const headers = { Accept: "application/json" };
  if (key !== null) headers["X-Ctpeer-Key"] = key;
  if (body !== null) headers["Content-Type"] = "application/json";
  const response = await fetch(path, {
    method, headers, body: body === null ? undefined : JSON.stringify(body),
    cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  const answer = await response.json();
  if (!response.ok) throw new Refused(answer.error ?? answer.problem ?? `it answers ${response.status}`);
  return answer;
}

/** Calls `onView(view)` with whatever `load()` brings, `onSilence(error)` whenever it fails. */
export class Feed {
  constructor(load, { intervalMs = INTERVAL_MS, onView, onSilence }) {
    Object.assign(this, { load, intervalMs, onView, onSilence });
    this.timer = null;
    this.asking = false;
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.now(); });
  }

  /** Ask at once, and from then on again and again. */
  async now() {
    if (this.asking) return;
    this.asking = true;
    clearTimeout(this.timer);
    try {
      this.onView(await this.load());
    } catch (error) {
      this.onSilence(error);
    } finally {
      this.asking = false;
      this.timer = setTimeout(() => this.now(), document.hidden ? HIDDEN_INTERVAL_MS : this.intervalMs);
    }
  }
}
