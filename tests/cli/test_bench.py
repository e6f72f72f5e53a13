"""`acb bench`, as far as it needs no GPU."""

import pytest

from acb_minimal.cli import bench
from acb_minimal.measure import result_table
from acb_minimal.measure.result_table import ResultTable


def test_bench_host_prints_every_size(acb):
    done = acb("bench", "host")
    assert done.returncode == 0, done.stderr
    rows = [line.split()[:2] for line in done.stdout.splitlines() if line.split() and line.split()[0].isdigit()]
    assert rows == [[rows, context] for rows in ("32", "128", "512") for context in ("256", "8,192")]


@pytest.mark.parametrize(("name", "what"), [("attention", "attention benchmark"), ("roofline", "roofline")])
def test_what_times_kernels_needs_a_gpu(acb, name, what):
    done = acb("bench", name)
    assert done.returncode == 2
    assert done.stderr == f"error: the {what} needs a CUDA GPU; torch finds none\n"


def test_every_table_is_kept_under_its_name(tmp_path, capsys):
    file = tmp_path / "bench.json"
    rows = {"a": 1, "b": 2}
    tables = {name: ResultTable(name, {"rows": "d"}, [[count]], "", {}, "acb bench") for name, count in rows.items()}
    bench._show(tables, None)
    assert not file.exists()
    bench._show(tables, file)
    assert result_table.load(file) == tables
    assert capsys.readouterr().out.count("rows") == 4
