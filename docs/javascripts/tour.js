/* Five things to see, each a state of the player. */

"use strict";

const TOUR = [
  {
    says: "Chapter 1 with the published run's host work. While the CPU is in update, schedule and write, the GPU has "
      + "nothing to run: the bubble, in red. Press play, and see which line the CPU is in.",
    state: { chapter: "ch1_sync", preset: "published", other: "" },
  },
  {
    says: "Chapter 5 below it, at the same times and on the same scale. Its CPU does the same work, one batch ahead. "
      + "The bubble is gone, and a step is as long as the batch.",
    state: { chapter: "ch1_sync", preset: "published", other: "ch5_carry_over" },
  },
  {
    says: "H is longer than K now. The CPU sets the pace, and chapter 5 has bubbles, too. On the curve of the law the "
      + "point has passed the peak.",
    state: { chapter: "ch1_sync", K: 20, L: 0.01, H: 30, R: 0, other: "ch5_carry_over" },
  },
  {
    says: "Launching takes longer than the batch now: the GPU waits inside it (launch gaps: where a bar is not filled). "
      + "Asynchrony saves nothing. Tick \"decodes as graphs\", and it does.",
    state: { chapter: "ch1_sync", K: 10, L: 16, H: 5, R: 0, other: "ch5_carry_over" },
  },
  {
    says: "Chapter 3 without one of its waits, under a schedule that the judge has found. The download races with the "
      + "forward pass (in red), and a request gets a wrong token. On an idle GPU, all answers may be right.",
    state: { chapter: "ch3_events", preset: "published", without: "36", other: "", simple: false },
  },
];
