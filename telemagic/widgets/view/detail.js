// One flow in detail: where its time went, and everything else that is known of it.

// In the order in which they happen. `dial` and `tunnel` are what `connect` is made of, besides the queue.
const PARTS = [
  ["dns", "dns", "looking the name up"],
  ["queue", "queue", "waiting for the tunnel"],
  ["tunnel", "tunnel", "this machine to the manager and back"],
  ["dial", "dial", "the manager's connect to the service, in the cluster"],
  ["first_byte", "first byte", "from connected to the first byte of the answer"],
  ["transfer", "transfer", "from the first byte of the answer to the last byte so far"],
];
const LONGEST = 0.3; // of the bar for the transfer when the rest would vanish beside it; then it is drawn broken

class Detail {
  constructor(close) {
    this.mark = mark("open");
    this.title = h("b");
    this.word = h("span.tmd-soft");
    this.bar = h("div.tmd-bar", { role: "img" });
    this.legend = h("div.tmd-legend");
    this.facts = h("dl.tmd-facts");
    this.element = h(
      "section.tmd-panel.tmd-detail",
      { "aria-label": "Flow in detail", hidden: "", onkeydown: (event) => event.key === "Escape" && (event.stopPropagation(), close()) },
      h(
        "div.tmd-title",
        {},
        h("span.tmd-who", {}, this.mark, this.title, this.word),
        h("button.tmd-close", { type: "button", "aria-label": "Close", title: "Close (Esc)", onclick: close }, mark("refused")),
      ),
      h("div.tmd-question", {}, "Where did the time go?"),
      this.bar,
      this.legend,
      this.facts,
    );
  }

  update(store, id) {
    const flow = id === null ? null : store.flows.get(id);
    const appears = this.element.hidden && flow;
    this.element.hidden = !flow;
    if (!flow) return;
    setMark(this.mark, flow.kind);
    put(this.title, flow.target);
    const reason = flow.get("reason");
    put(this.word, [flow.kind, reason && reason !== flow.kind ? reason : ""].filter(Boolean).join(": "));
    this.time(flow);
    this.fact(facts(flow));
    if (appears) this.element.scrollIntoView({ block: "nearest" });
  }

  time(flow) {
    const parts = PARTS.map(([name, label, title]) => ({ name, label, title, seconds: flow.get(name) }));
    const known = parts.filter((part) => part.seconds > 0);
    const shares = widths(known);
    const text = known.map((part) => `${part.label} ${duration(part.seconds)}`).join(", ");
    attribute(this.bar, "aria-label", text || "not known");
    const wait = flow.get("wait");
    const bars = known.map((part, index) => segment(part, shares[index], wait));
    this.bar.replaceChildren(...(bars.length ? bars : [h("span.tmd-unknown", {}, "nothing measured yet")]));
    this.legend.replaceChildren(...parts.map((part) => legendItem(part, wait)));
  }

  fact(pairs) {
    const text = JSON.stringify(pairs);
    if (text === this.told) return; // a selection of text in it must survive
    this.told = text;
    this.facts.replaceChildren(...pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  }
}

/** Widths in percent: to scale, but a transfer that dwarfs everything gets LONGEST. */
function widths(parts) {
  const sum = parts.reduce((total, part) => total + part.seconds, 0);
  const last = parts.at(-1);
  if (last?.name !== "transfer" || parts.length === 1 || last.seconds / sum <= LONGEST) {
    return parts.map((part) => (part.seconds / sum) * 100);
  }
  last.broken = true;
  const rest = sum - last.seconds;
  return parts.map((part) => (part === last ? LONGEST : ((1 - LONGEST) * part.seconds) / rest) * 100);
}

function segment(part, width, wait) {
  const title = `${part.label}: ${duration(part.seconds)} – ${part.title}`;
  const label = width > 7 ? h("span", {}, part.label) : null;
  const element = h(`div.tmd-part.tmd-p-${part.name}`, { style: `width:${width}%`, title }, label);
  if (part.name === "first_byte" && wait > 0) {
    const share = Math.min(100, (wait / part.seconds) * 100);
    element.prepend(h("i.tmd-wait", { style: `width:${share}%`, title: `of which the service itself: ${duration(wait)}` }));
  }
  if (part.broken) element.classList.add("tmd-broken");
  return element;
}

function legendItem(part, wait) {
  const service = part.name === "first_byte" && wait >= 0 ? `service itself ${duration(wait)}` : "";
  const note = part.broken ? "not to scale" : service;
  return h(
    "div.tmd-item",
    { title: part.title },
    h(`i.tmd-swatch.tmd-p-${part.name}`),
    h("span", {}, part.label),
    h("b", {}, duration(part.seconds)),
    h("small", {}, note),
  );
}

function facts(flow) {
  const get = (name) => flow.get(name);
  const known = (number) => (number >= 0 ? String(number) : "");
  const process = [get("process"), get("pid") >= 0 ? `pid ${get("pid")}` : ""].filter(Boolean).join(", ");
  const cell = get("cell") >= 0 ? `[${get("cell")}]` : "";
  return [
    ["flow", `${get("flow")}, ${get("protocol")}`],
    ["from", `${get("src")}:${get("sport")}`],
    ["to", `${get("dst")}:${get("dport")}`],
    ["name asked for", get("name")],
    ["pod", [get("pod"), get("namespace")].filter(Boolean).join(" in ")],
    ["node", get("node")],
    ["process", process],
    ["user id", known(get("uid"))],
    ["cell", [cell, get("notebook")].filter(Boolean).join(" of ")],
    ["opened", clock(get("opened_at"))],
    ["closed", get("closed_at") > 0 ? clock(get("closed_at")) : ""],
    ["sent", `${bytes(get("bytes_up"))} in ${plural(get("packets_up"), "packet")}`],
    ["received", `${bytes(get("bytes_down"))} in ${plural(get("packets_down"), "packet")}`],
    ["state", get("state")],
    ["reason", get("reason")],
  ].filter(([, value]) => value);
}
