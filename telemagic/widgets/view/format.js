// Numbers for people. Unknown (-1, null) is an en dash everywhere, so that no column lies with a zero.

const NONE = "–";

/** Bytes: 0 B, 812 B, 1.4 kB, 22 MB. */
function bytes(count) {
  if (count == null || count < 0) return NONE;
  let unit = 0;
  while (count >= 999.5 && unit < 4) {
    count /= 1000;
    unit += 1;
  }
  return `${unit && count < 99.5 ? count.toFixed(1) : Math.round(count)} ${["B", "kB", "MB", "GB", "TB"][unit]}`;
}

/** Bytes per second; nothing at all for an idle flow, so that the eye finds the busy ones. */
function rate(perSecond) {
  return perSecond >= 1 ? `${bytes(perSecond)}/s` : "";
}

/** A duration in seconds, with three digits at most: 180 µs, 1.42 ms, 35 ms, 2.1 s, 3 min 20 s. */
function duration(seconds) {
  if (seconds == null || seconds < 0) return NONE;
  if (seconds < 0.0009995) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 0.9995) return `${digits(seconds * 1e3)} ms`;
  if (seconds < 100) return `${digits(seconds)} s`;
  return span(seconds);
}

function digits(value) {
  return value < 9.995 ? value.toFixed(2) : value < 99.95 ? value.toFixed(1) : String(Math.round(value));
}

/** A time span in whole units: 4 s, 3 min, 2 h 10 min. */
function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 90) return `${whole} s`;
  const minutes = Math.round(whole / 60);
  if (minutes < 90) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.round(hours / 24)} d`;
}

/** Unix seconds as the reader's own time of day. */
function clock(at) {
  return at > 0 ? new Date(at * 1000).toLocaleTimeString([], { hour12: false }) : NONE;
}

function count(number) {
  return Math.round(number).toLocaleString("en-US").replaceAll(",", "\u2009");
}

function plural(number, word) {
  return `${count(number)} ${word}${number === 1 ? "" : "s"}`;
}
