"""`acb bench`, as far as it needs no GPU; its myths are tested in tests/measure/test_myths.py."""


def test_bench_host_prints_every_size(acb):
    done = acb("bench", "host")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("8,192") == done.stdout.count("256") == 3


def test_bench_attention_needs_a_gpu(acb):
    done = acb("bench", "attention")
    assert done.returncode == 2
    assert done.stderr == "error: the attention benchmark needs a CUDA GPU; torch finds none\n"
