/* The picture of a run: a lane each for the host and the three engines of the GPU, and a cursor that can be dragged. */

"use strict";

const BARS = { CPU: [14, 34], H2D: [60, 18], compute: [90, 40], D2H: [142, 18] }; // of a lane: y and height
const SIMPLE = { CPU: [14, 34], compute: [66, 40] }; // without the copies
const LEFT = 62, RIGHT = 8, THINNEST = 1.5, LETTER = 6.2; // pixels
let timelines = 0;

class Timeline {
  /* go(time): the cursor is dragged there. hover(bar): the pointer is on this element, or on none. Without these it is
     a picture to compare with. */
  constructor(go = null, hover = null) {
    this.kind = hover ? "bar" : "beside";
    this.frame = `explore-frame-${timelines++}`;
    const listens = hover && {
      onpointerdown: (event) => this.drag(event, go),
      onpointermove: ({ target }) => hover(target.closest("[data-lane]")),
      onpointerleave: () => hover(null),
    };
    this.svg = draw("svg", {
      class: "timeline", role: "img", "aria-label": "timeline: a table below has the same", ...listens,
    });
    this.stick = draw("line", { y1: 4 });
    this.cursor = draw("g", { class: "cursor" }, this.stick, draw("circle", { cy: 6, r: 4 }));
    this.time = 0;
    new ResizeObserver(() => this.run && this.show(this.run, this.from, this.span)).observe(this.svg);
  }

  get lanes() {
    return this.simple ? SIMPLE : BARS;
  }

  get tall() {
    const [y, height] = Object.values(this.lanes).at(-1);
    return y + height + 26;
  }

  x(time) {
    return LEFT + ((time - this.from) / this.span) * (this.width - LEFT - RIGHT);
  }

  drag(event, go) {
    const move = ({ clientX }) => {
      const { left } = this.svg.getBoundingClientRect();
      go(this.from + (this.span * (clientX - left - LEFT)) / (this.width - LEFT - RIGHT));
    };
    const still = () => this.svg.removeEventListener("pointermove", move);
    this.svg.setPointerCapture(event.pointerId);
    this.svg.addEventListener("pointermove", move);
    this.svg.addEventListener("pointerup", still, { once: true });
    this.svg.addEventListener("pointercancel", still, { once: true });
    move(event);
  }

  /* Draws a run from a moment on, for so long; `simple`: without the copies. */
  show(run, from, span, simple = this.simple) {
    Object.assign(this, { run, from, span, simple, to: from + span, width: this.svg.getBoundingClientRect().width });
    if (!this.width) return;
    const wide = this.width - LEFT - RIGHT, { tall } = this;
    this.svg.setAttribute("height", tall);
    this.stick.setAttribute("y2", tall - 18);
    const lanes = Object.entries(this.lanes).flatMap(([lane, [y, height]]) => [
      draw("rect", { x: LEFT, y, width: wide, height, class: "lane" }),
      draw("text", { x: LEFT - 6, y: y + height / 2, class: "name" }, simple && lane === "compute" ? "GPU" : lane),
    ]);
    const frame = draw("clipPath", { id: this.frame }, draw("rect", { x: LEFT, width: wide, height: tall }));
    const what = [...(simple ? [] : this.arrows()), ...this.bars(), ...this.bubbles()]; // arrows behind what is written
    const inside = draw("g", { "clip-path": `url(#${this.frame})` }, ...what);
    const patterns = draw("defs", {}, frame, hatch("explore-wait"), hatch("explore-bubble"), arrowhead());
    this.svg.replaceChildren(patterns, ...lanes, inside, ...this.ticks(), this.cursor);
    this.move(this.time);
  }

  /* Puts the cursor there, and marks the arrows of what somebody waits for at that moment. */
  move(time) {
    this.time = time;
    if (!this.width) return;
    this.cursor.setAttribute("transform", `translate(${this.x(time)} 0)`);
    for (const arrow of this.svg.querySelectorAll(".arrow")) {
      const { start, end, done } = this.run.times[arrow.dataset.number];
      arrow.classList.toggle("holds", start <= time && time < (done ?? end));
    }
  }

  /* Waits first, then the longest: what is drawn wider than it is must not be covered. */
  bars() {
    const rank = ({ what, start, end }) => (what === "wait" ? Infinity : end - start);
    const visible = this.run.spans.filter(({ lane, start, end }) =>
      lane in this.lanes && end >= this.from && start <= this.to);
    return visible.sort((one, other) => (rank(one) < rank(other) ? 1 : -1)).map((span) => this.bar(span));
  }

  bar(span) {
    const { number, lane, what, batch, line, kernels } = span, call = this.run.calls[number];
    const [y, height] = this.lanes[lane], x = this.x(span.start);
    const wide = Math.max(this.x(Math.min(span.end, this.run.end)) - x, THINNEST);
    const share = kernels === undefined ? 1 : Math.min(1, kernels / (span.end - span.start)), tall = share * height;
    const access = lane !== "CPU" || call.do === "host" ? this.run.access(number) : null;
    const kind = what === "wait" ? "wait" : `slot-${(span.slot ?? "host").toLowerCase()}`;
    const bar = draw("g", {
      class: `${this.kind} ${kind} ${access ? "races" : ""}`, "data-number": number, "data-line": line, "data-lane": lane,
    });
    if (share < 0.995) bar.append(draw("rect", { x, y, width: wide, height, class: "gaps" }));
    bar.append(draw("rect", { x, y: y + height - tall, width: wide, height: tall, class: "fill" }));
    const left = Math.max(x, LEFT), room = Math.min(x + wide, this.width - RIGHT) - left;
    const texts = what === "wait" ? ["wait"] : [`${what} ${batch ?? ""}`, `${batch ?? ""}`];
    const text = texts.find(({ length }) => LETTER * length + 6 < room);
    if (text) bar.append(draw("text", { x: left + room / 2, y: y + height - tall / 2 }, text));
    const middle = Math.min(Math.max(x + wide / 2, LEFT + 3 * LETTER), this.width - RIGHT - 3 * LETTER);
    if (access) bar.append(draw("text", { x: middle, y: y - 3, class: "access" }, access));
    bar.append(draw("title", {}, this.run.tell(span)));
    return bar;
  }

  bubbles() {
    const [y, height] = this.lanes.compute;
    return this.run.windows.filter(({ bubble }) => bubble > 1e-6).flatMap(({ start, bubble }) => {
      const x = this.x(start - bubble), wide = this.x(start) - x, text = `${bubble.toFixed(2)} ms`;
      const title = draw("title", {}, `bubble, ${this.run.at(bubble)}`);
      return [
        draw("rect", { x, y: y - 2, width: Math.max(wide, THINNEST), height: height + 4, class: "bubble" }, title),
        ...(wide > LETTER * text.length ? [draw("text", { x: x + wide / 2, y: y - 5, class: "length" }, text)] : []),
      ];
    });
  }

  /* From where something is done to where whoever waits for it goes on. */
  arrows() {
    const { calls, times } = this.run;
    return calls.flatMap(({ do: what, on }, number) => {
      if (on == null) return [];
      const start = times[on].done, end = times[number].done ?? times[number].end;
      const [one, other] = [on, number].map((call) => this.run.laneOf(call));
      const drawn = Number.isFinite(end) && end >= this.from && start <= this.to;
      if (!drawn || !one || !other || one === other) return [];
      const down = BARS[one][0] < BARS[other][0];
      const edge = (lane, lower) => BARS[lane][0] + (lower ? BARS[lane][1] : 0);
      const d = `M${this.x(start)} ${edge(one, down)} L${this.x(end)} ${edge(other, !down)}`;
      return [draw("path", { class: `arrow ${what}`, "data-number": number, d })];
    });
  }

  ticks() {
    const rough = this.span / Math.max(2, Math.floor((this.width - LEFT) / 90));
    const power = 10 ** Math.floor(Math.log10(rough));
    const every = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= rough);
    const digits = Math.max(0, -Math.floor(Math.log10(every))), unit = this.run.ordered ? "" : " ms";
    const texts = [];
    for (let time = Math.ceil(this.from / every) * every; this.x(time) < this.width - 24; time += every) {
      texts.push(draw("text", { x: this.x(time), y: this.tall - 6, class: "tick" }, `${time.toFixed(digits)}${unit}`));
    }
    return texts;
  }
}

function hatch(id) {
  const size = { width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" };
  return draw("pattern", { id, ...size }, draw("line", { y2: 6 }));
}

function arrowhead() {
  const size = { viewBox: "0 0 6 6", refX: 6, refY: 3, markerWidth: 6, markerHeight: 6, orient: "auto" };
  return draw("marker", { id: "explore-head", ...size }, draw("path", { d: "M0 0 L6 3 L0 6 z" }));
}
