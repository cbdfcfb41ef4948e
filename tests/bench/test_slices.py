"""Which slices a sweep takes that is told nothing: what a trial of both says, where ranks send MPI messages."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from busbw.bench import slices, sweep
from busbw.bench.measure import Effort
from busbw.bench.opening import job_for, session_for
from busbw.bench.options import Options, checked
from busbw.transports.tuning import CPU_SLICES, SLICES_MAX, UNASKED_SLICES, default_slices

KIB = 1 << 10


class Network:
    """A session of `ranks` hosts where a ring's message of n bytes takes seconds(n), beside what its bytes take."""

    slice_sizes, clock = CPU_SLICES, None

    def __init__(self, ranks, seconds, rate=25e6, transport="mpi"):
        self.ranks, self.seconds, self.rate = ranks, seconds, rate
        self.crew = SimpleNamespace(transport=transport, activity="")
        self.jobs = []

    def prepare(self, job):
        self.jobs.append(job)

    def time(self, samples, inner):
        job = self.jobs[-1]
        chunk = job.count * 4 / self.ranks
        hop = job.slices * self.seconds(chunk / job.slices) + chunk / self.rate
        return np.full(samples, 2 * (self.ranks - 1) * hop), 0


def tcp(nbytes):
    """Above 64 KiB with its header a message waits for an answer, here as long as 100 KiB take."""
    return 4e-3 if nbytes >= 64 * KIB else 20e-6


def fabric(nbytes):
    return 2e-6


@pytest.mark.parametrize("ranks", [2, 4])
def test_slices_are_short_where_long_messages_wait_for_an_answer(ranks):
    options = Options(last=4096 * KIB, algorithms=("ring",))
    assert slices.suiting(options, Network(ranks, tcp)) is UNASKED_SLICES


def test_slices_stay_long_where_messages_cost_more_than_the_question():
    network = Network(4, fabric, 50e9)
    assert slices.suiting(Options(last=1 << 26, algorithms=("ring",)), network) is CPU_SLICES
    assert {(job.count * 4 // 4 // job.slices) for job in network.jobs} == {256 * KIB, 32 * KIB}


@pytest.mark.parametrize(
    "changed, transport",
    [
        ({}, "shared"),
        ({"slices": 2}, "mpi"),
        ({"last": 128 * KIB}, "hybrid"),
        ({"algorithms": ("mpi-native",)}, "mpi"),
    ],
    ids=["nothing is sent", "slices are given", "chunks are short", "nothing is cut"],
)
def test_nothing_is_tried_where_there_is_nothing_to_choose(changed, transport):
    network = Network(4, tcp, transport=transport)
    assert slices.suiting(replace(Options(last=4096 * KIB, algorithms=("ring",)), **changed), network) is CPU_SLICES
    assert network.jobs == []


def test_noise_does_not_choose():
    assert slices.chosen([1.0, 1.0, 1.1], [0.95, 0.95, 5.0]) is CPU_SLICES
    assert slices.chosen([0.5, 1.0, 1.1], [0.5, 0.5, 9.0]) is UNASKED_SLICES


def test_short_slices_are_below_the_limit_until_there_are_too_many():
    for ranks in (2, 4, 32):
        for nbytes in (1 << n for n in range(16, 31)):
            cut = default_slices("ring", ranks, nbytes, UNASKED_SLICES)
            if nbytes <= UNASKED_SLICES.most * UNASKED_SLICES.ring:
                assert nbytes // ranks // cut <= 32 * KIB or cut == 1
            else:
                assert cut == default_slices("ring", ranks, nbytes) <= SLICES_MAX


def test_a_job_is_cut_as_its_session_says():
    options = Options(last=1 << 20, algorithms=("ring",))
    asked = options, "all_reduce", "ring", 1 << 18, "float32", "sum", "in_place", 4, None, None
    assert [job_for(*asked, sizes).slices for sizes in (CPU_SLICES, UNASKED_SLICES)] == [1, 8]


def test_a_sweep_cuts_as_the_trial_says(monkeypatch):
    monkeypatch.setattr(sweep, "suiting", lambda options, session: UNASKED_SLICES)
    asked = Options(
        first=512 * KIB,
        last=512 * KIB,
        algorithms=("ring",),
        ranks=2,
        backend="cpu",
        effort=Effort(iterations=1, warmup=0),
    )
    options = checked(asked, mpi=False)
    with session_for(options) as session:
        assert [record.slices for record in sweep.sweep(options, session)] == [8]
