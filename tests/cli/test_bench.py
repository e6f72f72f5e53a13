"""`acb bench`, as far as it needs no GPU; its myths are tested in tests/measure/test_myths.py."""


def test_bench_host_prints_every_size(acb):
    done = acb("bench", "host")
    assert done.returncode == 0, done.stderr
    rows = [line.split()[:2] for line in done.stdout.splitlines() if line.split() and line.split()[0].isdigit()]
    assert rows == [[rows, context] for rows in ("32", "128", "512") for context in ("256", "8,192")]


def test_bench_attention_needs_a_gpu(acb):
    done = acb("bench", "attention")
    assert done.returncode == 2
    assert done.stderr == "error: the attention benchmark needs a CUDA GPU; torch finds none\n"
