// One table for every list: rows keep their elements while they change, so that what is selected or
// focused stays; columns sort on a click or a key; on a narrow screen each row becomes a card.

import { element, setAttribute, setProse, setText } from "./dom.js";

/** Columns: {name, text(row), sort(row)?, number?, code?, clip?, still?, title(row)?, tone(row)?, bar(row)?}. */
export class Table {
  constructor(container, { caption, columns, key, empty }) {
    this.columns = columns;
    this.key = key;
    this.rows = [];
    this.byKey = new Map();
    this.sorted = null;
    this.body = element("tbody");
    this.heads = columns.map((column) => this.#head(column));
    const head = element("thead", {}, element("tr", {}, ...this.heads));
    const title = element("caption", { class: "visually-hidden" }, caption);
    this.table = element("table", {}, title, head, this.body);
    this.empty = element("p", { class: "hint" }, empty);
    container.append(this.table, this.empty);
    this.update([]);
  }

  update(rows, empty = null) {
    this.rows = rows;
    if (empty !== null) setProse(this.empty, empty);
    this.table.hidden = rows.length === 0;
    this.empty.hidden = rows.length > 0;
    this.#draw();
  }

  #head(column) {
    const head = element("th", { scope: "col", class: column.number ? "number" : null });
    if (!column.sort) {
      head.append(column.name);
      return head;
    }
    const button = element("button", { type: "button", class: "sort" }, column.name);
    button.addEventListener("click", () => this.#sortBy(column));
    head.append(button);
    return head;
  }

  #sortBy(column) {
    const again = this.sorted?.column === column;
    this.sorted = again && this.sorted.down ? null : { column, down: again };
    this.heads.forEach((head, i) => {
      const order = this.sorted?.down ? "descending" : "ascending";
      setAttribute(head, "aria-sort", this.sorted?.column === this.columns[i] ? order : null);
    });
    this.#draw();
  }

  #draw() {
    const keys = new Set();
    this.#ordered().forEach((row, place) => {
      const key = String(this.key(row));
      if (keys.has(key)) return;
      keys.add(key);
      let line = this.byKey.get(key);
      if (!line) {
        line = element("tr", {}, ...this.columns.map((column) => this.#cell(column)));
        this.byKey.set(key, line);
      }
      this.columns.forEach((column, i) => fill(line.children[i], column, row));
      if (this.body.children[place] !== line) this.body.insertBefore(line, this.body.children[place] ?? null);
    });
    for (const [key, line] of this.byKey) {
      if (!keys.has(key)) { line.remove(); this.byKey.delete(key); }
    }
  }

  #ordered() {
    if (!this.sorted) return this.rows;
    const { column, down } = this.sorted;
    const order = (a, b) => {
      const x = column.sort(a), y = column.sort(b);
      if (x === y) return 0;
      if (x === null || x === undefined) return 1;
      if (y === null || y === undefined) return -1;
      return (x < y ? -1 : 1) * (down ? -1 : 1);
    };
    return [...this.rows].sort(order);
  }

  #cell(column) {
    const classes = ["number", "code", "clip", "still"].filter((name) => column[name]).join(" ");
    const cell = element("td", { class: classes || null, "data-label": column.name }, element("span"));
    if (column.bar) cell.prepend(element("progress", { max: 1, "aria-hidden": "true" }));
    return cell;
  }
}

function fill(cell, column, row) {
  setText(cell.lastElementChild, column.text(row));
  if (column.bar) cell.firstElementChild.value = column.bar(row);
  setAttribute(cell, "title", column.title?.(row) ?? null);
  setAttribute(cell, "data-tone", column.tone?.(row) ?? null);
}
