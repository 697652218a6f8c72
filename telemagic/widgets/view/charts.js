// Charts over time, on canvas: what they share, and throughput with down above and up below.

// Seconds shown → seconds between labels; the smallest that holds what there is.
const WINDOWS = new Map([[60, 15], [120, 30], [300, 60], [600, 120], [900, 180]]);
const PIXELS = 2.5; // for one point of a line: more would be noise
const INSET = { left: 58, right: 10, top: 8, bottom: 20 };

/** What the charts share: a sharp canvas, the time axis, and the numbers under the pointer, which arrow keys move, too. */
class TimeChart {
  constructor(area, title, keys) {
    this.readout = h("div.tmd-readout", { hidden: "" });
    this.canvas = h("canvas", { role: "img", tabindex: "0", "aria-label": title, onkeydown: (event) => this.key(event) });
    this.note = h("div.tmd-empty", {}, "Waiting for the first seconds");
    const legend = h("span.tmd-keys", {}, ...keys.map(([name, label]) => h(`span.tmd-key.tmd-${name}`, {}, label)));
    this.box = h("div.tmd-canvas", {}, this.canvas, this.readout, this.note);
    this.element = panel(area, title, legend, this.box);
    this.pointer = null; // pixels from the left
    this.canvas.addEventListener("pointermove", (event) => this.point(event.offsetX));
    for (const event of ["pointerleave", "blur"]) this.canvas.addEventListener(event, () => this.point(null));
  }

  /** Take what to draw; `colours` reads the theme. */
  update(store, colours) {
    this.store = store;
    this.colours = colours;
    this.draw();
  }

  point(x) {
    if (x === this.pointer) return;
    this.pointer = x;
    this.draw();
  }

  key(event) {
    const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    if (!this.plot || !(event.key in moves || (event.key === "Escape" && this.pointer !== null))) return;
    event.preventDefault();
    event.stopPropagation(); // a notebook's shortcuts must not hear it
    const { left, right } = this.plot;
    const to = (this.pointer ?? right + 1) + (moves[event.key] * (right - left)) / BINS;
    this.point(event.key === "Escape" ? null : Math.min(Math.max(to, left), right));
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
    this.tell();
  }

  /** Show the numbers under the pointer, on the side where it is not. */
  tell() {
    const lines = this.told();
    this.readout.hidden = !lines.length;
    const text = lines.map((cells) => cells.join(" ").trim()).join(", ");
    attribute(this.canvas, "aria-label", text ? `${this.name()}. ${text}` : this.name());
    if (!lines.length) return;
    const { left, right } = this.plot;
    const x = Math.round(this.pointer) + 0.5;
    this.pen.strokeStyle = this.colours.axis;
    this.pen.lineWidth = 1;
    this.pen.beginPath();
    this.pen.moveTo(x, this.plot.top);
    this.pen.lineTo(x, this.plot.bottom);
    this.pen.stroke();
    const onLeft = this.pointer > (left + right) / 2;
    this.readout.style.left = onLeft ? `${left + 4}px` : "auto";
    this.readout.style.right = onLeft ? "auto" : `${INSET.right}px`;
    this.readout.replaceChildren(...lines.flatMap((cells) => [0, 1, 2].map((at) => h("span", {}, cells[at] ?? ""))));
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

  /** The time under the pointer, or null. */
  pointedAt() {
    const { plot, store, pointer } = this;
    if (pointer === null || pointer < plot.left || pointer > plot.right) return null;
    return store.time - ((plot.right - pointer) / (plot.right - plot.left)) * this.window;
  }

  /** The point of the series under the pointer, or null. */
  pointed() {
    const at = this.pointedAt();
    if (at === null) return null;
    const found = this.store.series.reduce((best, one) => (Math.abs(one[0] - at) < Math.abs(best[0] - at) ? one : best));
    return Math.abs(found[0] - at) > this.window / BINS ? null : found;
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

  told() {
    const found = this.pointed();
    if (!found) return [];
    return [[clock(found[0])], ["from the cluster", `${bytes(found[3])}/s`], ["to the cluster", `${bytes(found[2])}/s`]];
  }

  name() {
    const { up, down } = this.store.throughput();
    return `Throughput over time: now ${bytes(down)}/s from the cluster, ${bytes(up)}/s to it`;
  }
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
