// Two charts over time, on canvas: latencies on a logarithmic axis, throughput with down above and up below.

// Seconds shown → seconds between labels; the smallest that holds what there is.
const WINDOWS = new Map([[60, 15], [120, 30], [300, 60], [600, 120], [900, 180]]);
const PIXELS = 2.5; // for one point of a line: more would be noise
const INSET = { left: 58, right: 10, top: 8, bottom: 20 };

/** What the charts share: a sharp canvas, the time axis, and the line under the pointer. */
class TimeChart {
  constructor(area, title, keys) {
    this.readout = h("span.tmd-readout");
    this.canvas = h("canvas", { role: "img", "aria-label": title });
    this.note = h("div.tmd-empty", {}, "Waiting for the first seconds");
    const legend = h("span.tmd-keys", {}, ...keys.map(([name, label]) => h(`span.tmd-key.tmd-${name}`, {}, label)));
    this.box = h("div.tmd-canvas", {}, this.canvas, this.note);
    this.element = panel(area, title, legend, this.readout, this.box);
    this.pointer = null;
    this.canvas.addEventListener("pointermove", (event) => {
      this.pointer = event.offsetX;
      this.draw();
    });
    this.canvas.addEventListener("pointerleave", () => {
      this.pointer = null;
      this.draw();
    });
  }

  /** Take what to draw; `colours` reads the theme. */
  update(store, colours, flows) {
    this.store = store;
    this.colours = colours;
    this.flows = flows;
    this.draw();
  }

  draw() {
    const { store } = this;
    if (!store || !this.box.clientWidth) return;
    const [width, height] = [this.box.clientWidth, this.box.clientHeight];
    const ratio = window.devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    this.note.hidden = store.series.length > 1;
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    if (store.series.length < 2) return;
    this.pen = pen;
    this.plot = {
      left: INSET.left,
      right: width - INSET.right,
      top: INSET.top,
      bottom: height - INSET.bottom,
    };
    const held = store.time - store.series[0][0];
    this.window = [...WINDOWS.keys()].find((seconds) => seconds * 1.03 >= held) ?? SERIES_KEPT;
    this.bins = binned(store.series, Math.ceil((this.window * PIXELS) / (this.plot.right - this.plot.left)));
    pen.font = `10.5px ${this.colours.family}`;
    this.timeAxis();
    this.paint();
    this.describe();
  }

  x(at) {
    const { left, right } = this.plot;
    return right - ((this.store.time - at) / this.window) * (right - left);
  }

  timeAxis() {
    const { pen, plot, colours, store } = this;
    pen.fillStyle = colours.soft;
    pen.textBaseline = "top";
    const step = WINDOWS.get(this.window) * (plot.right - plot.left < 260 ? 2 : 1);
    for (let ago = 0; ago <= this.window; ago += step) {
      pen.textAlign = ago === 0 ? "right" : "center";
      const text = this.window <= 120 ? `${ago} s` : `${ago / 60} min`;
      pen.fillText(ago ? `−${text}` : "now", this.x(store.time - ago), plot.bottom + 6);
    }
  }

  /** A horizontal line with its label at the left. */
  gridLine(y, label, strong = false, colour = this.colours.soft) {
    const { pen, plot, colours } = this;
    pen.strokeStyle = strong ? colours.axis : colours.grid;
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(plot.left, Math.round(y) + 0.5);
    pen.lineTo(plot.right, Math.round(y) + 0.5);
    pen.stroke();
    pen.fillStyle = colour;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    pen.fillText(label, plot.left - 8, y);
  }

  /** The point of the series under the pointer, with a line through it; else null. */
  pointed() {
    const { pen, plot, store } = this;
    if (this.pointer === null || this.pointer < plot.left || this.pointer > plot.right) return null;
    const at = store.time - ((plot.right - this.pointer) / (plot.right - plot.left)) * this.window;
    const found = store.series.reduce((best, one) => (Math.abs(one[0] - at) < Math.abs(best[0] - at) ? one : best));
    if (Math.abs(found[0] - at) > this.window / 20) return null;
    pen.strokeStyle = this.colours.axis;
    pen.beginPath();
    pen.moveTo(this.x(found[0]), plot.top);
    pen.lineTo(this.x(found[0]), plot.bottom);
    pen.stroke();
    return found;
  }
}

class LatencyChart extends TimeChart {
  constructor() {
    super("latency", "Latency", [
      ["rtt", "tunnel"],
      ["connect", "connect"],
      ["first", "first byte"],
    ]);
  }

  paint() {
    const { pen, plot, store, colours } = this;
    const since = store.time - this.window;
    const dots = this.flows.filter((flow) => flow.opened >= since);
    const seen = store.series.map((point) => point[1]).filter((rtt) => rtt > 0);
    const { connect, first_byte: first } = store.at;
    for (const { row } of dots) {
      if (row[connect] > 0) seen.push(row[connect]);
      if (row[first] > 0) seen.push(row[first]);
    }
    if (!seen.length) return;
    const [low, high] = decades(seen);
    const y = (value) => plot.bottom - (Math.log10(value / low) / Math.log10(high / low)) * (plot.bottom - plot.top);
    for (let tick = low; tick <= high * 1.001; tick *= 10) this.gridLine(y(tick), round(tick), tick === low);
    pen.save();
    pen.beginPath();
    pen.rect(plot.left, plot.top - 4, plot.right - plot.left + 4, plot.bottom - plot.top + 8);
    pen.clip();
    this.dots(dots, y);
    this.line(y);
    pen.restore();
    const found = this.pointed();
    put(this.readout, found ? `${clock(found[0])}  ${duration(found[1])}` : "");
  }

  /**
   * Connects are rings, first bytes are diamonds, so that they can be told apart without colour. Thousands of outlines
   * would take a picture's time to draw, so each is stamped, once where several would cover each other.
   */
  dots(flows, y) {
    const { pen, colours } = this;
    const size = flows.length > 1500 ? 1.6 : 2.2;
    const pictures = { connect: stamp(size, colours.connect, ring), first_byte: stamp(size, colours.first, diamond) };
    pen.globalAlpha = flows.length > 1500 ? 0.4 : flows.length > 400 ? 0.55 : 0.85;
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

  describe() {
    const rtts = this.store.series.map((point) => point[1]).filter((rtt) => rtt >= 0);
    const text = rtts.length ? `now ${duration(rtts.at(-1))}, at most ${duration(Math.max(...rtts))}` : "unknown";
    attribute(this.canvas, "aria-label", `Round trip of the tunnel over time: ${text}`);
  }
}

class ThroughputChart extends TimeChart {
  constructor() {
    super("throughput", "Throughput", [
      ["down", "from the cluster"],
      ["up", "to the cluster"],
    ]);
  }

  /** Down above the axis, up below it; where one dwarfs the other each has a scale of its own. */
  paint() {
    const { plot, colours, pen, bins } = this;
    const most = (name) => Math.max(1000, ...bins.map((bin) => bin[name]));
    const [down, up] = [most("down"), most("up")];
    const zero = plot.top + (plot.bottom - plot.top) * 0.64;
    const same = Math.max(down / up, up / down) < 4;
    const above = this.half("down", same ? Math.max(down, up / 0.56) : down, zero, plot.top);
    const below = this.half("up", same ? Math.max(down, up / 0.56) * 0.56 : up, zero, plot.bottom);
    this.gridLine(zero, "0", true);
    pen.save();
    pen.beginPath();
    pen.rect(plot.left, plot.top - 2, plot.right - plot.left, plot.bottom - plot.top + 4);
    pen.clip();
    this.area("down", zero, above, colours.down);
    this.area("up", zero, below, colours.up);
    pen.restore();
    const found = this.pointed();
    put(this.readout, found ? `${clock(found[0])}  ↓ ${bytes(found[3])}/s  ↑ ${bytes(found[2])}/s` : "");
  }

  /** Draw the lines of one half, from `zero` to `edge`, and return how a value becomes a place in it. */
  half(name, greatest, zero, edge) {
    const room = Math.abs(edge - zero);
    const step = niceStep(greatest / Math.max(1, Math.floor(room / 26)));
    const scale = (edge - zero) / (Math.max(greatest, step) * 1.1);
    for (let tick = step; tick <= Math.max(greatest, step) * 1.001; tick += step) {
      this.gridLine(zero + tick * scale, `${bytes(tick).replace(".0 ", " ")}/s`, false, this.colours[name]);
    }
    return (value) => zero + value * scale;
  }

  area(name, zero, y, colour) {
    const { pen, bins } = this;
    const outline = () => {
      pen.beginPath();
      bins.forEach((bin, index) => pen[index ? "lineTo" : "moveTo"](this.x(bin.at), y(bin[name])));
    };
    outline();
    pen.lineTo(this.x(bins.at(-1).at), zero);
    pen.lineTo(this.x(bins[0].at), zero);
    pen.closePath();
    pen.fillStyle = colour;
    pen.globalAlpha = 0.22;
    pen.fill();
    pen.globalAlpha = 1;
    outline();
    pen.strokeStyle = colour;
    pen.lineWidth = 1.4;
    pen.lineJoin = "round";
    pen.stroke();
  }

  describe() {
    const { up, down } = this.store.throughput();
    attribute(this.canvas, "aria-label", `Throughput over time: now ${bytes(down)}/s from the cluster, ${bytes(up)}/s to it`);
  }
}

const stamps = new Map();

/** A small picture of a mark, kept for the next time. */
function stamp(size, colour, outline) {
  const ratio = window.devicePixelRatio || 1;
  const key = `${outline.name} ${size} ${colour} ${ratio}`;
  let made = stamps.get(key);
  if (!made) {
    const half = size + 1.5;
    const canvas = h("canvas", { width: Math.ceil(2 * half * ratio), height: Math.ceil(2 * half * ratio) });
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
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

/** The series in bins of whole seconds: mean rates, the median and the greatest round trip (-1 if never known). */
function binned(series, seconds) {
  const bins = [];
  let points = [];
  series.forEach((point, index) => {
    points.push(point);
    const next = series[index + 1];
    if (next && Math.floor(next[0] / seconds) === Math.floor(point[0] / seconds)) return;
    const rtts = points.map((one) => one[1]).filter((rtt) => rtt > 0).sort((a, b) => a - b);
    const mean = (at) => points.reduce((sum, one) => sum + one[at], 0) / points.length;
    const rtt = rtts.length ? rtts[Math.floor(rtts.length / 2)] : -1;
    bins.push({ at: mean(0), rtt, most: rtts.at(-1) ?? -1, up: mean(2), down: mean(3) });
    points = [];
  });
  return bins;
}

/** The powers of ten round all values, at least one decade. */
function decades(values) {
  let [least, most] = [Infinity, 0];
  for (const value of values) {
    least = Math.min(least, value);
    most = Math.max(most, value);
  }
  const low = 10 ** Math.floor(Math.log10(Math.max(least, 1e-6)) + 1e-9);
  const high = 10 ** Math.ceil(Math.log10(most) - 1e-9);
  return [low, high > low * 1.5 ? high : low * 10];
}

/** 1, 2 or 5 times a power of ten, at least `least`. */
function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least);
}

/** A power of ten of a second. */
function round(seconds) {
  if (seconds < 0.9e-3) return `${Math.round(seconds * 1e6)} µs`;
  return seconds < 0.9 ? `${Math.round(seconds * 1e3)} ms` : `${Math.round(seconds)} s`;
}
