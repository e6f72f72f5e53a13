/* What the law of overlap says of the K, L and H in a .calculator. */

"use strict";

for (const root of document.querySelectorAll(".calculator")) {
  const say = () => {
    const [k, l, h] = ["K", "L", "H"].map((name) => Math.max(0, root.querySelector(`[data-time=${name}]`).value || 0));
    const synchronous = Math.max(k, l) + h, asynchronous = Math.max(k, l + h);
    const why = l >= k ? "Launching takes longer than the batch: first make L short, with graphs."
      : l + h > k ? "The host sets the pace once it overlaps: a part of H is saved."
        : "All of H is saved.";
    root.querySelector("output").innerHTML = asynchronous === 0 ? "" :
      `A synchronous step takes <b>${synchronous.toFixed(2)} ms</b>, an asynchronous one ` +
      `<b>${asynchronous.toFixed(2)} ms</b>: a speedup of <b>${(synchronous / asynchronous).toFixed(2)}</b>. ${why}`;
  };
  root.addEventListener("input", say);
  say();
}
