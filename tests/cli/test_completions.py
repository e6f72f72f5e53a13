"""`acb run` and `acb compare`, of an engine that does not yield each request exactly once."""

import pytest

from acb_minimal.run.engines import chapter_paths


@pytest.mark.parametrize(
    ("yields", "message"),
    [
        ("yield from self.step()[:0]", "the engine stopped without yielding 4 requests, request '0' first"),
        ("yield from self.step()[:1]", "the engine stopped without yielding 3 requests, request '1' first"),
        ("yield from self.step() * 2", "the engine yielded request '0' twice"),
        (
            "yield from [row.request for row in self.scheduler.schedule().rows]; return",
            "the engine yielded request '0' before it was finished",
        ),
    ],
)
def test_an_engine_that_does_not_yield_each_request_once_ends_with_status_1(acb, tmp_path, yields, message):
    mine = tmp_path / "mine.py"
    mine.write_text(chapter_paths()["ch1_sync"].read_text().replace("yield from self.step()", yields))
    small = ("--device", "sim", "--requests", 4, "--new-tokens", 3, "--workload", "wide")
    for done in (acb("run", mine, *small), acb("compare", "--chapter", mine, *small)):
        assert done.returncode == 1
        assert done.stderr == f"error: {message}\n"
