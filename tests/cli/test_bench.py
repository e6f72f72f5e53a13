"""`acb bench`, as far as it needs no GPU."""

from acb_minimal.cli import bench
from acb_minimal.measure import result_table
from acb_minimal.measure.result_table import ResultTable


def test_every_table_is_kept_under_its_name(tmp_path, capsys):
    file = tmp_path / "bench.json"
    rows = {"a": 1, "b": 2}
    tables = {name: ResultTable(name, {"rows": "d"}, [[count]], "", {}, "acb bench") for name, count in rows.items()}
    bench._show(tables, None)
    assert not file.exists()
    bench._show(tables, file)
    assert result_table.load(file) == tables
    assert capsys.readouterr().out.count("rows") == 4
