"""Local emulated ranks: real threads, real memory, compared with NumPy."""

import functools
import os
import threading
import time

import numpy as np
import pytest
from busbw.bench.opening import session_for
from busbw.bench.options import Options, checked
from busbw.bench.pattern import pattern
from busbw.collectives import ALGORITHMS
from busbw.collectives.schedule import INPUT, OUTPUT
from busbw.kernels.dtypes import DTYPES, OPS, find_dtype
from busbw.transports.session import Job, Session, Stalled, Unavailable
from busbw.transports.shared import SPINS_ALONE, LocalCrew
from busbw.transports.walker import SPINS, WINDOW_NS
from hypothesis import given, settings
from hypothesis import strategies as st

CAPACITY = 1 << 18


@functools.cache
def session(ranks: int) -> Session:
    return Session(LocalCrew(ranks, CAPACITY, 4 * CAPACITY, timeout=60), cache_bytes=1 << 16)


def reduce_with(s: Session, job: Job, inputs: np.ndarray) -> np.ndarray:
    """Run `job` on `inputs` [ranks, count]; returns the outputs of all ranks."""
    s.prepare(job)
    arena = s.crew.arena
    for r in range(s.ranks):
        arena.array(r, OUTPUT if job.in_place else INPUT, inputs.dtype, job.count)[:] = inputs[r]
    s.run()
    return np.array([arena.array(r, OUTPUT, inputs.dtype, job.count) for r in range(s.ranks)])


@settings(max_examples=150, deadline=None)
@given(
    ranks=st.integers(1, 9),
    algorithm=st.sampled_from(list(ALGORITHMS)),
    count=st.one_of(st.integers(0, 40), st.integers(0, CAPACITY // 8)),
    in_place=st.booleans(),
    channels=st.integers(1, 3),
    slices=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
def test_every_rank_gets_numpys_sum(ranks, algorithm, count, in_place, channels, slices, seed):
    inputs = np.random.default_rng(seed).integers(-(2**40), 2**40, (ranks, count))
    job = Job(algorithm, count, "int64", "sum", in_place, channels, slices)
    outputs = reduce_with(session(ranks), job, inputs)
    assert np.array_equal(outputs, np.broadcast_to(inputs.sum(axis=0), outputs.shape))


@settings(max_examples=60, deadline=None)
@given(
    ranks=st.integers(2, 8),
    algorithm=st.sampled_from(list(ALGORITHMS)),
    count=st.integers(1, 3000),
    in_place=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_floating_point_results_are_equal_bit_by_bit_on_all_ranks(ranks, algorithm, count, in_place, seed):
    inputs = np.random.default_rng(seed).standard_normal((ranks, count)).astype(np.float32)
    outputs = reduce_with(session(ranks), Job(algorithm, count, "float32", "sum", in_place), inputs)
    assert all(np.array_equal(outputs[0].view(np.uint32), o.view(np.uint32)) for o in outputs)
    exact = inputs.astype(np.float64).sum(axis=0)
    bound = ranks * np.finfo(np.float32).eps * np.abs(inputs).sum(axis=0)
    assert np.all(np.abs(outputs[0] - exact) <= bound)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", list(DTYPES))
def test_every_dtype_and_op_gives_the_pattern(dtype, op):
    for ranks, algorithm, in_place in ((2, "ring", False), (3, "tree", True), (5, "recursive-doubling", False)):
        s = session(ranks)
        data = pattern(dtype, op, ranks, seed=3)
        s.prepare(Job(algorithm, 1537, dtype, op, in_place))
        s.fill(data.table)
        s.run()
        assert s.check(data) == 0


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
@pytest.mark.parametrize("in_place", [False, True])
def test_back_to_back_all_reduces_never_see_stale_data(algorithm, in_place):
    """Inputs change every time, so a mailbox, flag or buffer of an earlier round that is taken for new shows."""
    rng = np.random.default_rng(1)
    for ranks in (2, 3):
        for count in (3, 100, 4099):
            for _ in range(25):
                inputs = rng.integers(-(2**40), 2**40, (ranks, count))
                outputs = reduce_with(session(ranks), Job(algorithm, count, "int64", "sum", in_place), inputs)
                assert np.array_equal(outputs, np.broadcast_to(inputs.sum(axis=0), outputs.shape))


def test_out_of_place_leaves_the_inputs_alone():
    for algorithm in ALGORITHMS:
        s = session(4)
        inputs = np.arange(4 * 999, dtype=np.int64).reshape(4, 999)
        reduce_with(s, Job(algorithm, 999, "int64", "sum"), inputs)
        kept = np.array([s.crew.arena.array(r, INPUT, np.int64, 999) for r in range(4)])
        assert np.array_equal(kept, inputs), algorithm


@pytest.mark.parametrize("window_ns, began_late", [(1, 50), (0, 0)])
def test_timing_counts_every_sample_and_leaves_the_right_result(window_ns, began_late):
    """Nobody can begin at a start that is agreed a nanosecond ahead; without one nobody is late."""
    s = Session(LocalCrew(2, CAPACITY, 4 * CAPACITY, timeout=60), cache_bytes=1 << 16)
    for post in s.crew.posts:
        post.state[WINDOW_NS] = window_ns
    data = pattern("float32", "sum", 2)
    s.prepare(Job("ring", 1000, "float32", "sum"))
    s.fill(data.table)
    samples, late = s.time(50, 3)
    assert len(samples) == 50
    assert np.all(samples > 0)
    assert late == began_late
    assert s.check(data) == 0
    s.crew.close()


@pytest.mark.parametrize("across", ["max", "min", "mean", "first"])
def test_times_of_all_ranks_make_one(across):
    s = session(3)
    s.prepare(Job("ring", 100, "float32", "sum"))
    samples, _ = s.time(5, 1, across)
    assert samples.shape == (5,) and np.all(samples > 0)


def test_fresh_inputs_are_rewritten_with_the_same_values():
    s = session(2)
    data = pattern("float32", "sum", 2)
    s.prepare(Job("two-shot", 5000, "float32", "sum"))
    s.fill(data.table)
    s.time(20, 1, fresh=True)
    assert s.check(data) == 0


def test_more_ranks_than_cores_stay_correct_and_give_the_core_to_whom_they_wait_for():
    """Polling on as if each had a core of its own costs a hundred times the processor time."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        s = Session(LocalCrew(6, CAPACITY, 4 * CAPACITY, timeout=60), cache_bytes=1 << 16)
    finally:
        os.sched_setaffinity(0, cores)
    data = pattern("float32", "sum", 6)
    s.prepare(Job("ring", 4096, "float32", "sum"))
    s.fill(data.table)
    s.time(1, 1)
    seconds = []
    for spins in (int(s.crew.posts[0].state[SPINS]), SPINS_ALONE):
        for post in s.crew.posts:
            post.state[SPINS] = spins
        before = time.process_time()
        s.time(5, 1)
        seconds.append(time.process_time() - before)
    assert s.check(data) == 0
    assert seconds[0] < seconds[1] / 4
    s.crew.close()


def test_numpy_reference_agrees():
    for op in ("sum", "prod", "min", "max"):
        for in_place in (False, True):
            s = session(3)
            data = pattern("int32", op, 3)
            s.prepare(Job("numpy", 777, "int32", op, in_place))
            s.fill(data.table)
            s.run()
            assert s.check(data) == 0


def test_a_rank_that_does_not_come_back_is_named():
    crew = LocalCrew(3, 4096, 0, timeout=0.5)
    crew.activity = "size 1 KiB, ring"
    released = threading.Event()

    def work(post):
        if post.rank == 2:
            released.wait(2)
        return post.rank

    with pytest.raises(Stalled, match=r"rank 2 did not finish within 0\.5 s.*size 1 KiB, ring"):
        crew.each(work)
    crew.close()


def test_a_stall_ends_the_session_with_its_own_words(monkeypatch):
    monkeypatch.setenv("BUSBW_INJECT", "stall:1:256")
    options = checked(
        Options(first=256, last=256, algorithms=("ring",), ranks=2, timeout=0.5, backend="cpu"), mpi=False
    )
    with pytest.raises(Stalled, match=r"rank 1 did not finish within 0\.5 s"), session_for(options) as s:
        s.prepare(Job("ring", 64, "float32", "sum"))
        s.run()


def test_an_abort_frees_ranks_that_wait_for_each_other():
    crew = LocalCrew(2, 4096, 0, timeout=0.5)
    s = Session(crew)
    s.prepare(Job("ring", 64, "float32", "sum"))
    program = s.programs[0]
    from busbw.transports.walker import ABORTED, walk

    def work(post):
        if post.rank == 1:
            time.sleep(1.0)
            return None
        return walk(program.code[1], 1, post.state, post.mpi, post.flag, None)

    with pytest.raises(Stalled, match="rank 1"):
        crew.each(work)
    assert walk(program.code[1], 1, crew.posts[0].state, crew.posts[0].mpi, crew.posts[0].flag, None) == ABORTED
    crew.close()


def test_an_exception_in_one_rank_reaches_the_caller():
    crew = LocalCrew(2, 4096, 0, timeout=5)

    def work(post):
        if post.rank == 1:
            raise ZeroDivisionError("in rank 1")

    with pytest.raises(ZeroDivisionError, match="in rank 1"):
        crew.each(work)
    crew.close()


def test_what_cannot_run_is_refused_by_name():
    s = session(2)
    with pytest.raises(Unavailable, match="mpirun"):
        s.prepare(Job("mpi-native", 8, "float32", "sum"))
    with pytest.raises(Unavailable, match="bfloat16"):
        s.prepare(Job("numpy", 8, "bfloat16", "sum"))
    with pytest.raises(Unavailable, match="was opened for"):
        s.prepare(Job("ring", CAPACITY, find_dtype("double").name, "sum"))
