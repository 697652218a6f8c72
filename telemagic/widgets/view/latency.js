// The latency chart: the tunnel's round trip, each flow as two dots, and their percentiles over time.

const MEASURES = [
  ["connect", "connect", ring],
  ["first", "first byte", diamond],
];
const MARKED = 46; // pixels between two marks on a line
const PICKED = 200; // services to choose from

class LatencyChart extends TimeChart {
  /** `choose(target)` is called with the service to show, or "" for all. */
  constructor(choose) {
    super("latency", "Latency", [
      ["rtt", "tunnel"],
      ["connect", "connect"],
      ["first", "first byte"],
      ["p99", "p50, dashed p99"],
    ]);
    this.pick = new ServicePick(choose);
    this.element.querySelector(".tmd-title").firstChild.after(this.pick.element);
  }

  /** Take what to draw: as TimeChart, and `table` for the flows that it shows and what it is filtered by. */
  update(store, colours, services, table) {
    this.flows = table.view;
    this.samples = table.samples();
    this.pick.update(services, table.box.value);
    super.update(store, colours);
  }

  paint() {
    const { plot, store } = this;
    const seconds = this.window / BINS;
    this.since = Math.floor((store.time - this.window) / seconds) * seconds;
    this.percentiles = percentiles(this.samples, this.since, seconds);
    const dots = this.flows.filter((flow) => flow.opened >= this.since);
    const values = this.values(dots);
    if (!values.length) return;
    const [low, high] = extent(values);
    const y = (value) => plot.bottom - (Math.log10(Math.max(value, low) / low) / Math.log10(high / low)) * (plot.bottom - plot.top);
    this.gridLine(plot.bottom, "", true);
    for (const tick of ticks(low, high)) this.gridLine(y(tick), round(tick), tick === low);
    this.clipped(() => {
      this.dots(dots, y);
      for (const [name] of MEASURES) this.band(name, y);
      this.line(y);
      for (const [name, , outline] of MEASURES) this.median(name, outline, y);
    });
  }

  /** All that must find a place. */
  values(dots) {
    const { connect, first_byte: first } = this.store.at;
    const seen = this.store.series.map((point) => point[1]);
    for (const { row } of dots) seen.push(row[connect], row[first]);
    for (const bin of this.percentiles) {
      for (const [name] of MEASURES) if (bin[name]) seen.push(bin[name].p50, bin[name].p99);
    }
    return seen.filter((value) => value > 0);
  }

  clipped(draw) {
    const { pen, plot } = this;
    pen.save();
    pen.beginPath();
    pen.rect(plot.left, plot.top - 4, plot.right - plot.left + 4, plot.bottom - plot.top + 8);
    pen.clip();
    draw();
    pen.restore();
  }

  /**
   * Each flow by itself. Connects are rings, first bytes are diamonds, so that they can be told apart without colour. Thousands of outlines
   * would take a picture's time to draw, so each is stamped, once where several would cover each other.
   */
  dots(flows, y) {
    const { pen, colours } = this;
    const size = flows.length > 1500 ? 1.2 : flows.length > 150 ? 1.5 : 2;
    const pictures = { connect: stamp(size, colours.connect, ring), first_byte: stamp(size, colours.first, diamond) };
    pen.globalAlpha = flows.length > 1500 ? 0.22 : flows.length > 150 ? 0.35 : 0.6; // the lines come first
    const grain = flows.length > 400 ? 2 : 1; // pixels
    for (const [name, picture] of Object.entries(pictures)) {
      const at = this.store.at[name];
      const taken = new Set();
      for (const flow of flows) {
        const value = flow.row[at];
        if (!(value > 0)) continue;
        const px = Math.round(this.x(flow.opened) / grain);
        const py = Math.round(y(value) / grain);
        const place = px * 4096 + py;
        if (taken.has(place)) continue;
        taken.add(place);
        pen.drawImage(picture.canvas, px * grain - picture.half, py * grain - picture.half, 2 * picture.half, 2 * picture.half);
      }
    }
    pen.globalAlpha = 1;
  }

  /** From the median to the 99th percentile: a shade, dashed where it ends. */
  band(name, y) {
    const { pen, colours } = this;
    pen.fillStyle = pen.strokeStyle = colours[name];
    for (const run of runs(this.percentiles, name)) {
      const points = this.outline(run);
      pen.beginPath();
      points.forEach(([x, bin], index) => pen[index ? "lineTo" : "moveTo"](x, y(bin[name].p99)));
      pen.globalAlpha = 0.75;
      pen.lineWidth = 1.2;
      pen.setLineDash([3, 3]);
      pen.stroke();
      pen.setLineDash([]);
      for (const [x, bin] of points.reverse()) pen.lineTo(x, y(bin[name].p50));
      pen.closePath();
      pen.globalAlpha = 0.13;
      pen.fill();
    }
    pen.globalAlpha = 1;
  }

  /** The median, with its mark here and there, on a margin that keeps it apart from what is behind. */
  median(name, outline, y) {
    const { pen, colours } = this;
    const picture = stamp(2.6, colours[name], outline, colours.back);
    pen.lineJoin = "round";
    for (const run of runs(this.percentiles, name)) {
      const points = this.outline(run);
      pen.beginPath();
      points.forEach(([x, bin], index) => pen[index ? "lineTo" : "moveTo"](x, y(bin[name].p50)));
      for (const [colour, width] of [[colours.back, 4], [colours[name], 1.8]]) {
        pen.strokeStyle = colour;
        pen.lineWidth = width;
        pen.stroke();
      }
      let last = -Infinity;
      for (const bin of run) {
        const x = this.x(bin.at);
        if (x - last < MARKED) continue;
        last = x;
        pen.drawImage(picture.canvas, x - picture.half, y(bin[name].p50) - picture.half, 2 * picture.half, 2 * picture.half);
      }
    }
  }

  /** Where a run's line goes: from middle to middle; as wide as its bin if it is alone. */
  outline(run) {
    if (run.length > 1) return run.map((bin) => [this.x(bin.at), bin]);
    const [bin] = run;
    return [-0.4, 0.4].map((part) => [this.x(bin.at + part * bin.seconds), bin]);
  }

  /** The tunnel's round trip, its median with the greatest as a shade; broken where it was not known. */
  line(y) {
    const { pen, bins, colours } = this;
    pen.strokeStyle = colours.rtt;
    pen.lineWidth = PIXELS * 0.9;
    pen.globalAlpha = 0.3;
    pen.beginPath();
    for (const bin of bins) {
      if (!(bin.rtt > 0)) continue;
      pen.moveTo(this.x(bin.at), y(bin.rtt));
      pen.lineTo(this.x(bin.at), y(bin.most));
    }
    pen.stroke();
    pen.globalAlpha = 1;
    pen.lineWidth = 1.6;
    pen.lineJoin = "round";
    pen.beginPath();
    let drawing = false;
    for (const bin of bins) {
      if (bin.rtt > 0) pen[drawing ? "lineTo" : "moveTo"](this.x(bin.at), y(bin.rtt));
      drawing = bin.rtt > 0;
    }
    pen.stroke();
  }

  /** The numbers under the pointer. */
  told() {
    const point = this.pointed();
    const at = this.pointedAt();
    const bin = at === null ? null : nearest(this.percentiles, at);
    if (!point && !bin) return [];
    const flows = bin ? `  ${plural(bin.flows, "flow")}` : "";
    const lines = [[clock(bin ? bin.at : point[0]) + flows, bin ? "p50" : "", bin ? "p99" : ""]];
    if (point) lines.push(["tunnel", duration(point[1]), ""]);
    for (const [name, label] of MEASURES) if (bin?.[name]) lines.push([label, duration(bin[name].p50), duration(bin[name].p99)]);
    return lines;
  }

  name() {
    const rtts = this.store.series.map((point) => point[1]).filter((rtt) => rtt >= 0);
    const tunnel = rtts.length ? `now ${duration(rtts.at(-1))}, at most ${duration(Math.max(...rtts))}` : "unknown";
    const last = this.percentiles?.at(-1);
    const both = (of) => (of ? `p50 ${duration(of.p50)}, p99 ${duration(of.p99)}` : "unknown");
    const flows = last ? `; newest flows: connect ${both(last.connect)}; first byte ${both(last.first)}` : "";
    return `Latency over time of ${this.pick.label}: round trip of the tunnel ${tunnel}${flows}`;
  }
}

/** The bin to tell of at a time: its own, or one beside it, as far as lines go over empty ones. */
function nearest(bins, at) {
  const far = (bin) => Math.abs(bin.at - at) / bin.seconds;
  const found = bins.reduce((best, bin) => (best && far(best) <= far(bin) ? best : bin), null);
  return found && far(found) <= 2 ? found : null;
}

const NICE = [1, 2, 5, 10];

/** The times of 1, 2 or 5 round all values, at least half a decade. */
function extent(values) {
  const least = values.reduce((a, b) => Math.min(a, b));
  const most = values.reduce((a, b) => Math.max(a, b));
  const [lower, upper] = [least, most].map((value) => 10 ** Math.floor(Math.log10(value) + 1e-9));
  const low = lower * NICE.findLast((factor) => factor * lower <= least * 1.0001);
  const high = upper * NICE.find((factor) => factor * upper >= most * 0.9999);
  return [low, Math.max(high, low * 5)];
}

/** Powers of ten, or more where there would be few. */
function ticks(low, high) {
  const factors = high / low > 120 ? [1] : [1, 2, 5];
  const found = [];
  for (let power = 10 ** Math.floor(Math.log10(low) + 1e-9); power <= high * 1.001; power *= 10) {
    found.push(...factors.map((factor) => factor * power).filter((tick) => tick >= low * 0.999 && tick <= high * 1.001));
  }
  return found;
}

/** Chooses the service whose latencies are drawn: all, one, or what the filter of the flows leaves. */
class ServicePick {
  constructor(choose) {
    this.filtered = h("option", { value: "*", hidden: "" }, "as filtered");
    this.element = h(
      "select.tmd-pick",
      {
        "aria-label": "Latency of",
        title: "whose latencies; the same as the filter service:… of the flows",
        onchange: () => choose(this.element.value),
        onkeydown: (event) => event.stopPropagation(), // a notebook's shortcuts must not hear it
      },
      h("option", { value: "" }, "all services"),
      this.filtered,
    );
    this.shown = new Set();
  }

  get label() {
    return this.element.selectedOptions[0].textContent;
  }

  update(services, filter) {
    for (const { target } of services) {
      if (this.shown.has(target) || this.shown.size >= PICKED) continue;
      this.shown.add(target);
      this.element.append(h("option", { value: target }, target));
    }
    const target = filter.replace(/^service:/, "");
    const value = !filter.trim() ? "" : this.shown.has(target) ? target : "*";
    this.filtered.hidden = value !== "*";
    if (this.element.value !== value) this.element.value = value;
  }
}

const stamps = new Map();

/** A small picture of a mark, kept for the next time; on a disc if it is to be kept apart from what is behind. */
function stamp(size, colour, outline, disc = "") {
  const ratio = window.devicePixelRatio || 1;
  const key = `${outline.name} ${size} ${colour} ${disc} ${ratio}`;
  let made = stamps.get(key);
  if (!made) {
    const half = size + 2;
    const canvas = h("canvas", { width: Math.ceil(2 * half * ratio), height: Math.ceil(2 * half * ratio) });
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    if (disc) {
      pen.fillStyle = disc;
      pen.arc(half, half, half, 0, 2 * Math.PI);
      pen.fill();
    }
    pen.fillStyle = pen.strokeStyle = colour;
    pen.beginPath();
    outline(pen, half, size);
    made = { canvas, half };
    if (stamps.size > 50) stamps.clear(); // themes come and go
    stamps.set(key, made);
  }
  return made;
}

function ring(pen, middle, size) {
  pen.lineWidth = 1.2;
  pen.arc(middle, middle, size, 0, 2 * Math.PI);
  pen.stroke();
}

function diamond(pen, middle, size) {
  const reach = size * 1.3;
  pen.moveTo(middle, middle - reach);
  pen.lineTo(middle + reach, middle);
  pen.lineTo(middle, middle + reach);
  pen.lineTo(middle - reach, middle);
  pen.fill();
}

