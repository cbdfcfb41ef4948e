"""How long a library's collective takes once the algorithm and the protocol are chosen.

The chooser (nccl.py) is a library's belief, right or wrong; this is physics with few constants, by class: a GPU's generation
for what happens inside a node, a network for what happens between nodes (data/clock.yaml, each with its standing). For p ranks,
m of a node, n nodes, N steps of a ring, S bytes, R the slower of a GPU's link and its share of the NICs::

    ring            base + L + (N+f) tau, tau = S / (p R) a step, with the flags' bytes for LL and LL128: a step is sent when the
                    one before has come, and what two slices overlap is not seen in what was measured
    tree            base + 2 ((m-1) inside + depth * network) + S / rate; Simple adds a chunk's copy to every hop
    nvls            base + (S + 2 fill) / rate: scatter, reduce, gather are a pipeline of chunks that fills
    nvls-tree       base + 2 depth * network + (S + 3 fill) / rate

L is the sum of the N hops, of which 2n cross the network. f, the bubble, is the ring's last call, which sends nothing: it waits
for the neighbour's last slice of at most 1 MiB a channel. Two GPUs have no other step to hide it behind: they reach only
2 / (2 + f) of their link, however long the message.

Seconds, bytes, bytes a second throughout.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import NamedTuple

from . import nccl, releases
from .releases import PROTOCOLS

DATA = Path(__file__).parent / "data"
WIRE = {"ll": 2.0, "ll128": 128 / 120, "simple": 1.0}  # bytes on the wire for a byte of data
_SLICE = 1 << 20  # two of the slots of Simple's buffer
_TREE_CHUNK = 512 << 10  # one of the 8 slots of Simple's buffer of 4 MiB (NCCL_BUFFSIZE, NCCL_STEPS)
_LL_SLOT = 32 << 10  # data of one of the 8 slots of LL's buffer
_NVLS_CHUNK = 128 << 10
_NVLS_TREE_CHUNK = 64 << 10  # from four nodes on, to 2.29
EAGER = 4096.0  # longest message sent without asking first, where a transport does (fi_cxi(7): 2048 + 2049)
# The NIC a channel of the DGX on which NVIDIA found its caps of trees: on three and more nodes 17.8 and 36 GB/s are three
# quarters of it, so there the caps say what a tree gets out of a NIC.
_REFERENCE_NIC = {"volta": 12e9, "ampere": 24e9, "hopper": 48e9, "blackwell": 48e9}


HARNESSES = ("nccl-tests", "pytorch", "one-process")


class Figures(NamedTuple):
    """The constants of one GPU generation and one network. Times in seconds by protocol (LL, LL128, Simple), ratios of rates."""

    hop: dict[str, float]  # inside a node
    base: dict[str, float]
    tree_hop: dict[str, float]
    tree_base: dict[str, float]
    ring_network: dict[str, float]  # a hop of the network
    tree_network: dict[str, float]
    nvls_base: float
    nvls_network: float
    message: float  # a network message more, at its sender
    rendezvous: float  # asking first, for messages beyond the eager ones
    ll_copy: float  # seconds a byte: LL's way through host memory
    bubble: float
    link: float
    nvls_rate: float  # busbw of NVLink SHARP over the link's rate
    nic: float
    tree_link: float
    tree_cap: tuple[float, float]  # over two nodes, over more
    tree_chunk: float
    fill: float
    tree_fill: float


@functools.lru_cache(maxsize=1)
def constants() -> dict:
    """data/clock.yaml as {"us": {name: {class: {"value", "low", "high", "status", "points", "start"}}}, "ratio": ...}."""
    import yaml

    return yaml.safe_load((DATA / "clock.yaml").read_text(encoding="utf-8"))


@functools.lru_cache(maxsize=1)
def settings() -> dict:
    """data/networks.yaml: networks and harnesses."""
    import yaml

    return yaml.safe_load((DATA / "networks.yaml").read_text(encoding="utf-8"))


def table(column: str = "value") -> dict:
    """One column of the constants: {"us": {name: {class: value}}, "ratio": ...}."""
    return {
        part: {name: {cls: leaf[column] for cls, leaf in classes.items()} for name, classes in names.items()}
        for part, names in constants().items()
    }


@functools.lru_cache(maxsize=1)
def _values() -> dict:
    return table()


class Job(NamedTuple):
    """The ranks of one prediction. Rates are bytes a second a direction.

    link: of one GPU as the library's search counts it; network: of a node's NICs that the ranks use, together; nics: how many
    those are; inf and 0 on one node.
    """

    generation: str
    ranks: int
    nodes: int
    local: int
    link: float
    network: float
    nics: float
    figures: Figures
    comm: nccl.Communicator | None
    reach: tuple[tuple[float, float], ...] = ()
    collective: str = "all_reduce"


@functools.lru_cache(maxsize=64)
def figures(generation: str, network: str) -> Figures:
    """The shipped constants of a GPU generation (as in releases.GENERATIONS) on a network."""
    return figures_from(_values(), generation, network)


def figures_from(values: dict, generation: str, network: str) -> Figures:
    """The constants of a table as `table` has it."""
    us, ratio, networks = values["us"], values["ratio"], settings()["networks"]

    def inside(name, part=us):
        values = part[name]
        nearest = (generation, "ampere" if generation == "volta" else "hopper", "hopper")  # NVLS begins with Hopper
        return next(values[g] for g in nearest if g in values)

    def net(name, part=us):
        values, key = part[name], network
        while key not in values:
            key = networks.get(key, {}).get("like", "infiniband")
        return values[key]

    return Figures(
        hop={p: inside(f"{p}.hop") * 1e-6 for p in PROTOCOLS},
        base={p: inside(f"{p}.base") * 1e-6 for p in PROTOCOLS},
        tree_hop={
            "ll": inside("ll.hop") * 1e-6,
            "ll128": inside("ll128.hop") * 1e-6,
            "simple": inside("tree_simple.hop") * 1e-6,
        },
        tree_base={p: inside(f"{p}.base") * 1e-6 for p in PROTOCOLS},
        ring_network={
            "ll": net("net.ring_ll") * 1e-6, "ll128": net("net.ll128") * 1e-6, "simple": net("net.ring_simple") * 1e-6
        },
        tree_network={
            "ll": net("net.tree_ll") * 1e-6, "ll128": net("net.ll128") * 1e-6, "simple": net("net.tree_simple") * 1e-6
        },
        nvls_base=inside("nvls.base") * 1e-6,
        nvls_network=net("net.nvls_tree") * 1e-6,
        message=net("net.message") * 1e-6,
        rendezvous=net("net.rendezvous") * 1e-6,
        ll_copy=net("net.ll_copy") * 1e-6 / 1024,
        bubble=inside("bubble", ratio),
        link=inside("link", ratio),
        nvls_rate=inside("nvls_rate", ratio),
        nic=net("nic", ratio),
        tree_link=ratio["tree_link"]["all"],
        tree_cap=(ratio["tree_cap"]["two"], ratio["tree_cap"]["more"]),
        tree_chunk=ratio["tree_chunk"]["all"],
        fill=ratio["fill"]["nvls"],
        tree_fill=ratio["fill"]["nvls_tree"],
    )  # fmt: skip


def seconds(job: Job, size: int, algorithm: str, protocol: str) -> float:
    """Seconds of one pair of algorithm and protocol, as in nccl.ALGORITHMS and PROTOCOLS."""
    if algorithm == "ring":
        return _ring(job, size, protocol)
    if algorithm == "tree":
        return _tree(job, size, protocol)
    if algorithm == "nvls" and job.collective != "all_reduce":
        busy = size * (job.ranks - 1) / job.ranks / (job.link * job.figures.link)  # one way only: nothing to pipeline
        return job.figures.nvls_base + busy
    if algorithm in ("nvls", "nvls-tree"):
        return _nvls(job, size)
    if algorithm == "pat":
        wait = nccl.latency(job.comm, "pat", "simple", job.collective)
        return wait + size * (job.ranks - 1) / job.ranks / _ring_rate(job)
    return _collnet(job, size, algorithm)


def _spread(job: Job, algorithm: str, protocol: str, size: float) -> float:
    """Channels in use, without the steps of nccl.channels, so that time grows with size."""
    if job.comm is None:
        return 1.0
    return max(1.0, min(job.comm.channels, size / nccl.channel_bytes(job.comm, algorithm, protocol)))


def _ring(job: Job, size: int, protocol: str) -> float:
    f, p = job.figures, job.ranks
    if job.collective in ("broadcast", "reduce"):
        return _chain(job, size, protocol)
    steps = nccl.COLLECTIVES[job.collective](p)
    rounds = steps // (p - 1)  # times that a datum goes round
    between = min(steps, rounds * job.nodes) if job.nodes > 1 else 0
    rate = _ring_rate(job) / WIRE[protocol]
    tau = size / p / rate
    hop = f.ring_network[protocol] + ring_reach(job.reach, job.nodes)
    wait = (steps - between) * f.hop[protocol] + between * hop
    waited = tau if p == 2 or job.comm is None else min(tau, job.comm.channels * _SLICE / rate)
    busy = steps * tau + f.bubble * waited
    if job.nodes > 1 and protocol == "ll":
        channels = _spread(job, "ring", protocol, size)
        wire = WIRE[protocol] * size / p / channels
        each = f.message + (f.ll_copy * wire if f.rendezvous and wire > EAGER else 0.0)
        return f.base[protocol] + max(wait, steps * max(1.0, channels / job.nics) * each) + busy
    return f.base[protocol] + wait + busy


def _ring_rate(job: Job) -> float:
    link = job.link * job.figures.link if job.local > 1 else math.inf
    return min(link, job.network * job.figures.nic)


def _chain(job: Job, size: int, protocol: str) -> float:
    """Broadcast and reduce: chunks pass all ranks one after another, so the last waits for one chunk a hop."""
    f = job.figures
    rate = _ring_rate(job) / WIRE[protocol]
    hop = f.ring_network[protocol] + ring_reach(job.reach, job.nodes)
    chunk = min(_TREE_CHUNK * _spread(job, "ring", protocol, size), size) / rate
    inside, between = job.ranks - job.nodes, job.nodes - 1
    wait = inside * f.hop[protocol] + between * hop
    fill = (job.ranks - 2) * chunk if protocol == "simple" else 0.0
    return f.base[protocol] + wait + fill + size / rate


def _tree(job: Job, size: int, protocol: str) -> float:
    f = job.figures
    channels = _spread(job, "tree", protocol, size)
    rate = min(job.link * f.link * f.tree_link / 2 if job.local > 1 else math.inf, _tree_network(job))
    rate /= WIRE[protocol]
    tables = job.comm.tables if job.comm else None
    scale = min(job.nodes, 3) - 1
    if tables:
        graph = job.comm.graphs["tree"].channels
        if protocol == "ll":
            rate = min(rate, tables.ll[scale] / 2)
        elif protocol == "ll128":
            rate = min(rate, graph * tables.tree_ll128[scale] / 2)
    hop, inside = f.tree_network[protocol], f.tree_hop[protocol]
    if protocol == "simple":
        chunk = min(_TREE_CHUNK, size / (2 * channels))
        hop += f.tree_chunk * min(2, job.nodes - 1) * chunk / (job.network / channels) if job.nodes > 1 else 0.0
        inside += chunk / (job.link / channels)
    elif job.nodes > 1:
        if protocol == "ll":
            wire = min(2 * size / channels, 2 * _LL_SLOT)
            hop += f.ll_copy * wire + (f.rendezvous if wire > EAGER else 0.0)
        hop += f.message * (channels - 1) if not f.rendezvous else 0.0
    way = depth(job.nodes) * hop + tree_reach(job.reach, job.nodes)
    return f.tree_base[protocol] + 2 * ((job.local - 1) * inside + way) + size / rate


def _tree_network(job: Job) -> float:
    """Bytes of the message a second that the busiest node's NICs carry."""
    f = job.figures
    if job.nodes == 1:
        return math.inf
    rate = job.network * f.nic / tree_share(job.nodes)
    if job.comm is None:
        return rate * 0.75
    caps = tree_caps(job.generation)
    cap = f.tree_cap[job.nodes > 2] * job.comm.graphs["tree"].channels * caps[min(job.nodes, 3) - 1] / 2
    if job.nodes > 2:
        cap *= min(1.0, job.network / job.nics / _REFERENCE_NIC[job.generation])
    return min(rate, cap)


@functools.lru_cache(maxsize=8)
def tree_caps(generation: str) -> tuple[float, ...]:
    """Bytes a second a channel that a tree gets on 1, 2 and more nodes, as the newest release has it from measurements."""
    return releases.tables(releases.newest(), generation).tree_simple


def _nvls(job: Job, size: int) -> float:
    f = job.figures
    rate = job.link * f.nvls_rate * job.ranks / (2 * (job.ranks - 1))
    wait, fills, most = f.nvls_base, f.fill, _NVLS_CHUNK
    if job.nodes > 1:
        rate = min(rate, job.network * f.nic / tree_share(job.nodes))
        wait += 2 * (depth(job.nodes) * f.nvls_network + tree_reach(job.reach, job.nodes))
        fills, most = f.tree_fill, _NVLS_CHUNK if job.nodes < 4 else _NVLS_TREE_CHUNK
    channels = nccl.channels(job.comm, "nvls", "simple", size) if job.comm else 1
    places = channels * job.local
    fill = min(size, places * nvls_chunk(size, places, most, job.nodes))
    return wait + (size + fills * fill) / rate


def _collnet(job: Job, size: int, algorithm: str) -> float:
    direct = algorithm == "collnet-direct"
    crossing = 2 * (job.local - 1) / job.local if direct else 2.0  # of the message, through a GPU's links
    rate = min(job.network, job.link / crossing if job.local > 1 else math.inf)
    wait = nccl.latency(job.comm, algorithm, "simple")
    return wait + size / (rate * (0.82 if direct else 0.76))


def tree_share(nodes: int) -> float:
    """Bytes through the NICs of the busiest node of the double binary tree, for each byte of the message, a direction."""
    return 1.0 if nodes == 2 else 1.5 if nodes == 3 else 2.0


def depth(nodes: int) -> int:
    """Hops from the deepest leaf of NCCL's binary tree to its root. (NCCL's model rounds the logarithm down.)"""
    return (nodes - 1).bit_length()


def _between(steps: tuple[tuple[float, float], ...], distance: float) -> float:
    """Seconds that a hop over `distance` domains costs more."""
    return next((seconds for inside, seconds in steps if distance < inside), 0.0)


def tree_reach(steps, nodes: int) -> float:
    """The same, over the whole way from the deepest leaf to the root: hops of 1, 2, 4, ... domains."""
    return sum(_between(steps, 2**level) for level in range(depth(nodes)))


def ring_reach(steps, nodes: int) -> float:
    """The same, a hop on average over the ring in order: few of its hops leave a group."""
    total, inside = 0.0, 1.0
    for size, seconds in steps:
        total += (1 / inside - (1 / size if size < nodes else 0.0)) * seconds
        if size >= nodes:
            break
        inside = size
    return total


def nvls_chunk(size: int, places: int, most: int, nodes: int) -> int:
    """Bytes of a chunk in each of `places` (channels x heads), as src/enqueue.cc chooses it."""
    chunk = most
    if nodes == 1:
        steps = ((64, 64 << 10), (8, 32 << 10), (2, 16 << 10))
    else:
        steps = ((16, 128 << 10), (4, 64 << 10), (1, 32 << 10))
    for times, smaller in steps:
        if size < times * places * chunk and chunk > smaller:
            chunk = smaller
    return chunk


def figures_of(software) -> Figures:
    """The constants where there is no class: the hops that a card states of its library, and the general bubble and rates."""
    ring, tree = software.ring, software.tree

    def by_protocol(hops):
        return {p: getattr(hops, p) for p in PROTOCOLS}

    return figures("other", "other")._replace(
        hop=by_protocol(ring.nvlink),
        base=by_protocol(ring.base),
        tree_hop=by_protocol(tree.nvlink),
        tree_base=by_protocol(tree.base),
        ring_network=by_protocol(ring.network),
        tree_network=by_protocol(tree.network),
    )


def as_set_up(run, network: str):
    """The run with what the network's vendor sets up for the library, where the run does not say otherwise."""
    setting = settings()["networks"].get(network, {})
    if run.algorithm == "auto" and setting.get("without"):
        run = run._replace(without=(*run.without, *setting["without"]))
    if run.protocol is None and setting.get("without_protocols"):
        run = run._replace(without_protocols=(*run.without_protocols, *setting["without_protocols"]))
    return run


def timed(seconds: float, harness: str, gpus: int, cpu: str) -> float:
    """What a harness shows of `seconds`: PyTorch adds its call; one process that launches on `gpus` GPUs in turn is not faster
    than its launches."""
    terms = settings()["harness"]
    if harness == "pytorch":
        return seconds + terms["pytorch"] * 1e-6
    if harness == "one-process":
        return max(seconds, terms["launch"].get(cpu, terms["launch"]["intel"]) * 1e-6 * gpus)
    return seconds


def asks_first(job: Job, size: int, algorithm: str, protocol: str) -> bool:
    """Whether a transport with a rendezvous carries LL messages beyond its eager ones: there its settings decide."""
    if protocol != "ll" or job.nodes == 1 or not job.figures.rendezvous:
        return False
    each = size / job.ranks if algorithm == "ring" else size
    return WIRE["ll"] * each / _spread(job, algorithm, protocol, size) > EAGER
