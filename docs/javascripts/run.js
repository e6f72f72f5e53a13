/* A recorded run at certain costs: when everything happens (timing.js), and what to say of it.

   Times are in ms, or, where a schedule is played, in events. */

"use strict";

const NOUNS = {
  upload: "upload", carry_over: "carry-over", forward: "forward pass", replay: "graph", download: "download",
};

class Run {
  constructor(recording, dials) {
    this.recording = recording;
    this.calls = recording.calls;
    this.ordered = recording.happened !== undefined;
    this.times = this.ordered ? inOrder(recording) : timed(recording, EXPLORE.costs, dials).map(inMs);
    this.spans = spansOf(recording, this.times);
    this.windows = this.ordered ? [] : windowsOf(this.spans);
    const known = this.times.flatMap(({ start, end, begin, done }) => [start, end, begin, done]);
    this.moments = [...new Set(known.filter((time) => time !== null && Number.isFinite(time)))].sort((a, b) => a - b);
    this.end = this.moments.at(-1);
  }

  get figures() {
    return figuresOf(this.recording, this.spans);
  }

  /* When the first batch that figures are taken from is scheduled. */
  get steady() {
    const [batch] = this.recording.steady;
    return this.times[this.calls.findIndex((call) => call.what === "schedule" && call.batch === batch)].start;
  }

  /* The number of the call that the host is in: the last one that it has begun. */
  callAt(t) {
    return this.times.findLastIndex(({ start }) => start !== null && start <= t + 1e-12);
  }

  /* The next moment at which something begins or ends, or the one before. */
  next(t, way) {
    const tiny = 1e-9;
    return way > 0 ? this.moments.find((time) => time > t + tiny) : this.moments.findLast((time) => time < t - tiny);
  }

  /* What is queued in each stream, oldest first: the calls' numbers, and whether the device has begun with them. */
  queues(t) {
    const queues = new Map();
    this.calls.forEach(({ stream }, number) => {
      if (stream === undefined) return;
      if (!queues.has(stream)) queues.set(stream, []);
      const { start, begin, done } = this.times[number];
      if (start === null || start > t || done === null || done <= t) return;
      queues.get(stream).push({ number, running: begin !== null && begin <= t });
    });
    return queues;
  }

  /* What lies in the parts of each slot, with its batch, and the tokens that the host has of each request. */
  memory(t) {
    const slots = {}, answers = {};
    this.calls.forEach((call, number) => {
      const { end, done } = this.times[number];
      if (call.slot) slots[call.slot] ??= {};
      if (call.then && (call.do === "launch" ? done : end) <= t) {
        for (const [part, words] of Object.entries(call.then)) slots[call.slot][part] = { words, batch: call.batch };
      }
      if (call.answers && end <= t) Object.assign(answers, call.answers);
    });
    return { slots, answers };
  }

  /* Of a hazard's two calls: "reads" or "writes"; of others nothing. */
  access(number) {
    const { calls, writes } = this.recording.hazard ?? { calls: [] };
    const place = calls.indexOf(number);
    return place < 0 ? null : writes[place] ? "writes" : "reads";
  }

  /* The lane of a call: its own, that of the work before a record, or that of the work behind a wait. */
  laneOf(number) {
    const way = this.calls[number].do === "wait" ? 1 : -1, { stream } = this.calls[number];
    if (this.calls[number].do === "sync") return "CPU";
    for (let other = number; other >= 0 && other < this.calls.length; other += way) {
      if (this.calls[other].stream === stream && this.calls[other].engine) return LANES[this.calls[other].engine];
    }
    return null;
  }

  at(time) {
    if (!Number.isFinite(time)) return "never";
    return this.ordered ? `${time}` : `${time.toFixed(3)} ms`;
  }

  /* A span in a line. */
  tell({ lane, what, batch, slot, start, end, line }) {
    const whose = `${batch === null ? "" : ` of batch ${batch}`}${slot === null ? "" : `, slot ${slot}`}`;
    return `${lane}: ${what}${whose}; starts at ${this.at(start)}, takes ${this.at(end - start)}; line ${line}`;
  }

  /* What the host does in a call. */
  describe(call) {
    const { batch, slot, stream, on } = call;
    const where = slot ? `, slot ${slot}` : "", unheard = `${call.event}, which was never recorded: no wait`;
    if (call.do === "host") return `${call.what}${batch === undefined ? "" : ` for batch ${batch}`}${where}`;
    if (call.do === "launch") return `queues the ${NOUNS[call.what]} of batch ${batch} in ${stream}${where}`;
    if (call.do === "record") return `records ${call.event} in ${stream}`;
    const awaited = on === null ? unheard : call.do === "wait" ? this.calls[on].event : this.awaited(on);
    return call.do === "wait" ? `${stream} is to wait for ${awaited}` : `waits for ${awaited}`;
  }

  /* What a call is called by whoever waits for it. */
  awaited(number) {
    const call = this.calls[number];
    if (call.do === "launch") return `the ${NOUNS[call.what]} of batch ${call.batch}`;
    if (call.do === "wait") return `all that is queued in ${call.stream}`;
    const before = this.calls.slice(0, number).findLast(({ engine, stream }) => engine && stream === call.stream);
    const behind = before ? `, recorded behind the ${NOUNS[before.what]} of batch ${before.batch}` : "";
    return `${call.event} in ${call.stream}${behind}`;
  }

  /* What a stream does whose queue that is. */
  doing([head]) {
    if (head === undefined) return "has nothing to do";
    const call = this.calls[head.number];
    if (head.running) return `runs the ${NOUNS[call.what]} of batch ${call.batch}`;
    if (call.do === "wait") return `waits for ${this.awaited(call.on)}`;
    return this.ordered ? "has not begun" : "is being handed its work";
  }

  /* A call as it is named in a queue. */
  name({ do: what, ...call }) {
    if (what === "launch") return `${call.what} ${call.batch}`;
    return what === "wait" ? `wait: ${this.calls[call.on].event}` : `record ${call.event}`;
  }
}

function inMs(time) {
  const scaled = Object.entries(time).map(([name, seconds]) => [name, seconds === null ? null : 1e3 * seconds]);
  return Object.fromEntries(scaled);
}
