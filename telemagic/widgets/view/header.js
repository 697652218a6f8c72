// Who we are connected to, how well, and whether what is shown is still true.

const WORDS = {
  waiting: ["dialing", "Waiting for data"],
  connecting: ["dialing", "Connecting to"],
  connected: ["open", "Connected to"],
  reconnecting: ["dialing", "Reconnecting to"],
  closed: ["closed", "Disconnected from"],
  lost: ["failed", "Helper lost:"],
  stale: ["timed out", "Stale:"],
};

class Banner {
  constructor() {
    this.name = h("b");
    this.element = h(
      "div.tmd-banner",
      { role: "note", hidden: "" },
      h("strong", {}, mark("warning"), "Production"),
      h("span", {}, "You are working on ", this.name, ". What your cells do here is real."),
    );
  }

  update(context, pattern) {
    put(this.name, context);
    attribute(this.element, "title", `the context's name matches ${pattern}`);
    this.element.hidden = !pattern;
  }
}

class Header {
  constructor() {
    this.mark = mark("dialing");
    this.word = h("span.tmd-word");
    this.context = h("b.tmd-context");
    this.namespace = h("span.tmd-tag", { title: "namespace" });
    this.way = h("span.tmd-way");
    this.news = h("div.tmd-news", { role: "status", hidden: "" });
    this.element = h(
      "header.tmd-header",
      {},
      h("div.tmd-who", {}, this.mark, this.word, this.context, this.namespace),
      this.way,
      this.news,
    );
  }

  /** `condition`: what the view knows better than the data: {state, text}, or null. */
  update(store, condition) {
    const { status } = store;
    const state = condition?.state ?? status.state ?? "waiting";
    const [kind, word] = WORDS[state] ?? ["note", state];
    setMark(this.mark, kind);
    put(this.word, word);
    put(this.context, status.context ?? "");
    put(this.namespace, status.namespace ?? "");
    this.namespace.hidden = !status.namespace;
    this.element.dataset.state = state;
    const version = status.manager_version ? ` ${status.manager_version}` : "";
    const way = status.via === "agentless" ? "agentless" : status.manager ? `via ${status.manager}${version}` : "";
    put(this.way, way);
    attribute(this.way, "title", `way in: ${status.via ?? ""}, ${status.carrier ?? ""}, at ${status.server ?? ""}`);
    const news = condition?.text || (state === "reconnecting" ? status.last_error : "") || "";
    put(this.news, news);
    this.news.hidden = !news;
  }
}

/** A number with its name, and a line for how it went. */
class Tile {
  constructor(name, title, kind) {
    this.value = h("b");
    this.unit = h("i");
    this.note = h("small");
    this.element = h(
      "div.tmd-tile",
      { title },
      h("span", {}, kind ? mark(kind) : null, name),
      h("div", {}, this.value, this.unit),
      this.note,
    );
  }

  update(text, note) {
    const cut = text.lastIndexOf(" ");
    put(this.value, cut < 0 ? text : text.slice(0, cut));
    put(this.unit, cut < 0 ? "" : text.slice(cut + 1));
    put(this.note, note);
  }
}

class Tiles {
  constructor() {
    this.rtt = new Tile("Round trip", "through the tunnel: this machine to the manager and back");
    this.up = new Tile("To the cluster", "bytes per second now, and in all", "up");
    this.down = new Tile("From the cluster", "bytes per second now, and in all", "down");
    this.open = new Tile("Open flows", "connections open now, and since connecting");
    this.failed = new Tile("Failed", "of the flows that are kept: refused, unreachable, timed out or reset");
    this.uptime = new Tile("Connected for", "time since connecting, and carriers under the tunnel");
    const all = [this.rtt, this.down, this.up, this.open, this.failed, this.uptime];
    this.element = h("div.tmd-tiles", {}, ...all.map((tile) => tile.element));
  }

  update(store, services) {
    const { status, series } = store;
    const { up, down } = store.throughput();
    const rtts = series.map((point) => point[1]).filter((rtt) => rtt >= 0);
    const median = rtts.sort((a, b) => a - b)[Math.floor(rtts.length / 2)];
    const failed = services.reduce((sum, one) => sum + one.failed, 0);
    const share = store.flows.size ? `${percent(failed / store.flows.size)} of ${count(store.flows.size)} kept` : "";
    this.rtt.update(duration(status.rtt), median === undefined ? "" : `median ${duration(median)}`);
    this.down.update(`${bytes(down)}/s`, `${bytes(status.bytes_down)} in all`);
    this.up.update(`${bytes(up)}/s`, `${bytes(status.bytes_up)} in all`);
    this.open.update(count(status.flows_open ?? 0), `${count(status.flows_total ?? 0)} in all`);
    this.failed.update(count(failed), share);
    this.failed.element.classList.toggle("tmd-alarm", failed > 0);
    const carriers = status.carriers === undefined ? "" : plural(status.carriers, "carrier");
    this.uptime.update(status.connected_at > 0 ? span(store.time - status.connected_at) : NONE, carriers);
  }
}

function percent(share) {
  const value = share * 100;
  return value === 0 ? "0 %" : value < 1 ? "< 1 %" : `${Math.round(value)} %`;
}
