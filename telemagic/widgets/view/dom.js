// Elements. Whatever comes from outside is set as text or attribute, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element: h("div.tmd-head", {title: "…"}, child, "text"). */
function h(what, attributes = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  return filled(document.createElement(tag), classes, attributes, children);
}

/** Make an SVG element, as h does. */
function s(what, attributes = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  return filled(document.createElementNS(SVG, tag), classes, attributes, children);
}

function filled(element, classes, attributes, children) {
  if (classes.length) element.setAttribute("class", classes.join(" "));
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

/** Set text only when it differs: most of a table does not change between two pictures. */
function put(element, text) {
  if (element._text !== text) {
    element._text = text;
    element.textContent = text;
  }
}

function attribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

// Every state has a shape as well as a colour. Drawn in a box of 10 × 10; "fill" ones are filled.
const RING = "M5 1.2a3.8 3.8 0 1 0 0 7.6a3.8 3.8 0 1 0 0-7.6z";
const SHAPES = {
  open: { d: RING, fill: true, tone: "good" },
  dialing: { d: "M5 1.2a3.8 3.8 0 1 1-3.8 3.8", tone: "busy", turns: true },
  closing: { d: `${RING}M3 5h4`, tone: "soft" },
  closed: { d: "M5 2.6a2.4 2.4 0 1 0 0 4.8a2.4 2.4 0 1 0 0-4.8z", tone: "soft" },
  refused: { d: "M2 2L8 8M8 2L2 8", tone: "bad" },
  failed: { d: "M2 2L8 8M8 2L2 8", tone: "bad" },
  unreachable: { d: `${RING}M2.4 7.6L7.6 2.4`, tone: "bad" },
  "timed out": { d: "M2.2 1.4h5.6L2.2 8.6h5.6z", tone: "bad" },
  reset: { d: "M6.2 1L3 5.3h4L3.8 9", tone: "bad" },
  warning: { d: "M5 1.3L9.2 8.6H.8zM5 4v2M5 7.2v.3", tone: "warn" },
  note: { d: `${RING}M5 4.6v2.2M5 3v.3`, tone: "soft" },
  up: { d: "M5 8.8V1.4M2 4.2L5 1.2l3 3", tone: "soft" },
  down: { d: "M5 1.2v7.4M2 5.8l3 3 3-3", tone: "soft" },
};

/** Make the mark of a state. */
function mark(kind) {
  const element = s("svg.tmd-mark", { viewBox: "0 0 10 10", "aria-hidden": "true" }, s("path"));
  setMark(element, kind);
  return element;
}

function setMark(element, kind) {
  if (element._kind === kind) return;
  element._kind = kind;
  const shape = SHAPES[kind] ?? SHAPES.note;
  element.firstChild.setAttribute("d", shape.d);
  const fill = shape.fill ? " tmd-fill" : "";
  element.setAttribute("class", `tmd-mark tmd-${shape.tone}${fill}${shape.turns ? " tmd-turns" : ""}`);
}

/** A panel with a heading; `aside` is what stands at the heading's right. */
function panel(area, title, aside, ...children) {
  return h(
    `section.tmd-panel.tmd-${area}`,
    { "aria-label": title },
    h("div.tmd-title", {}, h("span", {}, title), aside),
    ...children,
  );
}
