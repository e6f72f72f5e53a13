"""`acb run`, of an engine that does not yield each request exactly once."""

import pytest

from acb_minimal.run.engines import chapter_paths


@pytest.mark.parametrize(
    ("yields", "message"),
    [
        ("yield from self.step()[:0]", "4 requests were not yielded, first request 0"),
        ("yield from self.step()[:1]", "3 requests were not yielded, first request 1"),
        ("yield from self.step() * 2", "4 requests were yielded more than once, first request 0"),
        ("yield from [row.request for row in self.scheduler.schedule().rows]; return", "were yielded before they were"),
    ],
)
def test_an_engine_that_does_not_yield_each_request_once_ends_with_status_1(acb, tmp_path, yields, message):
    mine = tmp_path / "mine.py"
    mine.write_text(chapter_paths()["ch1_sync"].read_text().replace("yield from self.step()", yields))
    done = acb("run", mine, "--device", "sim", "--requests", 4, "--new-tokens", 3, "--workload", "wide")
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
