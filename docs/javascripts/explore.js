/* The player of recorded runs: dials for what things cost, a source, a timeline, and a moment to go to.

   timing.js says when everything happens, run.js what to say of it, timeline.js and panels.js show it; here is the
   page's state, and what changes it. EXPLORE (made by docs/_site/explore.py) has the recordings.

   A <div class="explore"> becomes a player. Its data attributes say where it starts: chapter, preset. The address of the
   page keeps its state. */

"use strict";

const SHOWN_STEPS = 3; // in the timeline, to begin with
const SHOWN_EVENTS = 42; // of a schedule
const LINGER = 150; // ms: a line that takes no time is marked for so long all the same
const CROSSING = 9000; // ms in which the cursor goes through all that the timeline shows
const DIALS = {
  K: "the batch, on a GPU that never waits for the host",
  L: "launching it, kernel by kernel",
  H: "the rest of the host's work",
  R: "the ramp: how long an idle GPU waits for the first launches",
};
const LIMITS = { K: [0.1, 60], L: [0.01, 60], H: [0.01, 60], R: [0, 5] }; // no line of the host takes no time at all
const STEMS = Object.keys(EXPLORE.chapters);

const within = (value, [least, most]) => Math.min(Math.max(value, least), most);

class Player {
  constructor(root) {
    this.root = root;
    this.state = this.begin(root.dataset);
    this.playing = false;
    this.build();
    this.choose();
  }

  /* --- the state: chapter and the one below it, line taken away, dials (ms), time (ms; events in a schedule) --- */

  begin({ chapter, preset }) {
    const asked = new URLSearchParams(location.search);
    const number = (name) => (Number.isFinite(parseFloat(asked.get(name))) ? parseFloat(asked.get(name)) : null);
    const wanted = EXPLORE.presets.find(({ name }) => name === asked.get("preset"));
    const set = wanted ?? EXPLORE.presets.find(({ name }) => name === preset);
    const turned = Object.keys(DIALS).some((dial) => asked.has(dial));
    const rest = { other: "", simple: asked.get("simple") !== "0", without: null, t: null };
    const state = { chapter, graphs: set.graphs, preset: turned ? "" : set.name, ...rest };
    for (const [dial, limits] of Object.entries(LIMITS)) state[dial] = within(number(dial) ?? set[dial], limits);
    if (EXPLORE.chapters[asked.get("chapter")]) state.chapter = asked.get("chapter");
    if (EXPLORE.chapters[asked.get("other")]) state.other = asked.get("other");
    if (asked.has("graphs")) state.graphs = asked.get("graphs") === "1";
    if (EXPLORE.chapters[state.chapter].without[asked.get("without")]) state.without = asked.get("without");
    if (asked.has("t")) state.t = Math.max(0, number("t") ?? 0);
    return state;
  }

  address() {
    const { chapter, other, simple, graphs, preset, K, L, H, R, without, t } = this.state;
    const times = preset ? { preset } : { K, L, H, R }, flags = { simple: simple ? 1 : 0, graphs: graphs ? 1 : 0 };
    const more = { ...(without && { without }), ...(other && { other }) };
    return `?${new URLSearchParams({ chapter, ...times, ...flags, ...more, t })}`;
  }

  /* Changes something other than the time, which begins anew unless it is to be kept. */
  set(changes, keepTime = false) {
    Object.assign(this.state, keepTime ? {} : { t: null }, changes);
    this.choose();
  }

  preset(name) {
    const found = EXPLORE.presets.find((preset) => preset.name === name);
    if (!found) return;
    const { K, L, H, R, graphs } = found;
    this.set({ K, L, H, R, graphs, preset: name, without: null });
  }

  /* To a stop of the tour. */
  visit(number) {
    const { says, state } = TOUR[number], found = EXPLORE.presets.find(({ name }) => name === state.preset);
    const { K, L, H, R } = { ...found, ...state }, plain = { without: null, graphs: false, preset: "", simple: true };
    this.play(false);
    this.set({ ...plain, ...state, K, L, H, R });
    this.stop = number;
    this.toured.textContent = says;
    for (const [place, each] of this.stops.entries()) each.toggleAttribute("aria-current", place === number);
  }

  get chapter() {
    return EXPLORE.chapters[this.state.chapter];
  }

  get dials() {
    return Object.fromEntries(Object.keys(DIALS).map((dial) => [dial, this.state[dial] / 1e3]));
  }

  /* Looks everything up anew, after anything but the time has changed. */
  choose() {
    const { state, chapter } = this;
    this.deletion = state.without ? chapter.without[state.without] : null;
    const recording = this.deletion?.recording ?? ((state.graphs && chapter.graphs) || chapter.recording);
    const run = this.run = new Run(recording, this.dials);
    if (run.ordered) {
      [this.first, this.from, this.span] = [0, 0, Math.min(run.end, SHOWN_EVENTS)];
    } else {
      const { step } = run.figures;
      [this.first, this.from] = [run.steady, Math.max(0, run.steady - 0.1 * step)];
      this.span = Math.min(SHOWN_STEPS * step, run.end);
    }
    this.below = state.other && !run.ordered ? this.runOf(state.other) : null;
    this.root.classList.toggle("simple", state.simple && !run.ordered);
    this.root.classList.toggle("ordered", run.ordered);
    this.writeControls();
    this.failure.replaceChildren(...(this.deletion ? failureOf(state.without, this.deletion) : []));
    this.look(this.from);
    this.go(state.t ?? this.first);
  }

  /* Another chapter at the same times. */
  runOf(stem) {
    const { recording, graphs } = EXPLORE.chapters[stem];
    return new Run((this.state.graphs && graphs) || recording, this.dials);
  }

  /* --- the parts of the page --- */

  build() {
    const { root } = this;
    root.replaceChildren();
    const keydown = { onkeydown: (event) => this.key(event) };
    grow(root, { tabindex: 0, role: "group", "aria-label": "An engine, played", ...keydown }, []);
    const names = EXPLORE.presets.map(({ name }) => [name, name]);
    this.stops = TOUR.map((_, number) => button(`${number + 1}`, `stop ${number + 1}`, () => this.visit(number)));
    this.toured = make("p", { class: "toured", role: "status" }, "Five things to see: press 1.");
    this.simple = make("input", { type: "checkbox", onchange: () => this.set({ simple: this.simple.checked }, true) });
    this.other = select("and below it", [["", "(nothing)"], ...STEMS.map((stem) => [stem, stem])],
      (other) => this.set({ other }, true));
    this.pick = select("chapter", STEMS.map((stem) => [stem, stem]), (chapter) => this.set({ chapter, without: null }));
    this.presets = select("times of", [["", "(as the dials are)"], ...names], (name) => this.preset(name));
    this.graphs = make("input", {
      type: "checkbox", onchange: () => this.set({ graphs: this.graphs.checked, without: null }),
    });
    this.taken = select("take a line away", [], (without) => this.set({ without: without || null }));
    this.sliders = {};
    const dials = Object.entries(DIALS).map(([dial, says]) => this.dial(dial, says));
    this.says = make("p", { class: "says" });
    this.figures = make("div", { class: "figures" });
    this.failure = make("div", { class: "failure" });
    this.source = make("ol", { class: "source highlight", tabindex: 0, "aria-label": "the chapter's source" });
    this.playButton = button("▶ play", "play", () => this.play(!this.playing));
    this.clock = make("output", { class: "clock" });
    this.timeline = new Timeline((time) => { this.play(false); this.go(time); }, (bar) => this.hover(bar));
    this.beside = new Timeline();
    this.heads = [make("h5"), make("h5")];
    this.curve = new LawCurve();
    this.scrub = make("input", {
      type: "range", min: 0, step: "any", class: "scrub", "aria-label": "time",
      oninput: () => this.go(Number(this.scrub.value)),
    });
    this.told = make("p", { class: "told", role: "status" });
    this.streams = make("div", { class: "streams" });
    this.slots = make("div", { class: "slots" });
    const summary = make("summary", {}, "All of it as a table");
    this.table = make("details", { class: "spans", ontoggle: () => this.writeTable() }, summary);
    const keys = [
      this.playButton, button("‹ event", "back by an event", () => this.step(-1)),
      button("event ›", "on by an event", () => this.step(1)), button("⇤ start", "to the start", () => this.go(0)),
      button("−", "show more", () => this.zoom(2)), button("+", "show less, closer", () => this.zoom(0.5)), this.clock,
    ];
    root.append(
      make("div", { class: "tour" }, make("div", {}, "tour ", ...this.stops), this.toured),
      make("div", { class: "choices" }, this.pick.parentNode, this.other.parentNode, this.presets.parentNode,
        make("label", {}, this.graphs, " decodes as graphs"), make("label", {}, this.simple, " simple view"),
        this.taken.parentNode),
      make("div", { class: "law" }, make("div", {}, make("div", { class: "dials" }, ...dials), this.says, this.figures),
        this.curve.svg),
      this.failure,
      make("div", { class: "stage" },
        make("div", { class: "left" }, this.source),
        make("div", { class: "right" }, make("div", { class: "keys" }, ...keys),
          this.heads[0], this.timeline.svg, this.scrub, this.heads[1], this.beside.svg,
          this.told, this.streams, this.slots)),
      this.table,
    );
  }

  dial(dial, says) {
    const [min, max] = LIMITS[dial];
    const turn = ({ target }) => this.set({ [dial]: within(Number(target.value) || 0, LIMITS[dial]), preset: "" });
    const label = `${dial}, ms`, kind = { type: "range", "aria-label": `${label}: ${says}` };
    const range = make("input", { ...kind, min: 0, max, step: 0.1, oninput: turn });
    const number = make("input", { type: "number", "aria-label": label, min, max, step: "any", onchange: turn });
    this.sliders[dial] = [range, number];
    return make("div", { class: `dial ${dial}` }, make("b", {}, dial), range, number, " ms ", make("span", {}, says));
  }

  writeControls() {
    const { state, chapter, run } = this;
    this.pick.value = state.chapter;
    this.presets.value = state.preset;
    this.other.value = state.other;
    this.other.disabled = this.presets.disabled = this.simple.disabled = run.ordered;
    this.simple.checked = state.simple && !run.ordered;
    this.graphs.disabled = !chapter.graphs || this.deletion !== null;
    this.graphs.checked = !this.deletion && (state.graphs || !chapter.graphs);
    for (const [dial, inputs] of Object.entries(this.sliders)) {
      for (const input of inputs) Object.assign(input, { value: state[dial], disabled: run.ordered });
    }
    const lines = Object.entries(chapter.without);
    const harm = ([line, { text, seed }]) => [line, `${line}: ${text}${seed === undefined ? " (no harm)" : ""}`];
    const none = ["", lines.length ? "(none)" : "(no line of this one orders anything)"];
    this.taken.replaceChildren(...[none, ...lines.map(harm)].map(([value, text]) => make("option", { value }, text)));
    Object.assign(this.taken, { value: state.without ?? "", disabled: !lines.length });
    const preset = EXPLORE.presets.find(({ name }) => name === state.preset);
    const rest = "Everything else (copies, calls, carry-over, a graph's launch) is as measured on the H200.";
    const order = "A schedule: the order in which things happened. It has no times, so the dials have no say.";
    this.says.textContent = run.ordered ? order : preset ? `${preset.says}.` : rest;
    for (const [number, text] of [state.other && state.chapter, state.other].entries()) {
      this.heads[number].textContent = this.below ? text : "";
    }
    this.beside.svg.toggleAttribute("hidden", !this.below);
    this.scrub.max = run.end;
    if (this.shown !== state.chapter) this.source.replaceChildren(...sourceOf(chapter, (line) => this.light(line)));
    this.shown = state.chapter;
    this.figures.replaceChildren(...(run.ordered ? [] : this.cells()));
    this.writeTable();
  }

  /* The figures of this run, of the law, and of chapter 1. */
  cells() {
    const { state, chapter, dials } = this, { step, bubbles, gaps } = this.run.figures;
    const first = EXPLORE.chapters[STEMS[0]], others = state.graphs && chapter.graphs && !this.deletion;
    const before = new Run(others ? first.graphs : first.recording, dials).figures.step;
    const launching = others || !chapter.graphs ? { L: EXPLORE.costs.launching.replay, R: 0 } : {};
    const law = lawOf({ ...dials, ...launching });
    this.curve.show({ ...dials, ...launching, R: 0 });
    const cells = {
      step, bubbles, "launch gaps": gaps, "chapter 1's step": before, "law, synchronous": 1e3 * law.synchronous,
      "law, asynchronous": 1e3 * law.asynchronous,
    };
    const ms = (value) => (Math.abs(value) < 0.005 ? 0 : value).toFixed(2); // no -0.00
    return [...Object.entries(cells).map(([name, value]) => [name, ms(value), " ms"]),
      ["speedup over chapter 1", (before / step).toFixed(2), ""],
    ].map(([name, value, unit]) => make("div", {}, make("span", {}, name), make("b", {}, value), unit));
  }

  writeTable() {
    if (this.table.open) this.table.replaceChildren(this.table.firstChild, tableOf(this.run));
  }

  /* --- moving --- */

  go(time) {
    const t = this.state.t = within(time, [0, this.run.end]);
    if (t < this.from || t > this.from + this.span) this.look(t - 0.1 * this.span);
    this.timeline.move(t);
    if (this.below) this.beside.move(t + this.apart);
    this.scrub.value = t;
    this.clock.textContent = this.run.ordered ? `event ${Math.floor(t)} of ${this.run.end}` : `${t.toFixed(3)} ms`;
    this.writeMoment(t);
    this.keep();
  }

  /* Draws the timeline from a moment on. */
  look(from) {
    this.from = within(from, [0, Math.max(this.run.end - this.span, 0)]);
    const simple = this.state.simple && !this.run.ordered;
    this.timeline.show(this.run, this.from, this.span, simple);
    if (this.below) this.beside.show(this.below, this.from + this.apart, this.span, simple);
  }

  /* How much later the other run comes to its steady steps. */
  get apart() {
    return this.below.steady - this.run.steady;
  }

  step(way) {
    this.play(false);
    this.go(this.run.next(this.state.t, way) ?? this.state.t);
  }

  zoom(factor) {
    const { t } = this.state, share = within((t - this.from) / this.span, [0.1, 0.9]);
    this.span = within(this.span * factor, [this.run.ordered ? 8 : 0.02, this.run.end]);
    this.look(t - share * this.span);
  }

  /* From the start if it is at the end. Time runs evenly, but stands still for a moment wherever something happens. */
  play(on) {
    if (on && this.state.t >= this.run.end) this.go(0);
    const turn = this.playing = on && {};
    this.playButton.textContent = on ? "❚❚ pause" : "▶ play";
    this.playButton.title = this.playButton.ariaLabel = on ? "pause" : "play";
    this.told.ariaLive = on ? "off" : "polite"; // nobody could listen so fast
    let before = performance.now(), arrived = before;
    const tick = (now) => {
      if (this.playing !== turn) return;
      const wanted = this.state.t + (this.span * (now - before)) / CROSSING, next = this.run.next(this.state.t, 1);
      before = now;
      if (next === undefined) {
        this.play(false);
        return;
      }
      if (wanted < next) {
        this.go(wanted);
      } else if (now - arrived >= LINGER) {
        arrived = now;
        this.go(next);
      }
      requestAnimationFrame(tick);
    };
    if (on) requestAnimationFrame(tick);
  }

  key(event) {
    if (event.target.closest("input, select, summary") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " && event.target.closest("button")) return;
    const acts = {
      " ": () => this.play(!this.playing), ArrowRight: () => this.step(1), ArrowLeft: () => this.step(-1),
      Home: () => this.go(0), End: () => this.go(this.run.end), "+": () => this.zoom(0.5), "-": () => this.zoom(2),
    };
    if (!acts[event.key]) return;
    event.preventDefault();
    acts[event.key]();
  }

  /* The address follows, but not in every frame: a browser allows only so many changes. */
  keep() {
    clearTimeout(this.kept);
    this.kept = setTimeout(() => history.replaceState(null, "", this.address() + location.hash), 200);
  }

  /* --- the moment --- */

  writeMoment(t) {
    const { run } = this, number = run.callAt(t), call = run.calls[number];
    const over = t >= run.end && run.times[number].end <= t;
    for (const row of this.source.children) {
      const here = row.value === call.line && !over;
      if (here && !row.classList.contains("now")) this.reveal(row);
      row.classList.toggle("now", here);
      row.classList.toggle("gone", `${row.value}` === this.state.without);
      row.toggleAttribute("aria-current", here);
    }
    this.told.textContent = over ? "The run is over." : `Host, line ${call.line}: ${run.describe(call)}.`;
    this.streams.replaceChildren(streamsOf(run, t, (chip) => this.point(chip)));
    this.slots.replaceChildren(...slotsOf(run, t));
  }

  /* Scrolls the source, and nothing else, until the row is in sight. */
  reveal({ offsetTop, offsetHeight }) {
    const { scrollTop, clientHeight } = this.source;
    if (offsetTop < scrollTop || offsetTop + offsetHeight > scrollTop + clientHeight) {
      this.source.scrollTop = offsetTop - clientHeight / 3;
    }
  }

  hover(bar) {
    const number = bar === null ? null : Number(bar.dataset.number);
    this.light(number === null ? null : this.run.calls[number].line, number);
    const span = this.run.spans.find((each) => each.number === number && each.lane === bar.dataset.lane);
    if (span) this.told.textContent = this.run.tell(span);
  }

  /* At something in a queue: of a wait, the record it waits for is marked. */
  point(number) {
    const call = number === null ? { line: null } : this.run.calls[number];
    this.light(call.line, call.do === "wait" ? call.on : number);
  }

  /* Marks a line and all its calls, or a line and one call. */
  light(line, number = null) {
    for (const row of this.source.children) row.classList.toggle("lit", line !== null && row.value === line);
    for (const each of this.root.querySelectorAll(".bar, .chip")) {
      const one = Number(each.dataset.number);
      const lit = number === null ? this.run.calls[one].line === line : one === number;
      each.classList.toggle("lit", line !== null && lit);
    }
  }
}

function select(label, options, act) {
  const choices = options.map(([value, text]) => make("option", { value }, text));
  const select = make("select", { "aria-label": label, onchange: () => act(select.value) }, ...choices);
  make("label", {}, `${label} `, select);
  return select;
}

function button(name, label, onclick) {
  return make("button", { type: "button", title: label, "aria-label": label, onclick }, name);
}

for (const root of document.querySelectorAll(".explore")) root.player = new Player(root);
