"""The exercises of the notebooks: `check` says whether an answer is right, or gives a hint.

No answer is written down here. What is right is computed: from the profile that the reader looks at, or by running an
engine on the simulated GPU (facts.py).
"""

from collections.abc import Callable, Sequence

import torch

from ..errors import InputError
from ..model import decode_sizes
from ..run.engines import load_chapter, without
from .experiments import slower_host
from .facts import bare_model, host_waits, seconds_in, simulated_bubble, stream_waits, wrong_under
from .times import Profiles, host_seconds
from .tokens import PAIRS, answers, counted, right, simulated

EXERCISES: dict[str, Callable[..., str]] = {}


def check(name: str, answer, *given) -> None:
    """Prints "right" or a hint. A wrong answer raises nothing, whatever it is.

    Args:
        name: the exercise, "ch1.1".
        answer: the answer; None for none yet.
        given: what the exercise is about, as its cell in the notebook hands it over.

    Raises:
        InputError: there is no such exercise.
    """
    if name not in EXERCISES:
        raise InputError(f"there is no exercise {name!r}: the exercises are {', '.join(EXERCISES)}")
    if answer is None:
        print(f"{name}: not answered yet")
        return
    try:
        hint = EXERCISES[name](answer, *given)
    except Exception as error:  # an answer of another kind than was asked for, or an engine that cannot be made
        hint = f"that cannot be judged ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
    print(f"{name}: not yet: {hint}" if hint else f"{name}: right")


def exercise(name: str):
    """Declares an exercise: a function of the answer, and what is given, that returns a hint; "" if it is right."""

    def declare(judge: Callable[..., str]) -> Callable[..., str]:
        EXERCISES[name] = judge
        return judge

    return declare


def near(answer: float, truth: float, hint: str, tolerance: float = 0.01) -> str:
    """The hint, unless the answer is the truth within the tolerance, a share of it."""
    return "" if abs(float(answer) - truth) <= tolerance * abs(truth) else hint


# --- chapter 1 ---


@exercise("ch1.1")
def host_waits_in_a_step(answer: int) -> str:
    return near(answer, host_waits("ch1"), "look for `wait` in the CPU lane of the timeline; which calls block?")


@exercise("ch1.2")
def best_speed_up(answer: tuple[float, float], profiles: Profiles) -> str:
    parts = profiles["ch1"].breakdown
    no_bubbles, kernels_only = answer
    return near(
        no_bubbles, parts.step / (parts.step - parts.bubbles), "without bubbles, a step is step - bubbles long"
    ) or near(kernels_only, parts.step / parts.kernels, "with nothing but kernels, a step is `kernels` long")


@exercise("ch1.3")
def one_wait(answer: type) -> str:
    if hint := wrong_under(answer):
        return hint
    waits = host_waits(answer)
    return f"it counts right, and the host still waits {waits:g} times for a batch" if waits > 1 else ""


# --- chapter 2 ---


@exercise("ch2.1")
def two_waits(answer: type) -> str:
    if hint := wrong_under(answer):
        return hint
    waits = host_waits(answer)
    return f"it counts right, and the host still waits {waits:g} times for a batch" if waits > 2 else ""


@exercise("ch2.2")
def share_of_copies(answer: float, profiles: Profiles) -> str:
    trace = profiles["ch2"].trace
    copies = seconds_in(trace, "H2D", "upload") + seconds_in(trace, "D2H", "download")
    return near(
        answer,
        copies / profiles["ch2"].breakdown.step,
        "the mean time of an upload and of a download, over the time of a step",
        0.2,
    )


@exercise("ch2.3")
def without_the_last_wait(answer: Sequence[int]) -> str:
    session = counted(without("ch2", "self.d2h.synchronize"), simulated("lazy"))
    first = session.requests[0]
    if list(answer) == first.generated:
        return ""
    if len(answer) != len(first.generated):
        return "the length is not it: what ends a request that never says its stop token?"
    return "the length is right; what does the host find in its buffer if nothing ever arrives there?"


# --- chapter 3 ---


@exercise("ch3.1")
def share_of_waiting(answer: float, profiles: Profiles) -> str:
    share = seconds_in(profiles["ch3"].trace, "CPU", "wait") / profiles["ch3"].breakdown.step
    return near(answer, share, "the CPU lane's spans named `wait`, over the time of a step", 0.1)


@exercise("ch3.2")
def one_stream_wait(answer: type) -> str:
    if hint := wrong_under(answer):
        return hint
    if host_waits(answer) > host_waits("ch3"):
        return "it counts right, but the host waits more often than in chapter 3"
    waits = stream_waits(answer)
    return f"it counts right, and a stream still waits for another {waits:g} times a batch" if waits > 1 else ""


@exercise("ch3.3")
def unseen_race(answer: type) -> str:
    if hint := wrong_under(answer):
        timed = answers(answer, simulated("timed"))
        return f"the test sees it: {hint}" if isinstance(timed, str) or right(timed) < len(PAIRS) else ""
    return "it counts right under every schedule: it has no race"


# --- chapter 4 ---


@exercise("ch4.1")
def predicted_step(answer: float, profiles: Profiles) -> str:
    work = host_seconds(profiles["ch3"])
    hidden = profiles["ch3"].breakdown.step - work["schedule"] - work["write"]
    hint = "chapter 3's step, less what the host now does while the GPU is busy: scheduling and writing; in seconds"
    return near(answer, hidden, hint)


@exercise("ch4.2")
def rows_for_nothing(answer: int, max_new_tokens: int) -> str:
    session = counted("ch4", simulated("timed"), max_new_tokens=max_new_tokens)
    ran = sum(step.tokens for step in session.done)
    # Every position but that of the last token, which is never fed back.
    needed = sum(request.prompt_len + len(request.generated) - 1 for request in session.requests)
    hint = "which endings can the scheduler see coming from counts, and which does only a token tell?"
    return near(answer, ran - needed, hint)


@exercise("ch4.3")
def one_slot(answer: type) -> str:
    if hint := wrong_under(answer):
        return hint
    slots = {span.slot for span in counted(answer, simulated("timed")).trace.lane("H2D")}
    if len(slots) > 1:
        return f"it counts right, and still takes turns with {len(slots)} slots"
    ours, theirs = simulated_bubble(answer), simulated_bubble("ch4")
    if ours > 1.2 * theirs:
        return f"right, and one slot; but its bubble is {ours / theirs:.1f} times chapter 4's: what is hidden no more?"
    return ""


# --- chapter 5 ---


@exercise("ch5.1")
def who_sets_the_pace(answer: dict[str, str], *profiles: Profiles) -> str:
    for each in profiles:
        # Chapter 4's: in chapter 5, a host that is ahead waits inside `forward` for room to launch.
        host, kernels = sum(host_seconds(each["ch4"]).values()), each["ch5"].breakdown.kernels
        if answer[each.workload.name] != ("CPU" if host > kernels else "GPU"):
            return f"for {each.workload.name}, compare the host's work for a batch with the kernels' time"
    return ""


@exercise("ch5.2")
def bubbles_back(answer: type) -> str:
    if hint := wrong_under(answer):
        return f"it must stay right, and {hint}"
    ours, theirs = simulated_bubble(answer), simulated_bubble("ch5")
    if ours <= 1e-5 + theirs:
        return "it counts right, and its bubbles are as short as before: make the host wait for more than it needs"
    return ""


@exercise("ch5.3")
def carry_over_by_hand(answer: Callable[[list[int], list[int], list[int]], list[int]]) -> str:
    device = simulated("timed")
    model = bare_model(device, 8)
    slot, previous = model.new_slot(), model.new_slot()
    draw = torch.Generator().manual_seed(0)
    for rows in range(1, 9):
        slot.pad(rows)
        ids, carry_over = slot.written.inputs.input_ids, slot.written.inputs.carry_over
        carry_over.copy_(torch.randint(-1, 8, (rows,), generator=draw))
        ids.copy_(torch.randint(1, 1000, (rows,), generator=draw).where(carry_over < 0, 0))
        previous.device_tokens.copy_(torch.randint(1, 1000, (8,), generator=draw))
        given = ids.tolist(), carry_over.tolist(), previous.device_tokens.tolist()
        model.carry_over(slot, previous)
        device.cuda.synchronize()
        if list(answer(*map(list, given))) != ids.tolist():
            made = f"the GPU makes {ids.tolist()}"
            return f"for input ids {given[0]}, carry-over {given[1]} and tokens {given[2]} {made}"
    return ""


# --- chapter 6 ---


@exercise("ch6.1")
def graphs_captured(answer: int, max_running: int) -> str:
    device = simulated("timed")
    engine = load_chapter("ch6")(bare_model(device, max_running), None, device.cuda)  # it captures before it schedules
    return near(answer, len(engine.graphs), "one for each size in decode_sizes(max_running), and for each slot", 0)


@exercise("ch6.2")
def share_of_padding(answer: float, rows: Sequence[int], max_running: int) -> str:
    sizes = decode_sizes(max_running)
    padded = [min(size for size in sizes if size >= count) for count in rows]
    hint = "rows that are padding, over all rows that run: sum(padded sizes) - sum(rows), over sum(padded sizes)"
    return near(answer, 1 - sum(rows) / sum(padded), hint)


@exercise("ch6.3")
def host_headroom(answer: float) -> str:
    def share(factor: float) -> float:
        parts = slower_host("ch6", "wide", factor)
        return parts.bubbles / parts.step

    if not share(0.8 * answer) <= 0.01:
        return "too slow: with a fifth less, bubbles are still over 1 % of a step"
    if not share(1.2 * answer) > 0.01:
        return "too fast: with a fifth more, bubbles are still under 1 % of a step"
    return ""
