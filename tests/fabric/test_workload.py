"""Workloads: what Grok-1's published shapes add up to, buckets that keep every byte, and files that are refused."""

import pytest
from busbw.errors import UserError
from busbw.fabric import workload
from busbw.fabric.cards import card
from hypothesis import given
from hypothesis import strategies as st

GROK = workload.load("grok-1")


def test_grok_1_is_the_sum_of_its_published_matrices():
    emb, heads, kv, key, layers, experts = 6144, 48, 8, 128, 64, 8
    ffn = 8 * emb * 2 // 3
    attention = 2 * emb * heads * key + 2 * emb * kv * key
    layer = attention + experts * 3 * emb * ffn + emb * experts + 4 * emb
    assert GROK.parameters == layers * layer + 128 * 1024 * emb + emb
    assert 314e9 <= GROK.parameters < 317e9  # "314B" in its README


def test_every_figure_says_where_it_comes_from():
    for name in workload.names():
        for key, figure in workload.load(name).figures.items():
            assert figure.source, key
            assert figure.status == "known" or figure.how, key


@given(ranks=st.integers(2, 10_000), shards=st.integers(1, 4096), gradient_bytes=st.sampled_from([2, 4]))
def test_buckets_hold_every_gradient_once(ranks, shards, gradient_bytes):
    found = workload.buckets(GROK, ranks, shards=shards, gradient_bytes=gradient_bytes)
    total = sum(b.size_bytes * b.times for b in found)
    assert 0 <= total - GROK.parameters / shards * gradient_bytes < gradient_bytes
    largest = max(40_000_000, 1_000_000 * ranks) * gradient_bytes
    assert all(0 < b.size_bytes <= largest for b in found)
    assert all(b.size_bytes == largest for b in found[:-1])


@given(st.lists(st.integers(1, 3), min_size=1, max_size=30))
def test_grouped_buckets_are_the_list_in_order(sizes):
    flat = [b.size_bytes for b in workload.group(sizes) for _ in range(b.times)]
    assert flat == sizes


def test_a_step_is_the_sum_of_its_buckets_and_overlap_leaves_the_last():
    buckets = [workload.Bucket(100, 3), workload.Bucket(7, 1)]
    asked = []

    def time(size):
        asked.append(size)
        return "ring", size * 1e-3

    step = workload.step(buckets, 8, time)
    assert asked == [100, 7]
    assert step.size_bytes == 307
    assert step.seconds == pytest.approx(0.307)
    assert step.last_seconds == pytest.approx(0.007)


def test_one_copy_of_the_model_exchanges_no_gradients():
    assert workload.group_ranks(1000, 64) == 15
    with pytest.raises(UserError, match="accepted: 128 GPUs or more"):
        workload.group_ranks(127, 64)


def text_of(name="grok-1"):
    return (workload._HERE / f"{name}.yaml").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace("value: 64\n", "value: -64\n", 1), "shards: '-64'"),
        (lambda t: t.replace("status: estimated", "status: guessed", 1), "status 'guessed'"),
        (lambda t: t.replace("shards:", "shard:", 1), "unknown key 'shard'"),
        (lambda t: t.replace("value: 64\n", "value: !!python/object/apply:os.system [ls]\n", 1), "the tag"),
        (lambda t: t.replace("title:", "name:", 1), "title"),
        (lambda t: "[" * 5000, "nest"),
        (lambda t: "- 1", "no keys"),
        (lambda t: t + "#" * (1 << 17), "more than 64 KiB"),
        (lambda t: t.replace("value: 64\n", "value: 1e3\n", 1), "whole number"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, change, message):
    path = tmp_path / "mine.yaml"
    path.write_text(change(text_of()))
    with pytest.raises(UserError, match=r"mine\.yaml") as e:
        workload.load(path)
    assert message in str(e.value)


@pytest.mark.parametrize("text", ["[" * 4096, "{a: " * 1024, "{[: " * 1024, "- " * 2048, "? " * 2048])
@pytest.mark.parametrize("quick_parser", [True, False])
def test_deep_nesting_is_refused_at_once(tmp_path, monkeypatch, text, quick_parser):
    """By the processor's time, which other programs do not lengthen; PyYAML may be there without its C parser."""
    import time

    import yaml

    if not quick_parser:
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    path = tmp_path / "deep.yaml"
    path.write_text(text)
    for load in (workload.load, card.load):
        took = []
        for _ in range(5):  # the least: a busy core's caches lengthen even the processor's time
            before = time.process_time()
            with pytest.raises(UserError, match=r"deep\.yaml"):
                load(path)
            took.append(time.process_time() - before)
            if took[-1] < 0.2:
                break
        assert min(took) < 0.2


def test_an_unknown_name_hints_at_the_nearest():
    with pytest.raises(UserError, match="did you mean grok-1"):
        workload.load("grok1")
    with pytest.raises(UserError, match="no such file"):
        workload.load("./grok.yaml")
