// Puts the parts together, hears the kernel, and says so when it is heard no more.

const STALE_AFTER = 5; // seconds without news; the data plane tells at least its status every second
const ALIVE_EVERY = 20; // seconds between signs of life, without which the kernel stops sending

/** The theme's colours as canvas wants them: a probe element resolves variables and mixes. */
class Colours {
  constructor(root) {
    this.root = root;
    this.probes = ["back", "soft", "axis", "grid", "rtt", "connect", "first", "down", "up"].map((name) => [
      name,
      h("i", { style: `color:var(--tmd-${name});display:none` }),
    ]);
    root.append(...this.probes.map(([, probe]) => probe));
  }

  read() {
    const colours = { family: getComputedStyle(this.root).fontFamily };
    for (const [name, probe] of this.probes) colours[name] = getComputedStyle(probe).color;
    return colours;
  }
}

const texts = new WeakMap();

/** What a message says, read once for all views of it. */
function parsed(buffer) {
  if (!texts.has(buffer)) texts.set(buffer, JSON.parse(new TextDecoder().decode(buffer)));
  return texts.get(buffer);
}

/** Paints one part in each picture of the screen, of whatever view: with thousands of flows more would take too long. */
class Frames {
  constructor() {
    this.waiting = [];
    this.asked = false;
  }

  ask(part) {
    this.waiting.push(part);
    this.next();
  }

  next() {
    if (this.asked || !this.waiting.length) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      const part = this.waiting.shift();
      this.next(); // whatever becomes of this one
      part();
    });
  }
}

const frames = new Frames();

/** One view of the dashboard. */
class Board {
  constructor(model) {
    this.model = model;
    this.store = new Store(model.get("columns"), model.get("rows"));
    this.selected = null;
    this.heard = performance.now();
    const show = (target) => this.table.setFilter(target ? `service:${target}` : "");
    const only = (target) => show(this.table.box.value === `service:${target}` ? "" : target);
    this.banner = new Banner();
    this.header = new Header();
    this.tiles = new Tiles();
    this.chips = new Chips();
    this.latency = new LatencyChart(show);
    this.throughput = new ThroughputChart();
    this.map = new ServiceMap(only);
    this.services = new ServiceLatency(only);
    this.table = new FlowTable(model.get("height"), (id) => this.select(id), () => this.draw());
    this.detail = new Detail(() => this.table.choose(this.selected));
    this.events = new Events();
    const panels = [this.latency, this.throughput, this.map, this.services, this.table, this.detail, this.events];
    const parts = [this.banner, this.header, this.tiles, this.chips].map((part) => part.element);
    this.panels = h("div.tmd-panels", {}, ...panels.map((part) => part.element));
    this.root = h("div.tmd", { role: "region", "aria-label": "telemagic dashboard" }, ...parts, this.panels);
    this.element = h("div.tmd-frame", {}, this.root);
    this.colours = new Colours(this.root);
  }

  /** Listen, ask for a snapshot, and return what undoes it. */
  start() {
    const hear = (content, buffers) => this.hear(content, buffers);
    const redraw = () => this.draw();
    this.model.on("msg:custom", hear);
    this.model.on("change:over", redraw);
    const size = new ResizeObserver(() => {
      this.table.resize();
      this.draw();
    });
    size.observe(this.root);
    const theme = new MutationObserver(redraw);
    theme.observe(document.body, { attributes: true });
    theme.observe(document.documentElement, { attributes: true });
    const ticking = setInterval(() => this.tick(), 1000);
    this.say("ready");
    this.draw();
    return () => {
      this.model.off("msg:custom", hear);
      this.model.off("change:over", redraw);
      size.disconnect();
      theme.disconnect();
      clearInterval(ticking);
      this.gone = true;
      this.say("gone");
    };
  }

  /** Take a message; what it says a moment later, for all views hear it in one task of the browser. */
  hear(content, buffers) {
    if (content.kind !== "snapshot" && content.kind !== "change") return;
    this.heard = performance.now();
    setTimeout(() => {
      if (this.gone) return;
      this.store.apply(parsed(buffers[0]), content.kind === "snapshot");
      this.draw();
    });
  }

  say(kind) {
    this.told = performance.now();
    try {
      this.model.send({ kind });
    } catch {
      // The kernel has gone; silence is what the view goes by, here as elsewhere.
    }
  }

  tick() {
    if (!this.over && performance.now() - this.told > ALIVE_EVERY * 1000) this.say(this.stale ? "ready" : "alive");
    if (this.stale || this.shownStale) this.draw();
  }

  get over() {
    return this.model.get("over")?.state ? this.model.get("over") : null;
  }

  get stale() {
    return !this.over && performance.now() - this.heard > STALE_AFTER * 1000;
  }

  /** What is known here and not in the data: that it is over, or old. */
  condition() {
    if (this.over) return { state: this.over.state, text: this.over.reason };
    if (!this.stale) return null;
    if (!this.store.time) return { state: "stale", text: "no data from the kernel yet; it may be busy, or restarted" };
    const seconds = (performance.now() - this.heard) / 1000;
    const text = `since ${clock(this.store.time)}, ${span(seconds)} ago: the kernel tells nothing; it may have been restarted`;
    return { state: "stale", text };
  }

  select(id) {
    this.selected = id;
    this.draw();
  }

  /** Draw soon, and not at all in a hidden tab; what comes meanwhile is drawn after that. */
  draw() {
    this.due = true;
    if (this.drawing || this.gone) return;
    this.drawing = true;
    frames.ask(() => {
      this.due = false;
      this.paint("paintWords");
    });
    for (const part of ["paintFlows", "paintCharts", "paintMap"]) frames.ask(() => this.paint(part));
    frames.ask(() => {
      this.drawing = false;
      this.paint("paintServices");
      if (this.due) this.draw();
    });
  }

  paint(part) {
    if (!this.gone) this[part]();
  }

  paintWords() {
    const { store } = this;
    const condition = this.condition();
    this.shownStale = condition?.state === "stale";
    this.root.classList.toggle("tmd-old", condition !== null);
    this.all = store.services();
    this.banner.update(store.status.context ?? "", this.model.get("production"));
    this.header.update(store, condition);
    this.tiles.update(store, this.all);
    this.chips.update(store);
  }

  paintFlows() {
    this.table.update(this.store);
    this.detail.update(this.store, this.selected);
  }

  paintCharts() {
    const colours = this.colours.read();
    this.latency.update(this.store, colours, this.all, this.table);
    this.throughput.update(this.store, colours);
  }

  paintMap() {
    this.panels.classList.toggle("tmd-crowd", this.all.length > ROOMY);
    this.map.update(this.store, this.all, this.table.box.value);
  }

  paintServices() {
    this.services.update(this.store, this.table.box.value);
    this.events.update(this.store);
  }
}

function render({ model, el }) {
  const board = new Board(model);
  el.append(board.element);
  return board.start();
}

export default { render };
