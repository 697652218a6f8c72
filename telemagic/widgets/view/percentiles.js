// Latencies over time: what each flow told of them, kept longer than its row, and their percentiles. No DOM here.

const SAMPLES_KEPT = 20000; // flows; of more, every second one, every fourth, and so on: percentiles stay what they are
const BINS = 30; // of a chart's time: few enough that each has some flows

/** What a flow tells of latencies: when it was opened, what it led to; seconds, -1 if unknown. */
function sampleOf(flow) {
  return { opened: flow.opened, target: flow.target, connect: flow.get("connect"), first: flow.get("first_byte") };
}

class Samples {
  constructor() {
    this.byFlow = new Map();
    this.stride = 1; // only flows whose number it divides are kept
  }

  /** Take what a flow tells now, in the place of what it told before. */
  take(flow) {
    if (flow.id % this.stride) return;
    const sample = sampleOf(flow);
    if (sample.connect >= 0 || sample.first >= 0) this.byFlow.set(flow.id, sample);
  }

  /** Forget what is out of sight at `time`, and what is too much. */
  prune(time) {
    for (const [id, sample] of this.byFlow) {
      if (sample.opened >= time - SERIES_KEPT - 60) break; // nearly in order; the rest goes when it is its turn
      this.byFlow.delete(id);
    }
    while (this.byFlow.size > SAMPLES_KEPT) {
      this.stride *= 2;
      for (const id of this.byFlow.keys()) if (id % this.stride) this.byFlow.delete(id);
    }
    if (this.stride > 1 && this.byFlow.size < SAMPLES_KEPT / 4) this.stride /= 2;
  }

  /** Those that a predicate on their target accepts; all without one. */
  matching(accept) {
    const all = [...this.byFlow.values()];
    return accept ? all.filter(accept) : all;
  }

  byTarget() {
    const found = new Map();
    for (const sample of this.byFlow.values()) {
      if (found.has(sample.target)) found.get(sample.target).push(sample);
      else found.set(sample.target, [sample]);
    }
    return found;
  }
}

/**
 * The percentiles of samples since a time, in bins of whole `seconds`, oldest first; bins without any are left out.
 * Each is {at: its middle, seconds, flows, connect, first}; the last two are {p50, p99}, or null.
 */
function percentiles(samples, since, seconds) {
  const bins = new Map();
  for (const { opened, connect, first } of samples) {
    if (opened < since) continue;
    const number = Math.floor(opened / seconds);
    let bin = bins.get(number);
    if (!bin) bins.set(number, (bin = { connect: [], first: [], flows: 0 }));
    bin.flows += 1;
    if (connect >= 0) bin.connect.push(connect);
    if (first >= 0) bin.first.push(first);
  }
  return [...bins]
    .sort(([a], [b]) => a - b)
    .map(([number, { flows, connect, first }]) => ({
      ...{ at: (number + 0.5) * seconds, seconds, flows, connect: both(connect), first: both(first) },
    }));
}

/** Median and 99th percentile by nearest rank, as the data plane's. */
function both(values) {
  if (!values.length) return null;
  const sorted = Float64Array.from(values).sort();
  const rank = (share) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
  return { p50: rank(0.5), p99: rank(0.99) };
}

/** What belongs together in bins: split where more than two bins are empty. */
function runs(bins, name) {
  const found = [];
  let last = -Infinity;
  for (const bin of bins) {
    if (!bin[name]) continue;
    if (bin.at - last > 3.5 * bin.seconds) found.push([]);
    found.at(-1).push(bin);
    last = bin.at;
  }
  return found;
}
