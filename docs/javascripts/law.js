/* The law of overlap (acb_minimal/trace/law.py): what it says of a K, an L and an H, and the point on its curve. */

"use strict";

const lawOf = ({ K, L, H, R = 0 }) => ({ synchronous: Math.max(K + R, L) + H, asynchronous: Math.max(K, L + H) });

/* Speedup by H / K: the curve where launching is short, that of this L, and the point. */
class LawCurve {
  constructor() {
    this.svg = draw("svg", { class: "curve", viewBox: "0 0 230 130", role: "img" });
  }

  show(times) {
    const { synchronous, asynchronous } = lawOf(times), speedup = synchronous / asynchronous;
    const share = times.H / times.K, short = times.L / times.K;
    const x = (ratio) => 30 + 62 * Math.min(ratio, 3), y = (value) => 108 - 92 * (value - 1);
    const path = (l, kind) => {
      const points = Array.from({ length: 121 }, (_, index) => index / 40);
      const at = (ratio) => `${x(ratio).toFixed(1)} ${y((Math.max(1, l) + ratio) / Math.max(1, l + ratio)).toFixed(1)}`;
      return draw("path", { class: kind, d: `M${points.map(at).join(" L")}` });
    };
    const text = (at, up, said, anchor = "middle") => draw("text", { x: at, y: up, "text-anchor": anchor }, said);
    this.svg.setAttribute("aria-label", `the law of overlap: a speedup of ${speedup.toFixed(2)}`);
    this.svg.replaceChildren(
      ...[1, 1.5, 2].flatMap((value) => [
        draw("line", { x1: 30, x2: 216, y1: y(value), y2: y(value) }), text(25, y(value) + 3, `${value}`, "end"),
      ]),
      ...[0, 1, 2, 3].map((ratio) => text(x(ratio), 120, `${ratio}`)),
      text(216, 129, "H / K", "end"), text(4, 10, "speedup", "start"),
      path(0, "short"), path(short, "own"),
      draw("circle", { cx: x(share), cy: y(Math.max(1, Math.min(speedup, 2))), r: 5 }),
    );
  }
}

for (const root of document.querySelectorAll(".calculator")) {
  const curve = new LawCurve(), output = root.querySelector("output");
  root.append(curve.svg);
  const input = (name) => root.querySelector(`[data-time=${name}]`);
  const field = (name) => [name, Math.max(0, input(name).value || 0)];
  const short = (value) => `${+value.toFixed(3)}`;
  const say = (event) => {
    const { K, L, H, step, active } = Object.fromEntries(["K", "L", "H", "step", "active"].map(field));
    if (["step", "active"].includes(event?.target.dataset.time)) return saySteps(step, Math.min(active, 100) / 100);
    const times = { K, L, H };
    input("step").value = short(Math.max(K, L) + H);
    input("active").value = short(100 * K / (Math.max(K, L) + H || 1));
    const { synchronous, asynchronous } = lawOf(times);
    if (!K) return;
    const why = L >= K ? "Launching takes longer than the batch: make L short first, with graphs."
      : L + H > K ? "Once it overlaps, the host sets the pace: a part of H is saved." : "All of H is saved.";
    output.replaceChildren(
      "A synchronous step takes ", make("b", {}, `${synchronous.toFixed(2)} ms`), ", an asynchronous one ",
      make("b", {}, `${asynchronous.toFixed(2)} ms`), ": a speedup of ",
      make("b", {}, (synchronous / asynchronous).toFixed(2)), `. ${why}`);
    curve.show(times);
  };
  /* From a step and the share of it that the GPU is active: K and H follow; L may be anything up to K. */
  const saySteps = (step, active) => {
    const K = step * active, H = step - K;
    input("K").value = short(K);
    input("H").value = short(H);
    input("L").value = 0;
    if (!K) return;
    const speedup = step / Math.max(K, H);
    output.replaceChildren(
      "A speedup of ", make("b", {}, `1.00 to ${speedup.toFixed(2)}`), ", the more the less time launching takes: K is ",
      `${K.toFixed(2)} ms, H ${H.toFixed(2)} ms, and L is not known. Whatever it is, never more than 1 / ${active.toFixed(2)} = `,
      make("b", {}, (1 / active).toFixed(2)), ".");
    curve.show({ K, L: 0, H });
  };
  root.addEventListener("input", say);
  say();
}
