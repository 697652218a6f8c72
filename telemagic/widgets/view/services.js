// Latency by service: from the median to the 99th percentile of connect and first byte, on one logarithmic scale, and
// how the median went.

const TUNNEL = "tunnel"; // the row of the tunnel itself, whose "connects" are its round trips
const TREND = { width: 64, height: 18, bins: 20 }; // pixels; points of a trend
const CALM = 4; // a trend fills its height only if its greatest is so many times its least, or else noise looks like news

class ServiceLatency {
  constructor(choose) {
    this.choose = choose;
    this.axis = h("div.tmd-strip.tmd-axis", { "aria-hidden": "true" });
    this.body = h("div.tmd-lines", { role: "list" });
    this.note = h("div.tmd-empty", {}, "Appears with the first answered flow");
    const keys = h(
      "span.tmd-keys",
      {},
      h("span.tmd-key.tmd-connect", {}, "connect"),
      h("span.tmd-key.tmd-first", {}, "first byte"),
      h("span.tmd-key", {}, "p50 to p99, trend of p50"),
    );
    this.element = panel("services", "Services", keys, this.body, this.note);
    this.lines = new Map();
  }

  /** `filter` tells which service is chosen. */
  update(store, filter) {
    const { latency } = store;
    const rows = latency.filter((row) => row.connect_p50 > 0 || row.first_byte_p50 > 0 || row.failed > 0);
    this.note.hidden = rows.length > 0;
    this.body.hidden = rows.length === 0;
    const values = rows.flatMap((row) => [row.connect_p50, row.connect_p99, row.first_byte_p50, row.first_byte_p99]);
    const [low, high] = decades(values.filter((value) => value > 0).concat(values.some((v) => v > 0) ? [] : [0.001]));
    const place = (value) => (Math.log10(value / low) / Math.log10(high / low)) * 100;
    const wanted = new Set(rows.map((row) => row.service));
    for (const [service, line] of this.lines) {
      if (wanted.has(service)) continue;
      line.element.remove();
      this.lines.delete(service);
    }
    const trends = trendsOf(store);
    for (const row of rows) this.line(row).update(row, place, trends.get(row.service) ?? [], filter === `service:${row.service}`);
    this.scale(low, high, place);
  }

  line(row) {
    let line = this.lines.get(row.service);
    if (!line) {
      line = new LatencyLine(row.service, this.choose);
      this.lines.set(row.service, line);
      this.body.append(line.element);
    }
    return line;
  }

  scale(low, high, place) {
    const ticks = [];
    for (let tick = low; tick <= high * 1.001; tick *= 10) ticks.push(tick);
    const text = ticks.join();
    if (text === this.ticks) return;
    this.ticks = text;
    this.axis.replaceChildren(...ticks.map((tick) => h("i", { style: `left:${place(tick)}%` }, round(tick))));
    this.body.prepend(h("div.tmd-scale", {}, this.axis));
    this.body.querySelectorAll(".tmd-scale ~ .tmd-scale").forEach((old) => old.remove());
  }
}

class LatencyLine {
  constructor(service, choose) {
    this.mark = mark("open");
    this.name = h("span.tmd-name", {}, service);
    this.connect = h("i.tmd-range.tmd-connect");
    this.first = h("i.tmd-range.tmd-first");
    this.numbers = h("span.tmd-numbers");
    const tunnel = service === TUNNEL;
    this.who = h(tunnel ? "span.tmd-who" : "button.tmd-who", tunnel ? {} : { type: "button", title: `${service}\nclick: only its flows`, onclick: () => choose(service) }, this.mark, this.name);
    this.trend = s("path");
    const trend = s("svg.tmd-trend", { viewBox: `0 0 ${TREND.width} ${TREND.height}`, "aria-hidden": "true" }, this.trend);
    this.element = h("div.tmd-line", { role: "listitem" }, this.who, trend, this.numbers, h("div.tmd-strip", {}, this.connect, this.first));
  }

  /** `trend`: pairs of a share of the time shown and a median, oldest first. */
  update(row, place, trend, chosen) {
    if (row.service !== TUNNEL) attribute(this.who, "aria-pressed", String(chosen));
    this.element.classList.toggle("tmd-chosen", chosen);
    attribute(this.trend, "d", trendPath(trend));
    attribute(this.trend, "class", row.first_byte_p50 > 0 ? "tmd-first" : row.service === TUNNEL ? "tmd-rtt" : "tmd-connect");
    setMark(this.mark, row.service === TUNNEL ? "open" : healthMark({ ...row, open: 1 }));
    range(this.connect, row.connect_p50, row.connect_p99, place);
    range(this.first, row.first_byte_p50, row.first_byte_p99, place);
    const failed = row.failed ? `${count(row.failed)} failed` : "";
    const best = row.first_byte_p50 > 0 ? [row.first_byte_p50, row.first_byte_p99] : [row.connect_p50, row.connect_p99];
    const numbers = [...new Set(best.map(duration))].join(" – "); // of a single flow both are the same
    put(this.numbers, best[0] > 0 ? numbers : failed);
    this.element.classList.toggle("tmd-mute", !(best[0] > 0));
    const told = [
      `connect: median ${duration(row.connect_p50)}, p99 ${duration(row.connect_p99)}`,
      `first byte: median ${duration(row.first_byte_p50)}, p99 ${duration(row.first_byte_p99)}`,
      `of which the service itself: median ${duration(row.wait_p50)}, p99 ${duration(row.wait_p99)}`,
      `${plural(row.flows, "flow")}${failed && `, ${failed}`}`,
    ];
    attribute(this.element, "title", told.join("\n"));
  }
}

function range(element, from, to, place) {
  element.hidden = !(from > 0);
  if (element.hidden) return;
  element.style.left = `${place(from).toFixed(2)}%`;
  element.style.width = `${Math.max(0, place(Math.max(to, from)) - place(from)).toFixed(2)}%`;
}

/** For each service the medians of first byte, else connect, over the time that is known; of the tunnel its round trips. */
function trendsOf({ samples, series, time }) {
  const held = Math.min(SERIES_KEPT, Math.max(60, time - (series[0]?.[0] ?? time)));
  const seconds = held / TREND.bins;
  const since = time - held;
  const place = (at) => Math.min(1, Math.max(0, (at - since) / held));
  const trends = new Map();
  for (const [target, mine] of samples.byTarget()) {
    const name = mine.some((sample) => sample.first >= 0) ? "first" : "connect";
    const bins = percentiles(mine, since, seconds).filter((bin) => bin[name]);
    trends.set(target, bins.map((bin) => [place(bin.at), bin[name].p50]));
  }
  const trips = series.filter((point) => point[1] > 0).map((point) => ({ opened: point[0], connect: point[1], first: -1 }));
  trends.set(TUNNEL, percentiles(trips, since, seconds).map((bin) => [place(bin.at), bin.connect.p50]));
  return trends;
}

/** A line on a logarithmic scale of its own; nothing for a single point. */
function trendPath(points) {
  const known = points.filter(([, value]) => value > 0);
  if (known.length < 2) return "";
  const logs = known.map(([, value]) => Math.log10(value));
  const [least, most] = [Math.min(...logs), Math.max(...logs)];
  const range = Math.max(most - least, Math.log10(CALM));
  const low = (least + most - range) / 2;
  const { width, height } = TREND;
  const steps = known.map(([share], index) => `${(share * (width - 2) + 1).toFixed(1)} ${(height - 2 - ((logs[index] - low) / range) * (height - 4)).toFixed(1)}`);
  return `M${steps.join("L")}`;
}
