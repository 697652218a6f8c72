// What is known: snapshots and changes become flows with rates, services, series and events. No DOM here.

const SERIES_KEPT = 900; // seconds: the charts' fifteen minutes
const EVENTS_KEPT = 500;
const FAILED = new Set(["refused", "unreachable", "timed out", "reset", "failed"]);
const FINE = new Set(["", "closed", "idle", "replaced"]);

/** The word for a flow's state: TCP has eleven, people need four, and to know why one failed. As in farewell.py. */
function kindOf(state, reason, connected) {
  if (state === "DIALING" || state === "SYN_RECEIVED") return "dialing";
  if (state === "ESTABLISHED" || state === "OPEN") return "open";
  if (state !== "CLOSED") return "closing";
  if (FINE.has(reason)) return "closed";
  if (/refused/i.test(reason)) return "refused";
  if (/unreach|no route/i.test(reason)) return "unreachable";
  if (/timed? ?out|no answer|not answer/i.test(reason)) return "timed out";
  if (/reset/i.test(reason)) return "reset";
  return connected ? "closed" : "failed";
}

/** One flow: its latest row, what it is for people, and how fast it is. */
class Flow {
  constructor(store, row) {
    this.store = store;
    this.up = this.down = 0; // bytes per second
    this.row = row;
    this.describe();
  }

  get(name) {
    return this.row[this.store.at[name]];
  }

  update(row, seconds) {
    const { bytes_up: up, bytes_down: down } = this.store.at;
    if (seconds > 0) {
      // Half old, half new: steady to the eye, and right within a second.
      this.up = (this.up + Math.max(0, row[up] - this.row[up]) / seconds) / 2;
      this.down = (this.down + Math.max(0, row[down] - this.row[down]) / seconds) / 2;
    }
    this.row = row;
    this.describe();
  }

  describe() {
    this.id = this.get("flow");
    this.opened = this.get("opened_at");
    this.kind = kindOf(this.get("state"), this.get("reason"), this.get("connect") >= 0);
    this.place = this.get("service") || this.get("name") || this.get("dst");
    this.target = `${this.place.includes(":") ? `[${this.place}]` : this.place}:${this.get("dport")}`;
    this.words = null; // for the filter, made when first wanted
  }

  /** Everything one might look for, in lower case. */
  get haystack() {
    this.words ??= [
      ...["protocol", "src", "sport", "dst", "dport", "name", "state", "reason", "service", "namespace", "pod"],
      ...["node", "process", "notebook"],
    ].map((name) => this.get(name)).concat(this.kind, this.target, `cell ${this.get("cell")}`).join(" ").toLowerCase();
    return this.words;
  }

  slow() {
    this.up = this.up > 50 ? this.up / 2 : 0;
    this.down = this.down > 50 ? this.down / 2 : 0;
  }
}

class Store {
  /** `columns`: names by table, as the rows have them; `limit`: how many flows to keep. */
  constructor(columns, limit) {
    this.columns = columns;
    this.at = Object.fromEntries(columns.flows.map((name, index) => [name, index]));
    this.limit = limit;
    this.flows = new Map();
    this.samples = new Samples();
    this.moving = new Set();
    this.status = {};
    this.cidrs = [];
    this.routes = [];
    this.latency = [];
    this.series = [];
    this.events = new Map();
    this.time = 0; // Unix seconds of what is known
    this.whole = false; // whether a snapshot has come
  }

  /** Take one text of the data plane. */
  apply(data, isSnapshot) {
    const seconds = this.time && !isSnapshot ? data.at - this.time : 0;
    if (isSnapshot) this.restart();
    this.time = data.at;
    this.status = data.status ?? this.status;
    for (const name of ["cidrs", "routes", "latency"]) {
      if (data[name]) this[name] = data[name].map((row) => this.named(name, row));
    }
    this.applyFlows(data, seconds);
    for (const point of data.series ?? []) {
      if (!this.series.length || point[0] > this.series.at(-1)[0]) this.series.push(point);
    }
    this.series.splice(0, this.series.length - SERIES_KEPT);
    for (const row of data.events ?? []) {
      const event = this.named("events", row);
      this.events.set(event.number, event);
    }
    while (this.events.size > EVENTS_KEPT) this.events.delete(this.events.keys().next().value);
  }

  restart() {
    this.whole = true;
    this.before = this.flows; // a second view asked: rates go on
    this.flows = new Map();
    this.series = [];
    this.events = new Map();
  }

  applyFlows(data, seconds) {
    const touched = new Set();
    for (const row of data.flows ?? []) {
      const id = row[this.at.flow];
      const known = this.flows.get(id) ?? this.before?.get(id);
      if (known) known.update(row, seconds);
      const flow = known ?? new Flow(this, row);
      this.flows.set(id, flow);
      this.samples.take(flow);
      if (!known && seconds > 0) {
        flow.up = row[this.at.bytes_up] / seconds;
        flow.down = row[this.at.bytes_down] / seconds;
      }
      if (flow.up || flow.down) {
        touched.add(flow);
        this.moving.add(flow);
      }
    }
    this.before = null;
    this.samples.prune(this.time);
    for (const flow of this.moving) {
      if (touched.has(flow)) continue;
      flow.slow();
      if (!flow.up && !flow.down) this.moving.delete(flow);
    }
    for (const id of data.gone ?? []) this.forget(id);
    for (const id of this.flows.keys()) {
      if (this.flows.size <= this.limit) break;
      this.forget(id); // the oldest
    }
  }

  forget(id) {
    this.moving.delete(this.flows.get(id));
    this.flows.delete(id);
  }

  named(table, row) {
    return Object.fromEntries(this.columns[table].map((name, index) => [name, row[index]]));
  }

  /** Bytes per second, up and down: what the last two whole seconds had. */
  throughput() {
    const last = this.series.slice(-2);
    const mean = (index) => last.reduce((sum, point) => sum + point[index], 0) / (last.length || 1);
    return { up: mean(2), down: mean(3) };
  }

  /** Services by target, in the order they were first talked to. */
  services() {
    const found = new Map();
    for (const flow of this.flows.values()) {
      let one = found.get(flow.target);
      if (!one) {
        one = { target: flow.target, place: flow.place, flows: 0, open: 0, failed: 0, up: 0, down: 0 };
        found.set(flow.target, one);
      }
      one.flows += 1;
      if (flow.kind === "open" || flow.kind === "dialing") one.open += 1;
      if (FAILED.has(flow.kind)) one.failed += 1;
      one.up += flow.up;
      one.down += flow.down;
    }
    return [...found.values()];
  }
}
