// The few ways in which a page touches the document. Whatever comes from elsewhere is put in as
// text, never as HTML; the browser holds us to it (Trusted Types, see guard.py).

export const byId = (id) => document.getElementById(id);

/** Return a new element with text content and children. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Set the text of `node` if it differs, so that a selection in it lives on. */
export function setText(node, text) {
  const wanted = text ?? "";
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Set the text of `node`; what stands between backticks in it is shown as code. */
export function setProse(node, text) {
  if (node.dataset.prose === text) return;
  node.dataset.prose = text;
  node.replaceChildren(...text.split("`").map((part, i) => (i % 2 ? element("code", {}, part) : part)));
}

/** Set an attribute of `node` if it differs; null takes it away. */
export function setAttribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** Fill the description list `list` with [term, text, tone] rows; rows without a text are left out. */
export function setRows(list, rows) {
  const shown = rows.filter(([, text]) => text !== null && text !== undefined && text !== "");
  while (list.children.length > shown.length) list.lastElementChild.remove();
  while (list.children.length < shown.length) {
    list.append(element("div", {}, element("dt"), element("dd")));
  }
  shown.forEach(([term, text, tone], i) => {
    const [head, body] = list.children[i].children;
    setText(head, term);
    setText(body, text);
    setAttribute(body, "data-tone", tone ?? null);
  });
}
