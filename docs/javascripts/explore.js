/* The player of recorded runs: source, timeline, streams, slots, and dials for what things cost.

   timing.js says when everything happens; this file shows it. EXPLORE (made by docs/_site/explore.py) has the recordings.
   A <div class="explore"> becomes a player. Its data attributes say where it starts: chapter, preset; with `address` the
   player keeps its state in the address of the page. */

"use strict";

const SHOWN_STEPS = 3; // in the timeline, to begin with
const LINGER = 150; // ms: a line that takes no time is marked for so long all the same
const CROSSING = 9000; // ms in which the cursor goes through all that the timeline shows
const BARS = { CPU: [14, 34], H2D: [60, 18], compute: [90, 40], D2H: [142, 18] }; // y and height
const TALL = 186, LEFT = 62, RIGHT = 8, THINNEST = 1.5;
const PARTS = ["pinned inputs", "inputs", "outputs", "pinned outputs"];
const LIMITS = { K: [0.1, 60], L: [0.01, 60], H: [0.01, 60], R: [0, 5] }; // no line of the host takes no time at all
const DIALS = {
  K: "kernels: the batch on the GPU, once all of it is queued",
  L: "launching them, kernel by kernel",
  H: "the rest of the host's work",
  R: "the ramp: what a GPU with nothing queued waits for the first launches",
};

const make = (tag, attributes = {}, ...children) => grow(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) =>
  grow(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

function grow(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

class Player {
  constructor(root) {
    this.root = root;
    this.state = this.begin(root.dataset);
    this.playing = false;
    this.build();
    this.choose();
    new ResizeObserver(() => this.drawTimeline()).observe(this.timeline);
  }

  /* --- what is shown: chapter, dials, line taken away, time (ms; events where a schedule is played) --- */

  begin({ chapter, preset, address }) {
    const asked = new URLSearchParams(address === undefined ? "" : location.search);
    const named = asked.get("preset") ?? preset;
    const set = EXPLORE.presets.find(({ name }) => name === named) ?? EXPLORE.presets[0];
    const turned = Object.keys(DIALS).some((dial) => asked.has(dial));
    const state = { chapter, graphs: set.graphs, without: null, t: null, preset: turned ? "" : set.name };
    for (const dial of Object.keys(DIALS)) {
      const value = asked.has(dial) ? Number(asked.get(dial)) : set[dial];
      state[dial] = Number.isFinite(value) ? Math.min(Math.max(value, LIMITS[dial][0]), LIMITS[dial][1]) : set[dial];
    }
    if (EXPLORE.chapters[asked.get("chapter")]) state.chapter = asked.get("chapter");
    if (asked.has("graphs")) state.graphs = asked.get("graphs") === "1";
    if (EXPLORE.chapters[state.chapter].without[asked.get("without")]) state.without = asked.get("without");
    if (asked.has("t") && Number.isFinite(Number(asked.get("t")))) state.t = Math.max(0, Number(asked.get("t")));
    return state;
  }

  address() {
    const { chapter, graphs, preset, K, L, H, R, without, t } = this.state;
    const times = preset ? { preset } : { K, L, H, R };
    return `?${new URLSearchParams({ chapter, ...times, graphs: graphs ? 1 : 0, ...(without && { without }), t: +t.toFixed(4) })}`;
  }

  get chapter() {
    return EXPLORE.chapters[this.state.chapter];
  }

  /* Looks everything up anew, after anything but the time has changed. */
  choose() {
    const { graphs, without } = this.state, { chapter } = this;
    this.deletion = without ? chapter.without[without] : null;
    this.recording = this.deletion?.recording ?? ((graphs && chapter.graphs) || chapter.recording);
    this.ordered = this.recording.happened !== undefined;
    this.unit = this.ordered ? "" : " ms";
    this.retime();
    if (this.shownChapter !== this.state.chapter) this.writeSource();
    this.shownChapter = this.state.chapter;
    this.writeControls();
    this.writeFailure();
    this.frame();
    this.state.t = Math.min(this.state.t ?? this.first, this.end);
    this.show();
  }

  retime() {
    const dials = this.dials();
    this.times = (this.ordered ? inOrder(this.recording) : timed(this.recording, EXPLORE.costs, dials)).map(
      (time) => this.ordered ? time : Object.fromEntries(
        Object.entries(time).map(([name, seconds]) => [name, seconds === null ? null : 1e3 * seconds])),
    );
    this.spans = spansOf(this.recording, this.times);
    this.windows = this.ordered ? [] : windowsOf(this.spans);
    const known = this.times.flatMap(({ start, end, begin, done }) => [start, end, begin, done]);
    this.moments = [...new Set(known.filter((time) => time !== null && Number.isFinite(time)))].sort((a, b) => a - b);
    this.end = this.moments.at(-1);
  }

  dials() {
    return Object.fromEntries(Object.keys(DIALS).map((dial) => [dial, this.state[dial] / 1e3]));
  }

  /* Where the timeline begins and how long it is: a few steps of steady decodes, or all of a schedule. */
  frame() {
    const schedule = (batch) => this.recording.calls.findIndex((call) => call.what === "schedule" && call.batch === batch);
    if (this.ordered) {
      [this.first, this.from, this.span] = [0, 0, Math.min(this.end, 42)];
    } else {
      const { step } = figuresOf(this.recording, this.spans);
      this.first = this.times[schedule(this.recording.steady[0])].start;
      this.from = Math.max(0, this.first - 0.1 * step);
      this.span = Math.min(SHOWN_STEPS * step, this.end);
    }
  }

  set(changes, keepTime = false) {
    if (!keepTime) changes = { t: null, ...changes };
    Object.assign(this.state, changes);
    this.choose();
  }

  /* --- the parts of the page --- */

  build() {
    const { root } = this, id = (name) => `explore-${name}`;
    root.textContent = "";
    root.tabIndex = 0;
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", "An engine, played");
    root.addEventListener("keydown", (event) => this.key(event));

    const stems = Object.keys(EXPLORE.chapters);
    this.pick = this.select("chapter", stems.map((stem) => [stem, stem]), (chapter) => this.set({ chapter, without: null }));
    this.presets = this.select("times of",
      [["", "(as the dials are)"], ...EXPLORE.presets.map(({ name }) => [name, name])], (name) => this.preset(name));
    this.graphs = make("input", { type: "checkbox", onchange: () => this.set({ graphs: this.graphs.checked, without: null }) });
    this.taken = this.select("take a line away", [], (without) => this.set({ without: without || null }));
    this.sliders = {};
    const dials = Object.entries(DIALS).map(([dial, says]) => this.slider(dial, says, id(dial)));
    this.says = make("p", { class: "says" });

    const button = (name, label, act) => make("button", { type: "button", title: label, "aria-label": label, onclick: act }, name);
    this.playButton = button("▶", "play", () => this.play(!this.playing));
    this.clock = make("output", { class: "clock" });
    this.scrub = make("input", {
      type: "range", min: 0, "aria-label": "time", class: "scrub", step: "any",
      oninput: () => this.go(Number(this.scrub.value)),
    });
    this.timeline = draw("svg", { class: "timeline", height: TALL, role: "img", "aria-label": "timeline: a table below has the same" });
    this.timeline.addEventListener("pointerdown", (event) => this.drag(event));
    this.timeline.addEventListener("pointermove", (event) => this.hover(event.target.closest?.("[data-number]")));
    this.timeline.addEventListener("pointerleave", () => this.hover(null));
    this.told = make("p", { class: "told", role: "status" });
    this.failure = make("div", { class: "failure" });
    this.figures = make("div", { class: "figures" });
    this.source = make("ol", { class: "source highlight", tabindex: 0, "aria-label": "the chapter's source" });
    this.streams = make("div", { class: "streams" });
    this.slots = make("div", { class: "slots" });
    this.table = make("details", { class: "spans", ontoggle: () => this.writeTable() }, make("summary", {}, "All of it as a table"));

    root.append(
      make("div", { class: "choices" }, this.pick.parentNode, this.presets.parentNode,
        make("label", { class: "graphs" }, this.graphs, " decodes as graphs"), this.taken.parentNode),
      make("div", { class: "dials" }, ...dials), this.says, this.figures, this.failure,
      make("div", { class: "stage" },
        make("div", { class: "left" }, this.source),
        make("div", { class: "right" },
          make("div", { class: "keys" },
            button("|◀", "to the start", () => this.go(0)), button("◀", "back by an event", () => this.step(-1)), this.playButton,
            button("▶|", "on by an event", () => this.step(1)), button("−", "show more", () => this.zoom(2)),
            button("+", "show less, closer", () => this.zoom(0.5)), this.clock),
          this.timeline, this.scrub, this.told, this.streams, this.slots)),
      this.table,
    );
    if (root.dataset.address === undefined) {
      this.link = make("a", {}, "Open in Explore");
      root.append(make("p", { class: "open" }, this.link));
    }
  }

  select(label, options, act) {
    const select = make("select", { "aria-label": label, onchange: () => act(select.value) }, ...options.map(([value, text]) => make("option", { value }, text)));
    make("label", {}, `${label} `, select);
    return select;
  }

  slider(dial, says, id) {
    const [min, max] = LIMITS[dial];
    const turn = (input) => {
      const value = Math.min(Math.max(Number(input.value) || 0, min), max);
      this.set({ [dial]: value, preset: "" }, this.ordered);
    };
    const range = make("input", { type: "range", min: 0, max, step: 0.1, "aria-label": `${dial}, ms: ${says}`, oninput: () => turn(range) });
    const number = make("input", { type: "number", min, max, step: "any", "aria-label": `${dial}, ms`, onchange: () => turn(number) });
    this.sliders[dial] = { range, number };
    return make("div", { class: "dial", title: says }, make("b", {}, dial), range, number, " ms ", make("span", {}, says));
  }

  preset(name) {
    const found = EXPLORE.presets.find((preset) => preset.name === name);
    if (!found) return;
    const { K, L, H, R, graphs } = found;
    this.set({ K, L, H, R, graphs, preset: name, without: null });
  }

  writeControls() {
    const { state, chapter } = this;
    this.pick.value = state.chapter;
    this.presets.value = state.preset;
    this.graphs.disabled = !chapter.graphs || this.deletion !== null;
    this.graphs.checked = this.deletion ? false : state.graphs || !chapter.graphs;
    for (const [dial, { range, number }] of Object.entries(this.sliders)) {
      range.value = state[dial];
      number.value = state[dial];
      range.disabled = number.disabled = this.ordered;
    }
    const lines = Object.entries(chapter.without);
    this.taken.replaceChildren(
      make("option", { value: "" }, lines.length ? "(none)" : "(no line of this one orders anything)"),
      ...lines.map(([line, { text, seed }]) => make("option", { value: line }, `${line}: ${text}${seed === undefined ? " (no harm)" : ""}`)),
    );
    this.taken.value = state.without ?? "";
    this.taken.disabled = !lines.length;
    const preset = EXPLORE.presets.find(({ name }) => name === state.preset);
    this.says.textContent = this.ordered
      ? "A schedule: the order in which things happened. It has no times, so the dials have no say."
      : preset ? `${preset.says}.` : "Everything else (copies, calls, carry-over, a graph's launch) is as measured on the H200.";
    this.scrub.max = this.end;
    this.table.open && this.writeTable();
    this.writeFigures();
  }

  writeSource() {
    const rows = this.chapter.lines.map(({ number, indent, html }) => {
      const code = make("code", { style: `--indent: ${indent}ch` });
      code.innerHTML = html || " ";
      return make("li", { value: number, "data-line": number, onpointerenter: () => this.light(number), onpointerleave: () => this.light(null) }, code);
    });
    this.source.replaceChildren(...rows);
  }

  writeFigures() {
    if (this.ordered) {
      this.figures.replaceChildren();
      return;
    }
    const ms = (value) => (Math.abs(value) < 0.005 ? 0 : value).toFixed(2); // no -0.00
    const { step, bubbles, gaps } = figuresOf(this.recording, this.spans);
    const dials = this.dials(), replay = EXPLORE.costs.launching.replay;
    const asGraphs = !this.chapter.graphs || (this.state.graphs && !this.deletion);
    const law = lawOf(asGraphs ? { ...dials, L: replay, R: 0 } : dials);
    const first = EXPLORE.chapters[Object.keys(EXPLORE.chapters)[0]];
    const base = this.state.graphs && this.state.chapter !== Object.keys(EXPLORE.chapters).at(-1) && !this.deletion ? first.graphs : first.recording;
    const before = 1e3 * figuresOf(base, spansOf(base, timed(base, EXPLORE.costs, dials))).step;
    const cells = {
      step: ms(step), bubbles: ms(bubbles), "launch gaps": ms(gaps),
      "law, synchronous": ms(1e3 * law.synchronous), "law, asynchronous": ms(1e3 * law.asynchronous),
      "chapter 1": ms(before), "times as fast": (before / step).toFixed(2),
    };
    this.figures.replaceChildren(...Object.entries(cells).map(([name, value]) =>
      make("div", {}, make("span", {}, name), make("b", {}, value), name === "times as fast" ? "" : " ms")));
  }

  writeFailure() {
    if (!this.deletion) {
      this.failure.replaceChildren();
      return;
    }
    const { text, seed, recording } = this.deletion;
    const code = make("code", {}, text);
    if (seed === undefined) {
      this.failure.replaceChildren(make("p", {}, `Line ${this.state.without} taken away: `, code,
        ". No schedule was found that goes wrong without it. It is there for speed, if for anything: compare bubbles with it and without it."));
      return;
    }
    this.failure.replaceChildren(
      make("p", {}, `Line ${this.state.without} taken away: `, code,
        `. The first schedule found that gives a wrong token (seed ${seed} of `, make("code", {}, "acb check"), "):"),
      make("p", { class: "wrong" }, recording.hazard ? `${recording.hazard.text}. ` : "No two accesses race. ", recording.failure ? `Then: ${recording.failure}.` : ""),
    );
  }

  writeTable() {
    if (!this.table.open) return;
    const head = ["lane", "what", "batch", "slot", "start", "length", "line"];
    const rows = [...this.spans].sort((a, b) => a.start - b.start).map((span) => make("tr", {},
      ...[span.lane, span.what, span.batch ?? "", span.slot ?? "", this.at(span.start), this.at(span.end - span.start), span.line ?? ""]
        .map((cell) => make("td", {}, String(cell)))));
    const table = make("table", { class: "plain" }, make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))), make("tbody", {}, ...rows));
    this.table.replaceChildren(this.table.firstChild, make("div", { class: "scroll", tabindex: 0 }, table));
  }

  at(time) {
    if (!Number.isFinite(time)) return "never";
    return this.ordered ? String(time) : `${time.toFixed(3)} ms`;
  }

  /* --- moving --- */

  go(time) {
    this.state.t = Math.min(Math.max(time, 0), this.end);
    this.show();
  }

  step(way) {
    this.play(false);
    const { t } = this.state, tiny = 1e-9;
    const next = way > 0 ? this.moments.find((time) => time > t + tiny) : this.moments.findLast((time) => time < t - tiny);
    if (next !== undefined) this.go(next);
  }

  zoom(factor) {
    const { t } = this.state, share = (t - this.from) / this.span;
    this.span = Math.min(Math.max(this.span * factor, this.ordered ? 8 : 0.02), this.end);
    this.from = t - Math.min(Math.max(share, 0.1), 0.9) * this.span;
    this.show(true);
  }

  play(on) {
    this.playing = on && this.state.t < this.end;
    if (on && !this.playing) { // at the end: once more
      this.go(0);
      this.playing = true;
    }
    this.playButton.textContent = this.playing ? "❚❚" : "▶";
    this.playButton.title = this.playButton.ariaLabel = this.playing ? "pause" : "play";
    if (!this.playing) return;
    let before = performance.now(), arrived = before, run = this.playing = {};
    const tick = (now) => {
      if (this.playing !== run) return;
      const next = this.moments.find((time) => time > this.state.t + 1e-9) ?? this.end;
      const wanted = this.state.t + (this.span * (now - before)) / CROSSING;
      before = now;
      if (wanted < next) {
        this.go(wanted);
      } else if (now - arrived >= LINGER) {
        arrived = now;
        this.go(next);
      }
      if (this.state.t >= this.end) this.play(false);
      else requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  key(event) {
    if (event.target.closest("input, select, summary") || event.ctrlKey || event.metaKey || event.altKey) return;
    const acts = {
      " ": () => this.play(!this.playing), ArrowRight: () => this.step(1), ArrowLeft: () => this.step(-1),
      Home: () => this.go(0), End: () => this.go(this.end), "+": () => this.zoom(0.5), "-": () => this.zoom(2),
    };
    if (!acts[event.key] || (event.key === " " && event.target.closest("button"))) return;
    event.preventDefault();
    acts[event.key]();
  }

  drag(event) {
    const move = ({ clientX }) => {
      const { left, width } = this.timeline.getBoundingClientRect();
      this.go(this.from + (this.span * (clientX - left - LEFT)) / (width - LEFT - RIGHT));
    };
    this.play(false);
    this.timeline.setPointerCapture(event.pointerId);
    const still = () => this.timeline.removeEventListener("pointermove", move);
    this.timeline.addEventListener("pointermove", move);
    this.timeline.addEventListener("pointerup", still, { once: true });
    this.timeline.addEventListener("pointercancel", still, { once: true });
    move(event);
  }

  /* --- the moment --- */

  show(redraw = false) {
    const { t } = this.state;
    if (t < this.from || t > this.from + this.span || redraw) {
      if (t < this.from || t > this.from + this.span) this.from = t - 0.1 * this.span;
      this.from = Math.min(Math.max(this.from, 0), Math.max(this.end - this.span, 0));
      this.drawTimeline();
    } else if (this.drawn !== this.times) {
      this.drawTimeline();
    }
    this.cursor?.setAttribute("transform", `translate(${this.x(t)} 0)`);
    this.scrub.value = t;
    this.clock.textContent = this.ordered ? `event ${Math.floor(t)} of ${this.end}` : `${t.toFixed(3)} ms`;
    this.now = this.callAt(t);
    this.writeMoment();
    if (this.link) this.link.href = this.root.dataset.explore + this.address();
    else this.keep();
  }

  /* The address follows, but not in every frame: a browser allows only so many changes. */
  keep() {
    clearTimeout(this.kept);
    this.kept = setTimeout(() => history.replaceState(null, "", this.address() + location.hash), 200);
  }

  /* The call that the host is in: the last one that it has begun. */
  callAt(t) {
    let found = 0;
    this.times.forEach(({ start }, number) => {
      if (start !== null && start <= t + 1e-12) found = number;
    });
    return found;
  }

  writeMoment() {
    const { t } = this.state, call = this.recording.calls[this.now], over = this.times[this.now].end <= t && t >= this.end;
    for (const row of this.source.children) {
      const here = row.value === call.line && !over;
      if (here && !row.classList.contains("now")) this.reveal(row);
      row.classList.toggle("now", here);
      row.classList.toggle("gone", String(row.value) === this.state.without);
      row.toggleAttribute("aria-current", here);
    }
    this.markArrows();
    this.told.textContent = over ? "The run is over." : `Host, line ${call.line}: ${this.describe(call)}.`;
    this.writeStreams(t);
    this.writeSlots(t);
  }

  /* Those of the waits that hold somebody back now. */
  markArrows() {
    const { t } = this.state;
    for (const arrow of this.timeline.querySelectorAll(".arrow")) {
      const { start, end, done } = this.times[arrow.dataset.number];
      arrow.classList.toggle("holds", start <= t && t < (done ?? end));
    }
  }

  /* Scrolls the source, and nothing else, until the row is in sight. */
  reveal(row) {
    const { source } = this, top = row.offsetTop; // the source is what it is placed in
    if (top < source.scrollTop || top + row.offsetHeight > source.scrollTop + source.clientHeight) {
      source.scrollTop = top - source.clientHeight / 3;
    }
  }

  describe(call) {
    const of = call.batch === undefined ? "" : ` for batch ${call.batch}`, where = call.slot ? `, slot ${call.slot}` : "";
    if (call.do === "host") return `${call.what}${of}${where}`;
    if (call.do === "launch") return `queues the ${NOUNS[call.what]} of batch ${call.batch} in ${call.stream}${where}`;
    if (call.do === "record") return `records ${call.event} in ${call.stream}`;
    if (call.do === "wait") return call.on === null ? `${call.stream} is to wait for ${call.event}, which was never recorded: no wait`
      : `${call.stream} is to wait for ${this.recording.calls[call.on].event}`;
    return call.on === null ? `waits for ${call.event}, which was never recorded: no wait` : `waits for ${this.awaited(call.on)}`;
  }

  /* What a record or a piece of device work is called, for whoever waits for it. */
  awaited(number) {
    const call = this.recording.calls[number];
    if (call.do === "launch") return `the ${NOUNS[call.what]} of batch ${call.batch}`;
    if (call.do === "wait") return `all that is queued in ${call.stream}`;
    const before = this.recording.calls.slice(0, number).findLast((other) => other.do === "launch" && other.stream === call.stream);
    return `${call.event} in ${call.stream}` + (before ? `, recorded behind the ${NOUNS[before.what]} of batch ${before.batch}` : "");
  }

  writeStreams(t) {
    const queues = new Map();
    this.recording.calls.forEach((call, number) => {
      if (call.stream === undefined) return;
      if (!queues.has(call.stream)) queues.set(call.stream, []);
      const { start, begin, done } = this.times[number];
      if (start === null || start > t || done === null || done <= t) return;
      queues.get(call.stream).push({ number, call, running: begin !== null && begin <= t });
    });
    const rows = [...queues].map(([stream, queue]) => {
      const [head] = queue;
      let state = "has nothing to do";
      if (head?.running) state = `runs the ${NOUNS[head.call.what]} of batch ${head.call.batch}`;
      else if (head?.call.do === "wait") state = `waits for ${this.awaited(head.call.on)}`;
      else if (head) state = this.ordered ? "has not begun" : "is being handed its work";
      const chips = queue.map(({ number, call, running }) => make("li", {
        class: `chip ${call.do} ${running ? "running" : ""} slot-${(call.slot ?? "").toLowerCase()} ${this.races(number) ? "races" : ""}`,
        "data-number": number,
        onpointerenter: () => this.light(call.line, call.do === "wait" ? call.on : number),
        onpointerleave: () => this.light(null),
      }, call.do === "launch" ? `${call.what} ${call.batch}` : call.do === "wait" ? `wait: ${this.recording.calls[call.on]?.event ?? call.event}` : `record ${call.event}`));
      return make("tr", {}, make("th", { scope: "row" }, stream), make("td", {}, make("span", {}, state), make("ol", { class: "queue" }, ...chips)));
    });
    this.streams.replaceChildren(make("table", { class: "plain", "aria-label": "streams" }, make("tbody", {}, ...rows)));
  }

  writeSlots(t) {
    const held = {}, answers = {};
    this.recording.calls.forEach((call, number) => {
      const { end, done } = this.times[number];
      if (call.then && (call.do === "launch" ? done : end) <= t) {
        for (const [part, words] of Object.entries(call.then)) {
          held[call.slot] ??= {};
          held[call.slot][part] = { words, batch: call.batch };
        }
      } else if (call.slot) held[call.slot] ??= {};
      if (call.answers && end <= t) Object.assign(answers, call.answers);
    });
    const { hazard } = this.recording;
    const rows = Object.keys(held).sort().flatMap((slot) => PARTS.map((part) => {
      const found = held[slot][part], races = hazard?.memory === `slot ${slot}'s ${part}`;
      return make("tr", { class: races ? "races" : "" }, make("th", { scope: "row", class: `slot-${slot.toLowerCase()}` }, `${slot} ${part}`),
        make("td", {}, found ? `batch ${found.batch}` : ""), make("td", { class: "words" }, ...this.words(found, part)));
    }));
    const given = Object.entries(this.recording.requests).map(([id, prompt]) => {
      const right = this.recording.right?.[id];
      const tokens = (answers[id] ?? []).flatMap((word, place) => [" ", right && right[place] !== word
        ? make("mark", { title: `right is ${right[place]}` }, word) : word]);
      return make("tr", {}, make("th", { scope: "row" }, `request ${id}`), make("td", {}, prompt.join(" ")), make("td", { class: "words" }, ...tokens));
    });
    const tables = [["slots: what lies in host and device memory", rows], ["requests: prompt, and the tokens the host has seen", given]];
    this.slots.replaceChildren(...tables.map(([caption, body]) =>
      make("div", { class: "scroll" }, make("table", { class: "plain" }, make("caption", {}, caption), make("tbody", {}, ...body)))));
  }

  /* The tokens of a part of a slot, those of one request together; outputs have one for each request. */
  words(found, part) {
    if (!found) return [];
    const rows = this.recording.batches[found.batch] ?? [];
    let place = 0;
    if (part.endsWith("outputs")) return [found.words.join(" · ")];
    return [rows.map(([, length]) => found.words.slice(place, (place += length)).join(" ")).join(" · ")];
  }

  races(number) {
    return this.recording.hazard?.calls.includes(number) ?? false;
  }

  /* --- the timeline --- */

  x(time) {
    const width = this.timeline.clientWidth || this.timeline.getBoundingClientRect().width;
    return LEFT + ((time - this.from) / this.span) * (width - LEFT - RIGHT);
  }

  drawTimeline() {
    const width = this.timeline.clientWidth || this.timeline.getBoundingClientRect().width, to = this.from + this.span;
    if (!width) return;
    this.drawn = this.times;
    const lanes = Object.entries(BARS).flatMap(([lane, [y, height]]) => [
      draw("rect", { x: LEFT, y, width: width - LEFT - RIGHT, height, class: "lane" }),
      draw("text", { x: LEFT - 6, y: y + height / 2, class: "name" }, lane)]);
    const clip = draw("clipPath", { id: "explore-clip" }, draw("rect", { x: LEFT, y: 0, width: width - LEFT - RIGHT, height: TALL }));
    const inside = draw("g", { "clip-path": "url(#explore-clip)" });
    const visible = this.spans.filter(({ start, end }) => end >= this.from && start <= to);
    for (const span of visible.sort((a, b) => (a.what === "wait" ? 0 : 1) - (b.what === "wait" ? 0 : 1) || b.end - b.start - (a.end - a.start))) {
      inside.append(this.bar(span, width));
    }
    for (const { start, bubble } of this.windows) {
      if (bubble > 1e-6 && start >= this.from && start - bubble <= to) inside.append(...this.bubble(start - bubble, start));
    }
    inside.append(...this.arrows(to));
    this.cursor = draw("g", { class: "cursor" }, draw("line", { y1: 4, y2: TALL - 18 }), draw("circle", { cy: 6, r: 4 }));
    this.timeline.replaceChildren(draw("defs", {}, clip, hatch("explore-wait"), hatch("explore-bubble"), arrowhead()), ...lanes, inside, ...this.ticks(width), this.cursor);
    this.cursor.setAttribute("transform", `translate(${this.x(this.state.t ?? 0)} 0)`);
    this.markArrows();
  }

  bar(span, width) {
    const [y, height] = BARS[span.lane], x = this.x(span.start), wide = Math.max(this.x(Math.min(span.end, this.end)) - x, THINNEST);
    const share = span.kernels === undefined ? 1 : Math.min(1, span.kernels / (span.end - span.start));
    const kind = span.what === "wait" ? "wait" : `slot-${(span.slot ?? "host").toLowerCase()}`;
    const races = this.races(span.number) && (span.lane !== "CPU" || this.recording.calls[span.number].do === "host");
    const group = draw("g", { class: `bar ${kind} ${races ? "races" : ""}`, "data-number": span.number, "data-line": span.line, "data-lane": span.lane });
    if (share < 0.995) group.append(draw("rect", { x, y, width: wide, height, class: "gaps" }));
    group.append(draw("rect", { x, y: y + height * (1 - share), width: wide, height: height * share, class: "fill" }));
    const left = Math.max(x, LEFT), room = Math.min(x + wide, width - RIGHT) - left;
    const whose = span.batch === null ? "" : `${span.batch}`, full = span.what === "wait" ? "wait" : `${span.what} ${whose}`;
    const text = 6.2 * full.length + 6 < room ? full : 6.2 * whose.length + 6 < room ? whose : "";
    if (text && height > 14) group.append(draw("text", { x: left + room / 2, y: y + height - (height * share) / 2 }, text));
    if (races) group.append(draw("text", { x: x + wide / 2, y: y - 3, class: "access" }, this.access(span.number)));
    group.append(draw("title", {}, this.tell(span)));
    return group;
  }

  access(number) {
    const { calls, writes } = this.recording.hazard;
    return writes[calls.indexOf(number)] ? "writes" : "reads";
  }

  tell({ lane, what, batch, slot, start, end, line }) {
    const whose = `${batch === null ? "" : ` of batch ${batch}`}${slot === null ? "" : `, slot ${slot}`}`;
    return `${lane}: ${what}${whose}; starts at ${this.at(start)}, takes ${this.at(end - start)}; line ${line}`;
  }

  bubble(start, end) {
    const [y, height] = BARS.compute, x = this.x(start), wide = this.x(end) - x;
    const parts = [draw("rect", { x, y: y - 2, width: Math.max(wide, THINNEST), height: height + 4, class: "bubble" }, draw("title", {}, `bubble, ${this.at(end - start)}`))];
    const text = `${(end - start).toFixed(2)} ms`;
    if (wide > 6.2 * text.length) parts.push(draw("text", { x: x + wide / 2, y: y - 5, class: "bubble-length" }, text));
    return parts;
  }

  /* From where something is done to where whoever waits for it goes on. */
  arrows(to) {
    const lanes = {};
    return this.recording.calls.flatMap((call, number) => {
      if (call.do === "launch") lanes[call.stream] = LANES[call.engine];
      if (call.on == null || (call.do !== "wait" && call.do !== "sync")) return [];
      const from = this.times[call.on].done, until = call.do === "sync" ? this.times[number].end : this.times[number].done;
      if (until === null || !Number.isFinite(until) || until < this.from || from > to) return [];
      const one = this.laneOf(call.on), other = call.do === "sync" ? "CPU" : this.laneOf(number, 1);
      if (!one || !other || one === other) return [];
      const edge = (lane, low) => BARS[lane][0] + (low ? BARS[lane][1] : 0), down = BARS[one][0] < BARS[other][0];
      return [draw("path", { class: `arrow ${call.do}`, "data-number": number, d: `M${this.x(from)} ${edge(one, down)} L${this.x(until)} ${edge(other, !down)}` })];
    });
  }

  /* The lane of the work before a record, or behind a wait. */
  laneOf(number, way = -1) {
    const { calls } = this.recording, { stream, engine } = calls[number];
    if (engine) return LANES[engine];
    for (let other = number; other >= 0 && other < calls.length; other += way) {
      if (calls[other].do === "launch" && calls[other].stream === stream) return LANES[calls[other].engine];
    }
    return null;
  }

  ticks(width) {
    const rough = this.span / Math.max(2, Math.floor((width - LEFT) / 90)), power = 10 ** Math.floor(Math.log10(rough));
    const every = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= rough);
    const digits = Math.max(0, -Math.floor(Math.log10(every)));
    const made = [];
    for (let time = Math.ceil(this.from / every) * every; time <= this.from + this.span; time += every) {
      const x = this.x(time);
      if (x < width - 24) made.push(draw("text", { x, y: TALL - 6, class: "tick" }, `${time.toFixed(digits)}${this.unit}`));
    }
    return made;
  }

  hover(group) {
    const bar = group?.closest("[data-number]");
    if (!bar) {
      this.light(null);
      return;
    }
    const number = Number(bar.dataset.number), lane = bar.dataset.lane;
    this.light(this.recording.calls[number].line, number, lane);
    const span = this.spans.find((each) => each.number === number && each.lane === lane);
    if (span) this.told.textContent = this.tell(span);
  }

  /* Marks a line and its bars; or one call, on all lanes, with its line. */
  light(line, number = null) {
    for (const row of this.source.children) row.classList.toggle("lit", line !== null && row.value === line);
    for (const each of this.root.querySelectorAll(".bar, .chip")) {
      const one = Number(each.dataset.number);
      each.classList.toggle("lit", line !== null && (number === null ? this.recording.calls[one].line === line : one === number));
    }
  }
}

const NOUNS = { upload: "upload", carry_over: "carry-over", forward: "forward pass", replay: "graph", download: "download" };

function hatch(id) {
  return draw("pattern", { id, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, draw("line", { y2: 6 }));
}

function arrowhead() {
  return draw("marker", { id: "explore-head", viewBox: "0 0 6 6", refX: 6, refY: 3, markerWidth: 6, markerHeight: 6, orient: "auto" }, draw("path", { d: "M0 0 L6 3 L0 6 z" }));
}

for (const root of document.querySelectorAll(".explore")) root.player = new Player(root);
