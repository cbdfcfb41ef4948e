"""Emulation: real ranks under a network's virtual clock, and one all-reduce size measured on it.

Ranks move and reduce real data; the time is what the network's figures say of the messages they send (transports/clock.py),
so it is the same on every machine and equals that of fabric/time/replay.py to the last picosecond.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from ..collectives import algorithms
from ..collectives.collective import COLLECTIVES, Collective
from ..collectives.schedule import COPY, RECV, RECV_REDUCE, REDUCE, SEND, schedule_name
from ..errors import UserError
from ..fabric.physics.network import PS, Network, delay_ps, pair_class, wire_ps, work_ps
from ..transports.clock import Costs
from ..transports.session import Job, Session, Unavailable
from .measure import Effort, Measured, check_after, check_before
from .record import Timing
from .statistics import median_interval

if TYPE_CHECKING:
    from ..fabric.cards.card import System

NOISY_SAMPLES = 25  # a fixed number, so that the same seed gives the same median on every machine
PACED_SAMPLES = 3  # without noise


@dataclass(frozen=True)
class FabricClock:
    """A fabric.physics.network.Network as a transports.clock.Clock. Sample i has the noise of `sample_seed(network.seed, i)`."""

    name: str
    network: Network
    others: Mapping[str, Network] = field(default_factory=dict)  # of algorithms that use the network in another way
    nodes: int | None = None  # ranks a node

    @property
    def ranks(self) -> int:
        return self.network.ranks

    @property
    def ports(self) -> int:
        return max(len(n.slow) for n in (self.network, *self.others.values()))

    @property
    def noisy(self) -> bool:
        return self.network.noisy

    def costs(self, algorithm: str, rank: int, table: np.ndarray, itemsize: int) -> Costs:
        columns = (table[name].astype(np.int64) for name in ("op", "peer", "count"))
        return Costs(*_costs(self.network_of(algorithm), rank, *columns, itemsize))

    def slices(self, collective: Collective, algorithm: str, count: int, itemsize: int, channels: int) -> int:
        """Into how many slices `busbw simulate` would cut a chunk."""
        from ..fabric.simulate import default_slices

        net = self.network_of(schedule_name(collective, algorithm))
        return default_slices(net, algorithm, count, itemsize, channels, collective, self.nodes)

    def network_of(self, algorithm: str) -> Network:
        return self.others.get(algorithm, self.network)

    def delays(self, rank: int, receives: int, sample: int) -> np.ndarray:
        if not self.noisy:
            return np.zeros(receives, np.int64)
        return _delays(self.network._replace(seed=sample_seed(self.network.seed, sample)), rank, receives)


def load_system(fabric: str, overrides: Iterable[str], ranks: int | None) -> System:
    """The card of that name or file, with figures set. Raises UserError, also where it has fewer GPUs than `ranks`."""
    from ..fabric.cards import card

    system = card.override(card.load(fabric), overrides)
    if ranks is not None and ranks > system.gpus:
        raise UserError(
            f"{ranks} ranks, but {system.name} has {system.gpus} GPUs; accepted: that many ranks at most, or --set nodes=N"
        )
    return system


def fabric_clock(
    fabric: str,
    ranks: int,
    *,
    channels: int = 1,
    collectives: Iterable[str] = ("all_reduce",),
    overrides: Iterable[str] = (),
    seed: int = 0,
    noise: str | None = None,
    stragglers: Iterable[str] = (),
    routing: str | None = None,
    failed_planes: int = 0,
) -> FabricClock:
    """The virtual clock of `ranks` ranks on the first GPUs of a system, with the networks that `busbw simulate` takes.

    channels: of the schedules, for how many ranks of a host use its NICs at once; the other figures as fabric.physics.build.build.
    Raises UserError.
    """
    from ..fabric.simulate import Options, network_for, nodes_of

    system = load_system(fabric, overrides, ranks)
    options = Options(
        (ranks,),
        (),
        channels=channels,
        seed=seed,
        noise=noise,
        stragglers=tuple(stragglers),
        routing=routing,
        failed_planes=failed_planes,
    )
    networks = {
        schedule_name(COLLECTIVES[c], name): network_for(system, replace(options, collective=c), name, ranks)
        for c in collectives
        for name in algorithms(c)
    }
    return FabricClock(system.name, next(iter(networks.values())), networks, nodes_of(system, options))


def sample_seed(seed: int, sample: int) -> int:
    """The seed of sample number `sample`: `seed` itself for the first, for the others one that has nothing to do with it.

    Seeds that follow one another will not do: a network XORs the seed with a receive's number, so they would give the
    receives the same delays in another order. Both at least 0.
    """
    return int(np.random.SeedSequence((seed, sample)).generate_state(1, np.uint64)[0] >> 1) if sample else seed


@njit(cache=True, nogil=True)
def _costs(net, rank, op, peer, count, itemsize):
    """int64 [5, steps], the rows of Costs."""
    out = np.zeros((5, len(op)), np.int64)
    for i in range(len(op)):
        nbytes = count[i] * itemsize
        if op[i] == SEND or op[i] == RECV or op[i] == RECV_REDUCE:
            k = pair_class(net, rank, peer[i])
            sends = op[i] == SEND
            wire = wire_ps(net, k, rank, peer[i], nbytes) if sends else wire_ps(net, k, peer[i], rank, nbytes)
            out[0, i] = net.port[k]
            out[1, i] = net.send_overhead[k] if sends else net.recv_overhead[k]
            out[2, i] = max(net.gap[k], wire) if sends else wire
            out[3, i] = net.latency[k]
        if op[i] == RECV_REDUCE or op[i] == REDUCE:
            out[4, i] = work_ps(net.reduce_ps[rank], nbytes)
        elif op[i] == COPY:
            out[4, i] = work_ps(net.copy_ps[rank], nbytes)
    return out


@njit(cache=True, nogil=True)
def _delays(net, rank, receives):
    out = np.zeros(receives, np.int64)
    for i in range(receives):
        out[i] = delay_ps(net, rank, i)
    return out


class Emulated(NamedTuple):
    """measured: virtual times; paced_seconds: median wall-clock seconds of the slowest rank, over the dilation, or None."""

    measured: Measured
    paced_seconds: float | None


def emulate(session: Session, job: Job, effort: Effort, pace: float | None = None) -> Emulated:
    """Run one mode of one size under the session's virtual clock; called by all processes of the session together.

    Without noise there is one sample (or as many as effort.iterations says, all alike), with noise NOISY_SAMPLES. pace: hold
    each message until its virtual arrival times this. Raises Unavailable, Stalled.
    """
    data, wrong = check_before(session, job, effort)
    samples = effort.iterations or (NOISY_SAMPLES if session.clock.noisy else 1)
    finish = session.virtual(samples).finish
    seconds = _across(finish, effort.across) / PS
    # With noise all samples are paced, so that the two medians are over the same ones.
    held = samples if session.clock.noisy else min(samples, PACED_SAMPLES)
    paced = _paced(session, pace, float(finish.max()) / PS, held) if pace else None
    if effort.check:
        wrong += check_after(session, job, data)
    median, low, high = median_interval(seconds)
    stopped = "iterations" if session.clock.noisy or effort.iterations else "exact"
    timing = Timing(
        seconds=median, ci_low=low, ci_high=high, samples=[float(s) for s in seconds], inner=1, warmup=0, stopped=stopped,
        wrong=wrong,
    )  # fmt: skip
    return Emulated(Measured(timing, late=0), paced)


def _paced(session: Session, pace: float, seconds: float, samples: int) -> float:
    """Median over the first `samples` samples; seconds: the longest virtual time."""
    longest = 0.8 * session.crew.timeout
    if seconds * pace > longest:
        raise Unavailable(
            f"--pace {pace:g}: an all-reduce of {seconds:.3g} virtual seconds would last {seconds * pace:.3g} s, too near to "
            f"--timeout {session.crew.timeout:g}; accepted here: --pace up to {longest / seconds:.3g}, or a longer --timeout"
        )
    wall = session.virtual(samples, pace=pace).wall
    return float(np.median(wall.max(axis=1))) / pace


def _across(finish: np.ndarray, how: str) -> np.ndarray:
    """One time a sample of those of all ranks, [samples, ranks]; how as Effort.across."""
    if how == "first":
        return finish[:, 0]
    return {"max": finish.max, "min": finish.min, "mean": finish.mean}[how](axis=1)
