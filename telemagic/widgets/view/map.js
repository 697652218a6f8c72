// The map: this notebook, the services it talks to, how much, and whether they answer.

const ROOMY = 6; // up to here each service has two lines; beyond, one line on either side
const SHOWN_SERVICES = 40;

class ServiceMap {
  /** `choose(target)` is called when a service is clicked. */
  constructor(choose) {
    this.choose = choose;
    this.edges = s("svg.tmd-edges", { "aria-hidden": "true" });
    this.hub = h("div.tmd-hub", {}, h("b", {}, "notebook"), h("small"));
    this.note = h("div.tmd-empty", {}, "No service has been talked to yet");
    this.more = h("span.tmd-readout");
    this.box = h("div.tmd-mapbox", {}, this.edges, this.hub, this.note);
    this.element = panel("map", "Map", this.more, this.box);
    this.nodes = new Map();
  }

  /** `filter` tells which service is chosen. */
  update(store, services, filter) {
    this.services = services;
    const shown = services.length <= SHOWN_SERVICES ? services : busiest(services, SHOWN_SERVICES);
    put(this.more, services.length > shown.length ? `the busiest ${shown.length} of ${services.length}` : "");
    this.note.hidden = services.length > 0;
    this.hub.hidden = services.length === 0;
    put(this.hub.lastChild, store.status.context ?? "");
    const wanted = new Set(shown.map((one) => one.target));
    for (const [target, node] of this.nodes) {
      if (wanted.has(target)) continue;
      node.remove();
      this.nodes.delete(target);
    }
    for (const one of shown) {
      this.node(one, shown.length <= ROOMY);
      attribute(this.nodes.get(one.target), "aria-pressed", String(filter === `service:${one.target}`));
    }
    this.arrange(shown);
  }

  node(one, roomy) {
    let node = this.nodes.get(one.target);
    if (!node) {
      const parts = { mark: mark("open"), name: h("span.tmd-name"), rate: h("small"), more: h("small.tmd-more"), health: h("small.tmd-health") };
      node = h(
        "button.tmd-node",
        { type: "button", onclick: () => this.choose(one.target) },
        parts.mark,
        parts.name,
        h("span.tmd-figures", {}, parts.rate, parts.more, parts.health),
      );
      node.parts = parts;
      node.edge = s("path.tmd-edge");
      node.pulse = s("path.tmd-pulse");
      this.edges.append(node.edge, node.pulse);
      this.box.append(node);
      const remove = node.remove.bind(node);
      node.remove = () => {
        node.edge.remove();
        node.pulse.remove();
        remove();
      };
      this.nodes.set(one.target, node);
    }
    const flow = [rate(one.down) && `↓ ${rate(one.down)}`, rate(one.up) && `↑ ${rate(one.up)}`].filter(Boolean);
    const health = one.failed ? `${percent(one.failed / one.flows)} failed` : "";
    const calm = one.open ? `${one.open} open` : plural(one.flows, "flow");
    setMark(node.parts.mark, healthMark(one));
    put(node.parts.name, roomy ? one.target : one.place);
    put(node.parts.rate, flow[0] ?? (roomy ? calm : ""));
    put(node.parts.more, roomy ? flow[1] ?? "" : "");
    put(node.parts.health, roomy || !health ? health : isTroubled(one) ? health.replace(" failed", "") : "");
    node.classList.toggle("tmd-sick", isSick(one));
    attribute(node, "title", `${one.target}\n${plural(one.flows, "flow")}, ${one.open} open${health ? `, ${health}` : ""}\nclick: only its flows`);
  }

  /** Place the nodes: one column, or two with the notebook between them when there are many. */
  arrange(shown) {
    const width = this.box.clientWidth;
    if (!width) return;
    const both = shown.length > ROOMY;
    const rows = both ? Math.ceil(shown.length / 2) : shown.length;
    const pitch = both ? 23 : Math.min(48, Math.max(42, 170 / Math.max(rows, 1)));
    const height = Math.max(172, rows * pitch);
    this.box.style.height = `${height}px`;
    attribute(this.edges, "viewBox", `0 0 ${width} ${height}`);
    const hub = { width: 84, x: both ? (width - 84) / 2 : 0, y: height / 2 };
    this.hub.style.transform = `translate(${hub.x}px, ${hub.y - 20}px)`;
    this.hub.style.width = `${hub.width}px`;
    const size = both ? Math.min(190, (width - hub.width) / 2 - 36) : Math.min(260, width - hub.width - 56);
    shown.forEach((one, index) => {
      const left = both && index % 2 === 1;
      const row = both ? Math.floor(index / 2) : index;
      const here = both ? (left ? Math.floor(shown.length / 2) : rows) : rows;
      const y = height / 2 + (row - (here - 1) / 2) * pitch;
      const node = this.nodes.get(one.target);
      node.classList.toggle("tmd-small", both);
      node.style.width = `${size}px`;
      node.parts.more.hidden = size < 225;
      node.parts.rate.hidden = both && size < 165; // the name first
      node.style.transform = `translate(${left ? 0 : width - size}px, ${y}px) translateY(-50%)`;
      const from = left ? hub.x : hub.x + hub.width;
      const to = left ? size : width - size;
      const middle = (from + to) / 2;
      const start = hub.y + ((y - hub.y) / height) * 26; // spread along the notebook's side
      const path = `M${from} ${start}C${middle} ${start} ${middle} ${y} ${to} ${y}`;
      attribute(node.edge, "d", path);
      attribute(node.pulse, "d", path);
      const traffic = one.up + one.down;
      // In halves of a pixel: most edges then stay as they are from one picture to the next.
      const thick = traffic < 1 ? 1 : Math.min(8, Math.round(3 + 2 * Math.log10(1 + traffic / 100)) / 2);
      attribute(node.edge, "stroke-width", String(thick));
      const tone = isSick(one) ? " tmd-sick" : traffic < 1 ? "" : one.down >= one.up ? " tmd-inward" : " tmd-outward";
      attribute(node.edge, "class", `tmd-edge${tone}`);
      attribute(node.pulse, "class", `tmd-pulse${traffic < 1 ? " tmd-idle" : tone}`);
    });
  }
}

function healthMark(one) {
  if (isSick(one)) return "failed";
  return isTroubled(one) ? "warning" : one.open ? "open" : "closed";
}

/** Whether more than a few of its flows failed. */
function isTroubled(one) {
  return one.failed > 0 && one.failed >= one.flows / 20;
}

/** Whether about all of them did. */
function isSick(one) {
  return one.failed > 0 && (one.failed >= one.flows / 2 || (one.open === 0 && one.failed >= one.flows / 4));
}

/** The services with the most traffic, then the most flows; in their usual order, so that nothing jumps. */
function busiest(services, number) {
  const weight = (one) => one.up + one.down + one.open * 10 + one.failed * 10 + one.flows / 1e6;
  const chosen = new Set([...services].sort((a, b) => weight(b) - weight(a)).slice(0, number));
  return services.filter((one) => chosen.has(one));
}
