// Numbers and names as people read them. Junk from a peer comes out as a dash, never as an error.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const moment = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

export const NONE = "–";
/** How a verdict is to be taken. */
export const DECISION_TONES = { accept: "good", reject: "bad", inconclusive: "warn" };

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

export const count = (value) => (isNumber(value) ? whole.format(value) : NONE);
export const brief = (value) => (isNumber(value) ? compact.format(value) : NONE);
export const decimal = (value, digits = 3) => (isNumber(value) ? value.toFixed(digits) : NONE);
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
export const spaced = (name) => String(name ?? "").replaceAll("_", " ");
export const when = (unixS) => (isNumber(unixS) && Math.abs(unixS) < 8e12 ? moment.format(unixS * 1000) : NONE);

export function bytes(value) {
  if (!isNumber(value)) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let size = value, unit = 0;
  while (size >= 1000 && unit < units.length - 1) { size /= 1000; unit += 1; }
  return `${unit && size < 100 ? size.toFixed(1) : Math.round(size)} ${units[unit]}`;
}

/** Seconds in the largest two units that say enough. */
export function duration(seconds) {
  if (!isNumber(seconds) || seconds < 0) return NONE;
  const s = Math.floor(seconds) % 60, min = Math.floor(seconds / 60) % 60;
  const h = Math.floor(seconds / 3600) % 24, d = Math.floor(seconds / 86400);
  if (d) return `${count(d)} d ${h} h`;
  if (h) return `${h} h ${min} min`;
  return min ? `${min} min ${s} s` : `${s} s`;
}

export const ago = (seconds) => (isNumber(seconds) && seconds >= 0 ? `${duration(seconds)} ago` : NONE);

/** A peer id's end tells it from others; their beginnings are alike. */
export const shortPeer = (id) => (id && id.length > 12 ? `…${id.slice(-8)}` : id ?? NONE);
/** A hash's beginning, as the commands take it. */
export const shortRoot = (root) => (root ? root.slice(0, 12) : NONE);
