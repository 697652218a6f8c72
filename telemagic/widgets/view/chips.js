// The cluster's CIDRs and what became of each: routed, left to somebody else, or in conflict.

const SHOWN_CHIPS = 14; // more is a list, not chips; the rest is behind one chip

class Chips {
  constructor() {
    this.row = h("div.tmd-chips", { role: "group", "aria-label": "CIDRs and routes" });
    this.detail = h("dl.tmd-chipdetail", { hidden: "" });
    this.element = h("div.tmd-networks", {}, this.row, this.detail);
    this.selected = null;
    this.shown = "";
  }

  update(store) {
    const facts = networks(store);
    const text = JSON.stringify(facts);
    if (text === this.shown) return; // changes once an hour
    this.shown = text;
    const chips = facts.slice(0, SHOWN_CHIPS).map((fact) => this.chip(fact));
    const rest = facts.slice(SHOWN_CHIPS);
    if (rest.length) chips.push(this.chip(together(rest)));
    this.row.replaceChildren(...chips);
    this.show(facts.find((fact) => fact.cidr === this.selected) ?? null);
  }

  chip(fact) {
    const words = [fact.kind, fact.note].filter(Boolean).join(" · ");
    return h(
      `button.tmd-chip.tmd-${fact.confidence || "none"}${fact.trouble ? ".tmd-trouble" : ""}`,
      {
        type: "button",
        title: fact.facts.map(([name, value]) => `${name}: ${value}`).join("\n"),
        "aria-expanded": "false",
        onclick: () => this.show(this.selected === fact.cidr ? null : fact),
        "data-cidr": fact.cidr,
      },
      mark(fact.trouble ? "warning" : fact.routed ? "open" : "closed"),
      h("code", {}, fact.cidr),
      h("span", {}, words),
    );
  }

  show(fact) {
    this.selected = fact?.cidr ?? null;
    for (const chip of this.row.children) attribute(chip, "aria-expanded", String(chip.dataset.cidr === this.selected));
    this.detail.hidden = !fact;
    const lines = (fact?.facts ?? []).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)));
    this.detail.replaceChildren(...lines);
  }
}

/** One fact for each network: what was found, and what was done about it. */
function networks({ cidrs, routes }) {
  const byCidr = new Map();
  for (const row of cidrs) byCidr.set(row.cidr, { ...row, route: null });
  const resolved = [];
  for (const route of routes) {
    if (route.state === "resolved") resolved.push(route);
    else if (byCidr.has(route.cidr)) byCidr.get(route.cidr).route ??= route;
    else byCidr.set(route.cidr, { cidr: route.cidr, kind: route.kind, source: route.source, confidence: "", route });
  }
  const facts = [...byCidr.values()].map(networkFact);
  facts.sort((a, b) => b.trouble - a.trouble);
  if (resolved.length) facts.push(resolvedFact(resolved));
  return facts;
}

function networkFact({ cidr, kind, source, confidence, route }) {
  const state = route?.state ?? "not routed";
  const trouble = state === "conflict";
  const sure = confidence === "certain" || !confidence ? "" : confidence;
  return {
    ...{ cidr, kind, confidence, trouble, routed: state === "applied" || state === "mapped" },
    note: state === "applied" ? sure : state,
    facts: [
      ["network", cidr],
      ["of", kind],
      ["found by", source],
      ["confidence", confidence],
      ["route", state],
      [trouble ? "taken by" : "device", route?.device ?? ""],
      ["why", route?.detail ?? ""],
    ].filter(([, value]) => value),
  };
}

function resolvedFact(routes) {
  const names = routes.slice(0, 12).map((route) => `${route.cidr} (${route.source})`);
  const more = routes.length > names.length ? `, and ${routes.length - names.length} more` : "";
  return {
    ...{ cidr: plural(routes.length, "address").replace("addresss", "addresses"), kind: "by name", note: "" },
    ...{ confidence: "certain", trouble: false, routed: true },
    facts: [["routed because a name led there", names.join(", ") + more]],
  };
}

function together(facts) {
  return {
    ...{ cidr: `${facts.length} more`, kind: "", note: "", confidence: "", trouble: false, routed: true },
    facts: facts.map((fact) => [fact.cidr, fact.facts.slice(1).map(([, value]) => value).join(", ")]),
  };
}
