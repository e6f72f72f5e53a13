"""What the page of chapter 3 says of a step that only waits at its end: the picture shows it."""

import importlib.util
from pathlib import Path

spec = importlib.util.spec_from_file_location(
    "unordered", Path(__file__).parents[2] / "docs" / "_site" / "unordered.py"
)
spec.loader.exec_module(site := importlib.util.module_from_spec(spec))


def test_the_download_runs_before_its_forward_pass_has_ended_although_the_host_waits_for_both():
    trace, source = site.unordered()
    assert "simulated" in source["device"]
    _, last = trace.middle(1)
    for number in (last - 1, last):
        spans = {(span.lane, span.name): span for span in trace.spans if span.batch_number == number}
        forward, download = spans["compute", "forward"], spans["D2H", "download"]
        assert forward.start < download.end < forward.end
        assert spans["CPU", "update"].start >= forward.end
        assert site.early(trace, number) == forward.end - download.start > 0
