/* The parts of the player beside its timeline: source, streams, slots, requests, table. Each is made from a run. */

"use strict";

const PARTS = ["pinned inputs", "inputs", "outputs", "pinned outputs"]; // of a slot, on the way of a batch

const table = (rows, attributes = {}, ...before) =>
  make("table", { class: "plain", ...attributes }, ...before, make("tbody", {}, ...rows));
const head = (text, attributes = {}) => make("th", { scope: "row", ...attributes }, text);
const cell = (text, attributes = {}) => make("td", attributes, ...[text].flat());

/* A line each. point(line): the pointer is on this line, or on none. */
function sourceOf({ lines }, point) {
  return lines.map(({ number, indent, html }) => {
    const code = make("code", { style: `--indent: ${indent}ch` });
    code.innerHTML = html || " "; // highlighted when the site was built
    const pointer = { onpointerenter: () => point(number), onpointerleave: () => point(null) };
    return make("li", { value: number, ...pointer }, code);
  });
}

/* Streams, what they do, and what is in their queues. point(number): the pointer is on this call, or on none. */
function streamsOf(run, t, point) {
  const rows = [...run.queues(t)].map(([stream, queue]) => {
    const chips = queue.map(({ number, running }) => {
      const call = run.calls[number], slot = `slot-${(call.slot ?? "").toLowerCase()}`;
      const kinds = `chip ${call.do} ${slot} ${running ? "running" : ""} ${run.access(number) ? "races" : ""}`;
      const pointer = { onpointerenter: () => point(number), onpointerleave: () => point(null) };
      return make("li", { class: kinds, "data-number": number, ...pointer }, run.name(call));
    });
    const doing = make("span", {}, run.doing(queue));
    return make("tr", {}, head(stream), cell([doing, make("ol", { class: "queue" }, ...chips)]));
  });
  return table(rows, { "aria-label": "streams" });
}

/* What lies in the slots, and what the host has of each request; a token that is not right is marked. */
function slotsOf(run, t) {
  const { slots, answers } = run.memory(t), { hazard, requests, right, batches } = run.recording;
  const held = Object.keys(slots).sort().flatMap((slot) => PARTS.map((part) => {
    const { words, batch } = slots[slot][part] ?? { words: [] };
    const races = hazard?.memory === `slot ${slot}'s ${part}`;
    return make("tr", { class: races ? "races" : "" },
      head(`${slot} ${part}`, { class: `slot-${slot.toLowerCase()}` }),
      cell(batch === undefined ? "" : `batch ${batch}`),
      cell(part.endsWith("outputs") ? words.join(" · ") : byRequest(words, batches[batch]), { class: "words" }));
  }));
  const given = Object.entries(requests).map(([id, prompt]) => {
    const tokens = (answers[id] ?? []).flatMap((word, place) => {
      const wrong = right !== undefined && right[id][place] !== word;
      return [" ", wrong ? make("mark", { title: `right is ${right[id][place]}` }, word) : word];
    });
    return make("tr", {}, head(`request ${id}`), cell(prompt.join(" ")), cell(tokens, { class: "words" }));
  });
  const captions = ["slots: what lies in host and device memory", "requests: prompt, and the tokens the host has seen"];
  return [held, given].map((rows, number) =>
    make("div", { class: "scroll" }, table(rows, {}, make("caption", {}, captions[number]))));
}

/* Tokens of a batch's inputs, those of one request together. */
function byRequest(words, rows = []) {
  let place = 0;
  return rows.map(([, length]) => words.slice(place, (place += length)).join(" ")).join(" · ");
}

/* All spans, for whoever cannot see the timeline. */
function tableOf(run) {
  const names = ["lane", "what", "batch", "slot", "start", "length", "line"];
  const rows = [...run.spans].sort((one, other) => one.start - other.start).map((span) => {
    const { lane, what, batch, slot, start, end, line } = span;
    const cells = [lane, what, batch ?? "", slot ?? "", run.at(start), run.at(end - start), line ?? ""];
    return make("tr", {}, ...cells.map((text) => cell(`${text}`)));
  });
  const heads = make("thead", {}, make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name))));
  return make("div", { class: "scroll", tabindex: 0 }, table(rows, {}, heads));
}

/* A line that was taken away, and what came of it. */
function failureOf(line, { text, seed, recording }) {
  const taken = [`Line ${line} taken away: `, make("code", {}, text), ". "];
  if (seed === undefined) {
    const harmless = "No schedule was found that goes wrong without it. It is there for speed, if for anything: "
      + "compare the bubbles with it and without.";
    return [make("p", {}, ...taken, harmless)];
  }
  const found = `The first schedule found that goes wrong (seed ${seed} of `;
  const race = recording.hazard ? `${recording.hazard.text}. ` : "No two accesses race. ";
  return [
    make("p", {}, ...taken, found, make("code", {}, "acb check"), "):"),
    make("p", { class: "wrong" }, race, recording.failure ? `Then: ${recording.failure}.` : ""),
  ];
}
