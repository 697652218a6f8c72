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
      cancelAnimationFrame(this.frame);
      this.gone = true;
      this.say("gone");
    };
  }

  hear(content, buffers) {
    if (content.kind !== "snapshot" && content.kind !== "change") return;
    const data = JSON.parse(new TextDecoder().decode(buffers[0]));
    this.store.apply(data, content.kind === "snapshot");
    this.heard = performance.now();
    this.draw();
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

  /** Draw soon: at most once for each picture of the screen, and not at all in a hidden tab. */
  draw() {
    this.due = true;
    if (!this.frame && !this.gone) this.schedule([() => this.paintWords(), () => this.paintCharts(), () => this.paintServices()]);
  }

  /** One part in each picture of the screen: with thousands of flows all of them at once would take too long for one. */
  schedule([part, ...others]) {
    if (others.length === 2) this.due = false;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      part();
      if (others.length) this.schedule(others);
      else if (this.due) this.draw();
    });
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
    this.table.update(store);
    this.detail.update(store, this.selected);
  }

  paintCharts() {
    const colours = this.colours.read();
    this.latency.update(this.store, colours, this.all, this.table);
    this.throughput.update(this.store, colours);
  }

  paintServices() {
    this.panels.classList.toggle("tmd-crowd", this.all.length > ROOMY);
    const filter = this.table.box.value;
    this.map.update(this.store, this.all, filter);
    this.services.update(this.store, filter);
    this.events.update(this.store);
  }
}

function render({ model, el }) {
  const board = new Board(model);
  el.append(board.element);
  return board.start();
}

export default { render };
