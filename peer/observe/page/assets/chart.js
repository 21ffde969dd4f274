// One chart for every curve: uPlot in the page's own colours, with what it shows in words beside it.

import { element, setText } from "./dom.js";

const HEIGHT = 184;
const HEIGHT_WITHOUT_LEGEND = 204;
/** Steps of an axis that has no halves: of epochs, and of peers. */
const WHOLE = Array.from({ length: 10 }, (_, i) => [1, 2, 5].map((n) => n * 10 ** i)).flat();
const dark = matchMedia("(prefers-color-scheme: dark)");
const charts = new Set();

dark.addEventListener("change", () => charts.forEach((chart) => chart.rebuild()));

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** A curve and level lines over epochs: options {unit, digits, steps?, empty}. */
export class Chart {
  constructor(container, { unit, digits, empty, steps = false }) {
    this.unit = unit;
    this.digits = digits;
    this.steps = steps;
    this.points = [];
    this.levels = [];
    this.reading = element("p", { class: "reading" });
    this.canvas = element("div", { class: "plot", role: "img" });
    this.empty = element("p", { class: "hint" }, empty);
    this.legend = element("p", { class: "legend" });
    container.append(this.reading, this.canvas, this.empty, this.legend);
    charts.add(this);
    new ResizeObserver(() => this.#resize()).observe(this.canvas);
  }

  /** Show `points`, [epoch, value] each, and `levels`, {name, value} each. */
  update(points, levels = [], unit = this.unit) {
    const names = levels.map((level) => level.name).join();
    const rebuild = names !== this.levels.map((level) => level.name).join();
    Object.assign(this, { points, levels, unit });
    this.empty.hidden = points.length > 0;
    this.canvas.hidden = points.length === 0;
    if (points.length === 0) { this.#clear(); return; }
    if (!this.plot || rebuild) this.rebuild();
    else this.plot.setData(this.#data());
    this.#describe();
  }

  #clear() {
    this.plot?.destroy();
    this.plot = null;
    setText(this.reading, "");
    this.legend.replaceChildren();
  }

  rebuild() {
    this.plot?.destroy();
    this.plot = null;
    if (this.points.length === 0) return;
    this.plot = new uPlot(this.#options(), this.#data(), this.canvas);
    this.legend.replaceChildren(
      ...this.levels.flatMap((level, i) => [element("span", { class: `level level-${i}` }, level.name), " "]),
    );
  }

  #data() {
    const epochs = this.points.map(([epoch]) => epoch);
    const values = this.points.map(([, value]) => value);
    return [epochs, values, ...this.levels.map(({ value }) => epochs.map(() => value))];
  }

  #options() {
    const muted = colour("--muted"), grid = { stroke: colour("--grid"), width: 1 };
    const axis = { stroke: muted, grid, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const curve = {
      stroke: colour("--curve"), width: 1.75, fill: colour("--curve-fill"), points: { show: () => this.points.length < 2 },
      ...(this.steps ? { paths: uPlot.paths.stepped({ align: 1 }) } : {}),
    };
    const level = (i) => ({ stroke: colour(`--level-${i % 3}`), width: 1.25, dash: [5, 4], points: { show: false } });
    return {
      width: this.canvas.clientWidth || 320,
      height: this.#height(),
      padding: [10, 8, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
      scales: { x: { time: false }, y: { range: (_, low, high) => this.#range(low, high) } },
      axes: [
        { ...axis, size: 26, space: 70, incrs: WHOLE, values: (_, ticks) => ticks.map((tick) => tick.toLocaleString("en")) },
        { ...axis, size: 44, space: 34, incrs: this.steps ? WHOLE : undefined },
      ],
      series: [{}, curve, ...this.levels.map((_, i) => level(i))],
      hooks: { setCursor: [(plot) => this.#read(plot.cursor.idx)] },
    };
  }

  #range(low, high) {
    if (this.steps) return [0, Math.max(2, Math.ceil(high * 1.15))];
    const room = (high - low) * 0.08 || Math.abs(high) * 0.05 || 1;
    return [low - room, high + room];
  }

  #read(place) {
    const at = place ?? this.points.length - 1;
    const point = this.points[Math.min(at, this.points.length - 1)];
    if (!point) return;
    const value = point[1].toFixed(this.steps && Number.isInteger(point[1]) ? 0 : this.digits);
    const unit = value === "1" ? this.unit.replace(/s$/, "") : this.unit;
    setText(this.reading, `${value} ${unit} at epoch ${point[0].toLocaleString("en")}`);
  }

  #describe() {
    this.#read(this.plot?.cursor.idx);
    const [first, last] = [this.points[0], this.points.at(-1)];
    const levels = this.levels.map(({ name, value }) => `, ${name} ${value.toFixed(this.digits)}`).join("");
    const text = `From ${first[1].toFixed(this.digits)} at epoch ${first[0]} to ` +
      `${last[1].toFixed(this.digits)} ${this.unit} at epoch ${last[0]}${levels}`;
    this.canvas.setAttribute("aria-label", text);
  }

  #resize() {
    const width = this.canvas.clientWidth;
    if (this.plot && width && width !== this.plot.width) this.plot.setSize({ width, height: this.#height() });
  }

  #height() {
    return this.levels.length ? HEIGHT : HEIGHT_WITHOUT_LEGEND;
  }
}
