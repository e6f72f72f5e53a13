/* When everything in a recorded run happens.

   A recording (docs/_site/recording.py) has what an engine of the course has called, in order. That order
   does not depend on time, so times follow from it and from what things cost, by the rules of the simulated GPU
   (acb_minimal/sim/policies.py): a stream runs in order, an engine does one thing at a time, a wait holds a stream back
   until the record is done, a synchronize holds the host back. A test holds this file to the simulator, span by span.

   Times are in seconds. Of every call:
     start, end    when the host makes it, and goes on
     begin, done   when the device begins with what it has queued, and is done with it */

"use strict";

const LANES = { h2d: "H2D", compute: "compute", d2h: "D2H" };
const LAUNCHES = ["carry_over", "forward", "replay"];

/* By what things cost. dials: the times K, L, H of the law of overlap, and R, the ramp. costs: all else. */
function timed(recording, costs, dials) {
  const launching = { ...costs.launching, forward: dials.L };
  const computing = { ...costs.computing, forward: dials.K };
  const streamFree = {}, engineFree = {}, times = [];
  let now = 0;
  for (const call of recording.calls) {
    const time = { start: now, end: now, begin: null, done: null };
    times.push(time);
    const behind = streamFree[call.stream] ?? 0;
    if (call.do === "host") {
      now += dials.H * costs.shares[call.what];
    } else if (call.do === "launch") {
      now += launching[call.what];
      const issued = call.gradual ? time.start : now;
      const busy = call.seconds ?? call.parts.reduce((sum, part) => sum + computing[part], 0);
      time.begin = Math.max(behind, issued, engineFree[call.engine] ?? 0);
      // A GPU that comes to it later has that much less to wait until the host is ahead.
      const ramp = call.what === "forward" ? Math.max(0, dials.R - (time.begin - issued)) : 0;
      time.done = Math.max(time.begin + busy + ramp, now);
      time.kernels = busy;
      streamFree[call.stream] = engineFree[call.engine] = time.done;
    } else if (call.do === "record") {
      time.done = streamFree[call.stream] = Math.max(behind, now);
      now += costs.call;
    } else if (call.on !== null) {
      const awaited = times[call.on].done;
      if (call.do === "wait") {
        time.done = streamFree[call.stream] = Math.max(behind, now, awaited);
        now += costs.call;
      } else if (call.always || awaited > now) {
        now = Math.max(now, awaited) + costs.call;
      }
    }
    time.end = now;
  }
  return times;
}

/* By the order in which a schedule had them happen: one after another, each one second long. What the device does is
   shown where it was done with it; records and waits take no time, and are done as soon as nothing holds them back. */
function inOrder(recording) {
  const times = recording.calls.map(() => ({ start: null, end: null, begin: null, done: null }));
  let host = 0;
  recording.happened.forEach((number, tick) => {
    const call = recording.calls[number < 0 ? ~number : number], time = times[number < 0 ? ~number : number];
    if (number < 0) {
      time.begin = tick;
      time.done = tick + 1;
    } else { // a host that waits has begun to when it was done with the call before
      time.start = call.do === "sync" ? host : tick;
      time.end = host = tick + 1;
    }
  });
  const last = {};
  recording.calls.forEach((call, number) => {
    if (call.do === "launch") {
      times[number].done ??= Infinity;
    } else if (call.stream !== undefined) {
      const behind = last[call.stream] === undefined ? 0 : times[last[call.stream]].done;
      const awaited = call.on == null ? 0 : times[call.on].done;
      times[number].done = Math.max(behind, awaited, times[number].end);
    }
    if (call.stream !== undefined) last[call.stream] = number;
  });
  return times;
}

/* What a trace of the run has: spans, in the order of the calls. */
function spansOf(recording, times) {
  const spans = [];
  recording.calls.forEach((call, number) => {
    const { start, end, begin, done, kernels } = times[number];
    const of = { number, batch: call.batch ?? null, slot: call.slot ?? null, line: call.line };
    const waits = call.do === "sync";
    if (start !== null && (call.do === "host" || call.do === "launch" || (waits && end > start))) {
      spans.push({ lane: "CPU", what: waits ? "wait" : call.what, start, end, ...of });
    }
    if (call.do === "launch" && begin !== null) {
      const known = call.engine === "compute" && kernels !== undefined ? { kernels } : {};
      spans.push({ lane: LANES[call.engine], what: call.what, start: begin, end: done, ...of, ...known });
    }
  });
  return spans;
}

/* When each batch is on the GPU, from its first compute span to its last, in order. */
function windowsOf(spans) {
  const windows = new Map();
  for (const { lane, batch, start, end, kernels } of spans) {
    if (lane !== "compute") continue;
    const window = windows.get(batch) ?? { batch, start, end, kernels: 0 };
    window.start = Math.min(window.start, start);
    window.end = Math.max(window.end, end);
    window.kernels += kernels ?? 0;
    windows.set(batch, window);
  }
  const ordered = [...windows.values()].sort((one, other) => one.start - other.start);
  ordered.forEach((window, place) => {
    window.bubble = place ? Math.max(window.start - ordered[place - 1].end, 0) : 0;
  });
  return ordered;
}

/* Medians over the typical decodes: what a step takes, by the GPU's clock, and what of it is lost. */
function figuresOf(recording, spans) {
  const steady = windowsOf(spans).filter(({ batch }) => recording.steady.includes(batch));
  const median = (of) => {
    const values = steady.map(of).sort((one, other) => one - other), half = values.length / 2;
    return (values[Math.floor(half)] + values[Math.ceil(half) - 1]) / 2;
  };
  return {
    step: median(({ start, end, bubble }) => end - start + bubble),
    bubbles: median(({ bubble }) => bubble),
    gaps: median(({ start, end, kernels }) => end - start - kernels),
  };
}
