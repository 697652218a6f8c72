// The filter box: words that must all be found, and field:value for one field.

const FIELDS = {
  state: (flow) => `${flow.kind} ${FAILED.has(flow.kind) ? "failed" : ""} ${flow.get("state")}`,
  service: (flow) => flow.target,
  cell: (flow) => flow.get("cell"),
  process: (flow) => flow.get("process"),
  pid: (flow) => flow.get("pid"),
  notebook: (flow) => flow.get("notebook"),
  pod: (flow) => flow.get("pod"),
  node: (flow) => flow.get("node"),
  namespace: (flow) => flow.get("namespace"),
  port: (flow) => flow.get("dport"),
  protocol: (flow) => flow.get("protocol"),
  reason: (flow) => flow.get("reason"),
};
const EXACT = new Set(["cell", "pid", "port"]);

/** Return a predicate on flows for what was typed; `-word` excludes. `ofServices`: it asks for nothing but the target. */
function predicate(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return null;
  const tests = words.map((word) => {
    const negated = word.length > 1 && word[0] === "-";
    const test = wordTest(negated ? word.slice(1) : word);
    return negated ? (flow) => !test(flow) : test;
  });
  const accept = (flow) => tests.every((test) => test(flow));
  return Object.assign(accept, { ofServices: words.every((word) => /^-?service:/.test(word)) });
}

function wordTest(word) {
  const colon = word.indexOf(":");
  const field = word.slice(0, colon);
  if (colon < 1 || !(field in FIELDS)) return (flow) => flow.haystack.includes(word);
  const value = word.slice(colon + 1);
  const read = FIELDS[field];
  if (!value) return () => true; // still being typed
  if (EXACT.has(field)) return (flow) => String(read(flow)) === value;
  return (flow) => String(read(flow)).toLowerCase().includes(value);
}
