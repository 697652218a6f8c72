// What happened: reconnects, refusals, names that were not found. Newest first.

const EVENT_MARKS = {
  connected: "open",
  "tunnel up": "open",
  "tunnel down": "failed",
  refused: "refused",
  unreachable: "unreachable",
  "timed out": "timed out",
  reset: "reset",
  "DNS failed": "warning",
  "not yours": "warning",
  routes: "note",
};
const SHOWN_EVENTS = 100;

class Events {
  constructor() {
    this.sums = h("span.tmd-sums");
    this.list = h("ol.tmd-events", { tabindex: "0", "aria-label": "Events, newest first" });
    this.note = h("div.tmd-empty", {}, "Nothing to report: no reconnects, refusals or failed lookups");
    this.element = panel("log", "Events", this.sums, this.list, this.note);
    this.lines = new Map();
  }

  update({ events }) {
    this.note.hidden = events.size > 0;
    this.list.hidden = events.size === 0;
    const shown = [...events.values()].slice(-SHOWN_EVENTS);
    const wanted = new Set(shown.map((event) => event.number));
    for (const [number, line] of this.lines) {
      if (wanted.has(number)) continue;
      line.remove();
      this.lines.delete(number);
    }
    let older = null; // the line below; what is old may come late, with a snapshot
    for (const event of shown) {
      const line = this.line(event);
      if (line.parentNode === null || line.nextSibling !== older) this.list.insertBefore(line, older);
      older = line;
    }
    this.sum(events);
  }

  line(event) {
    let line = this.lines.get(event.number);
    if (!line) {
      const names = ["time", "kind", "subject", "what", "times"];
      line = h("li", {}, mark(EVENT_MARKS[event.kind] ?? "note"), ...names.map((name) => h(`span.tmd-${name}`)));
      this.lines.set(event.number, line);
    }
    const [, time, kind, subject, detail, times] = line.children;
    put(time, clock(event.at));
    put(kind, event.kind);
    put(subject, event.subject);
    put(detail, event.detail);
    put(times, event.count > 1 ? `× ${count(event.count)}` : "");
    attribute(line, "title", `${event.subject}: ${event.detail}`);
    return line;
  }

  /** How many of each kind that is bad news. */
  sum(events) {
    const sums = new Map();
    for (const event of events.values()) {
      if (["connected", "routes", "note", "tunnel up"].includes(event.kind)) continue;
      sums.set(event.kind, (sums.get(event.kind) ?? 0) + event.count);
    }
    const text = [...sums].map(([kind, number]) => `${kind} ${count(number)}`).join(" · ");
    put(this.sums, text);
  }
}
