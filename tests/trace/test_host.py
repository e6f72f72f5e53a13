"""What the host did while the GPU waited."""

import pytest
from tape import Tape, sync, us

from acb_minimal.trace.host import NOTHING


@pytest.mark.parametrize("backwards", [False, True])
def test_it_is_the_innermost_event_summed_over_steps_with_what_it_is_in_and_the_phase(backwards):
    tape = Tape()
    for number in range(8):
        start = tape.now
        tape.event("user_annotation", f"ProfilerStep#{number}", start, start + 270)
        tape.event("python_function", "engine.py(7): step", start, start + 100)
        tape.event("user_annotation", "schedule", start + 10, start + 70)
        tape.event("cpu_op", "aten::empty", start + 20, start + 25)
        tape.event("python_function", "<built-in method fill at 0x7f12ab>", start + 30, start + 35 + number % 2)
        tape.event("cuda_runtime", "cudaEventSynchronize", start + 90, start + 115, tid=2)
        tape.now = start + 150
        tape.launch(20)
        tape.now += 60
        tape.launch(40)
        tape.wait(tape.download())
    if backwards:
        tape.events.reverse()
    doing = tape.report().doing
    assert [(each.name, each.under, each.phase) for each in doing[:4]] == [
        (NOTHING, "", "host"),  # from 100 on
        ("schedule", "engine.py(7): step", "host"),
        (NOTHING, "", "launching"),  # between the two launches
        ("engine.py(7): step", "", "host"),
    ]
    seconds = {(each.name, each.phase): each.seconds for each in doing}
    assert us(seconds["schedule", "host"]) == 60 - 5 - 5.5
    assert us(seconds["aten::empty", "host"]) == 5
    assert us(seconds["<built-in method fill>", "host"]) == 5.5
    assert us(seconds["engine.py(7): step", "host"]) == 40
    assert us(seconds["cudaStreamSynchronize", "waiting"]) == 3
    report = tape.report()
    parts = report.typical.parts
    assert sum(each.seconds for each in doing) == pytest.approx(parts.bubbles + parts.launch_gaps)


def test_batches_are_not_told_apart_by_the_numbers_in_their_annotations():
    tape = sync(8)
    for number, event in enumerate(tape.events):
        event["name"] = event["name"].replace("schedule", f"schedule batch {number}")
    assert tape.report().doing[0].name == "schedule batch "
