// The flow table: a window of rows over thousands, sorted and filtered here, by mouse or keyboard.

const ROW = 26; // pixels
const COLUMNS = [
  { key: "state", label: "State", width: "102px", value: (flow) => flow.kind, title: (flow) => flow.get("reason") || flow.get("state") },
  { key: "service", label: "Service", width: "minmax(120px, 2fr)", value: (flow) => flow.target, title: (flow) => `${flow.get("dst")}:${flow.get("dport")}` },
  { key: "process", label: "Process", width: "minmax(72px, 1fr)", from: 760, value: (flow) => flow.get("process"), title: (flow) => `pid ${flow.get("pid")}` },
  { key: "cell", label: "Cell", width: "46px", number: true, value: (flow) => flow.get("cell"), text: (cell) => (cell < 0 ? NONE : `[${cell}]`) },
  { key: "connect", label: "Connect", width: "72px", number: true, value: (flow) => flow.get("connect"), text: duration },
  { key: "first_byte", label: "First byte", width: "78px", number: true, value: (flow) => flow.get("first_byte"), text: duration },
  { key: "sent", label: "Sent", width: "68px", number: true, from: 900, value: (flow) => flow.get("bytes_up"), text: bytes },
  { key: "received", label: "Received", width: "72px", number: true, from: 560, value: (flow) => flow.get("bytes_down"), text: bytes },
  { key: "rate_up", label: "↑ rate", width: "78px", number: true, from: 760, value: (flow) => flow.up, text: rate },
  { key: "rate_down", label: "↓ rate", width: "80px", number: true, value: (flow) => flow.down, text: rate },
  { key: "pod", label: "Pod", width: "minmax(110px, 1fr)", from: 1250, value: (flow) => flow.get("pod") },
  { key: "age", label: "Age", width: "62px", number: true, value: (flow) => flow.store.time - flow.opened, text: span },
];

class FlowTable {
  /** `select(id)` is called when a flow is to be shown in detail; `changed()` when there is reason to draw again. */
  constructor(height, select, changed) {
    this.select = select;
    this.changed = changed;
    this.sort = { key: "age", down: false };
    this.accept = null;
    this.view = []; // flows as shown: filtered and sorted
    this.active = null; // id of the flow that the keyboard is on
    this.chosen = null; // id of the flow shown in detail
    this.paused = false;
    this.build(height);
  }

  build(height) {
    this.box = h("input.tmd-filter", {
      type: "text",
      spellcheck: "false",
      placeholder: "Filter: words, state:open, service:postgres, cell:3",
      "aria-label": "Filter flows: words, or state:, service:, cell:, process:, port:, pod:; a minus excludes",
      oninput: () => this.filter(this.box.value),
      onkeydown: (event) => {
        if (event.key === "Escape") this.setFilter("");
        if (event.key === "ArrowDown" || event.key === "Enter") this.focusRow(0, event);
        event.stopPropagation(); // a notebook's shortcuts must not hear what is typed here
      },
    });
    this.clear = h("button.tmd-clear", { type: "button", "aria-label": "Clear the filter", hidden: "", onclick: () => this.setFilter("") }, mark("refused"));
    this.count = h("span.tmd-count", { role: "status" });
    this.hold = h("button.tmd-hold", { type: "button", "aria-pressed": "false", title: "Hold the rows still; the charts go on", onclick: () => this.toggleHold() }, "Pause");
    this.head = h("div.tmd-row.tmd-columns", { role: "row", "aria-rowindex": "1", onkeydown: (event) => this.headKey(event) });
    this.sizer = h("div.tmd-sizer");
    this.note = h("div.tmd-empty");
    this.scroller = h("div.tmd-scroller", { tabindex: "-1", onscroll: () => this.paint(), onkeydown: (event) => this.rowKey(event) }, this.sizer, this.note);
    this.scroller.style.flexBasis = `${height}px`;
    this.grid = h("div.tmd-grid", { role: "grid", "aria-label": "Flows" }, this.head, this.scroller);
    const search = h("span.tmd-search", {}, this.box, this.clear);
    this.element = panel("flows", "Flows", h("span.tmd-tools", {}, this.count, this.hold, search), this.grid);
    this.rows = [];
    this.resize();
  }

  // --- what is shown ---------------------------------------------------------------------------------------------

  filter(text) {
    this.accept = predicate(text);
    this.clear.hidden = !text;
    this.scroller.scrollTop = 0;
    this.changed();
  }

  setFilter(text) {
    this.box.value = text;
    this.filter(text);
  }

  toggleHold() {
    this.paused = !this.paused;
    attribute(this.hold, "aria-pressed", String(this.paused));
    put(this.hold, this.paused ? "Paused" : "Pause");
    this.changed();
  }

  update(store, { force = false } = {}) {
    this.store = store;
    if (!this.paused || force) {
      const anchor = this.scroller.scrollTop > 0 ? this.view[Math.floor(this.scroller.scrollTop / ROW)] : null;
      this.arrange();
      this.keep(anchor);
    }
    const all = store.flows.size;
    put(this.count, this.accept ? `${count(this.view.length)} of ${count(all)}` : count(all));
    this.note.hidden = this.view.length > 0;
    put(this.note, this.emptiness(all));
    attribute(this.grid, "aria-rowcount", String(this.view.length + 1));
    this.sizer.style.height = `${this.view.length * ROW}px`;
    this.paint();
  }

  emptiness(all) {
    if (this.accept && all) return "No flow matches the filter";
    if (!this.store.whole) return "Waiting for the kernel: it answers when the running cell is done";
    return "No flows yet: run a cell that talks to a service, such as pd.read_sql(…) or requests.get(…)";
  }

  arrange() {
    const flows = [...this.store.flows.values()];
    const view = this.accept ? flows.filter(this.accept) : flows;
    const { key, down } = this.sort;
    const { value, number } = COLUMNS.find((column) => column.key === key);
    const sign = down ? -1 : 1;
    const keyed = view.map((flow) => [value(flow), flow]);
    // Unknown values come last either way; equal ones newest first.
    const unknown = number ? (one) => one < 0 : (one) => !one;
    keyed.sort(([a, one], [b, other]) => {
      if (a === b) return other.id - one.id;
      if (unknown(a) !== unknown(b)) return unknown(a) ? 1 : -1;
      return a < b ? -sign : sign;
    });
    this.view = keyed.map((pair) => pair[1]);
  }

  /** Keep what is read under the eye: new rows above must not push it away. */
  keep(anchor) {
    if (!anchor) return;
    const index = this.view.indexOf(anchor);
    if (index < 0) return;
    this.sizer.style.height = `${this.view.length * ROW}px`;
    const offset = this.scroller.scrollTop % ROW;
    if (Math.floor(this.scroller.scrollTop / ROW) !== index) this.scroller.scrollTop = index * ROW + offset;
  }

  /** What the flows shown tell of latencies; also those whose rows are gone, where the filter can be asked about them. */
  samples() {
    const { accept, store } = this;
    return accept && !accept.ofServices ? this.view.map(sampleOf) : store.samples.matching(accept);
  }

  // --- drawing ---------------------------------------------------------------------------------------------------

  /** Choose the columns that fit. */
  resize() {
    const width = this.grid.clientWidth || 860;
    // The rows stand beside a scroll bar, the heads do not.
    this.grid.style.setProperty("--tmd-bar", `${this.scroller.offsetWidth - this.scroller.clientWidth}px`);
    const columns = COLUMNS.filter((column) => !column.from || width >= column.from);
    const signature = columns.map((column) => column.key).join();
    if (signature === this.signature) return;
    this.signature = signature;
    this.columns = columns;
    this.grid.style.setProperty("--tmd-columns", columns.map((column) => column.width).join(" "));
    attribute(this.grid, "aria-colcount", String(columns.length));
    this.head.replaceChildren(...columns.map((column) => this.headCell(column)));
    this.headSort();
    this.rows.forEach((row) => row.remove());
    this.rows = [];
    if (this.store) this.paint();
  }

  headCell(column) {
    return h(
      `button.tmd-cell.tmd-sorter${column.number ? ".tmd-number" : ""}`,
      { type: "button", role: "columnheader", "data-key": column.key, tabindex: "-1", onclick: () => this.sortBy(column) },
      h("span", {}, column.label),
    );
  }

  sortBy(column) {
    const same = this.sort.key === column.key;
    // Numbers are first wanted at their greatest, except ages.
    this.sort = { key: column.key, down: same ? !this.sort.down : Boolean(column.number) && column.key !== "age" };
    this.headSort();
    this.scroller.scrollTop = 0;
    this.update(this.store, { force: true });
  }

  headSort() {
    for (const cell of this.head.children) {
      const mine = cell.dataset.key === this.sort.key;
      attribute(cell, "aria-sort", mine ? (this.sort.down ? "descending" : "ascending") : "none");
      if (!this.head.contains(document.activeElement)) cell.tabIndex = mine ? 0 : -1;
    }
  }

  paint() {
    if (!this.store) return;
    const first = Math.floor(this.scroller.scrollTop / ROW);
    const wanted = Math.ceil(this.scroller.clientHeight / ROW) + 1;
    while (this.rows.length < wanted) this.rows.push(this.makeRow());
    const last = Math.min(first + this.rows.length, this.view.length);
    const held = this.rows.includes(document.activeElement);
    const activeShown = this.view.slice(first, last).some((flow) => flow.id === this.active);
    for (let index = first; index < first + this.rows.length; index += 1) {
      const row = this.rows[index % this.rows.length];
      row.hidden = index >= last;
      if (row.hidden) continue;
      const flow = this.view[index];
      this.fill(row, flow, index);
      const current = activeShown ? flow.id === this.active : index === first;
      row.tabIndex = current ? 0 : -1;
      if (held && activeShown && current && document.activeElement !== row) row.focus({ preventScroll: true });
    }
  }

  makeRow() {
    const cells = this.columns.map((column) => h(`div.tmd-cell${column.number ? ".tmd-number" : ""}`, { role: "gridcell" }));
    const row = h("div.tmd-row", { role: "row", onclick: () => this.choose(row._id) }, ...cells);
    row._mark = mark("open");
    row._word = h("span");
    cells[0].append(row._mark, row._word);
    row.classList.add("tmd-flow");
    this.sizer.append(row);
    return row;
  }

  fill(row, flow, index) {
    row._id = flow.id;
    row.style.transform = `translateY(${index * ROW}px)`;
    attribute(row, "aria-rowindex", String(index + 2));
    attribute(row, "aria-selected", String(flow.id === this.chosen));
    row.classList.toggle("tmd-odd", flow.id % 2 === 1); // stays with the flow while rows move
    attribute(row, "data-kind", flow.kind);
    setMark(row._mark, flow.kind);
    put(row._word, flow.kind);
    this.columns.forEach((column, at) => {
      const cell = row.children[at];
      const value = column.value(flow);
      if (at) put(cell, column.text ? column.text(value) : value || NONE);
      if (column.title) attribute(cell, "title", column.title(flow));
    });
  }

  // --- choosing, keyboard ----------------------------------------------------------------------------------------

  choose(id) {
    this.active = id;
    this.chosen = this.chosen === id ? null : id;
    this.select(this.chosen);
    this.paint();
  }

  rowKey(event) {
    const page = Math.floor(this.scroller.clientHeight / ROW) - 1;
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    const here = this.view.findIndex((flow) => flow.id === this.active);
    if (event.key in moves) {
      const from = here < 0 ? Math.floor(this.scroller.scrollTop / ROW) - (moves[event.key] > 0 ? 1 : 0) : here;
      if (event.key === "ArrowUp" && here === 0) {
        event.preventDefault();
        event.stopPropagation();
        this.head.querySelector("[tabindex='0']")?.focus();
        return;
      }
      this.focusRow(from + moves[event.key], event);
    } else if ((event.key === "Enter" || event.key === " ") && here >= 0) {
      event.preventDefault();
      event.stopPropagation();
      this.choose(this.active);
    } else if (event.key === "Escape" && this.chosen !== null) {
      event.stopPropagation();
      this.choose(this.chosen);
    } else if (event.key === "/") {
      event.preventDefault();
      event.stopPropagation();
      this.box.focus();
    }
  }

  focusRow(index, event) {
    event.preventDefault();
    event.stopPropagation();
    if (!this.view.length) return;
    const at = Math.min(Math.max(index, 0), this.view.length - 1);
    this.active = this.view[at].id;
    const { scroller } = this;
    if (at * ROW < scroller.scrollTop) scroller.scrollTop = at * ROW;
    else if ((at + 1) * ROW > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = (at + 1) * ROW - scroller.clientHeight;
    this.paint();
    this.rows.find((row) => !row.hidden && row._id === this.active)?.focus({ preventScroll: true });
  }

  headKey(event) {
    const cells = [...this.head.children];
    const here = cells.indexOf(document.activeElement);
    const next = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: cells.length - 1 }[event.key];
    if (event.key === "ArrowDown") this.focusRow(0, event);
    if (next === undefined || !cells[next]) return;
    event.preventDefault();
    event.stopPropagation();
    cells.forEach((cell) => (cell.tabIndex = -1));
    cells[next].tabIndex = 0;
    cells[next].focus();
  }
}
