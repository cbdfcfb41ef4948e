"""What a table's run was: machine, ranks, nodes and library, and where each of these is known from."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace

from ..bench.log import Log, Table
from ..errors import UserError
from ..fabric.cards.card import System
from ..fabric.library import predict, published, releases
from ..fabric.library.predict import Platform, Run
from ..fabric.library.published import Point, Skipped

HOST_GPUS = 8  # of the reference designs of every GPU generation with NVLink switches
MPI_TOOLS = ("OSU", "IMB")
OWN_TOOL = "busbw sweep"


@dataclass(frozen=True)
class Given:
    """What the user says, which counts before what the log says; None: not said. gpu, nics: in words ("H100", "8x400 Gb/s")."""

    system: System | None = None
    gpu: str | None = None
    nics: str | None = None
    nodes: int | None = None
    ranks: int | None = None
    library: str | None = None


@dataclass(frozen=True)
class Situation:
    """platform: None where there is no model. known: facts with where they come from; assumed: what neither log nor user says;
    missing: the one thing that must be told before a bandwidth can be judged, in one line, "" for nothing. against: what the run is
    held against where that is not the library's model ("what the memory allows"), else ""."""

    collective: str
    ranks: int | None
    nodes: int | None
    platform: Platform | None
    run: Run
    gpu: str = ""
    known: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    missing: str = ""
    against: str = ""


def situate(log: Log, table: Table, given: Given = Given()) -> Situation:
    """The situation of a table. Raises UserError where what is given cannot be."""
    known: list[str] = []
    ranks, why = (given.ranks, "--ranks") if given.ranks else (table.ranks, table.ranks_from)
    if ranks:
        known.append(f"{ranks} ranks: {why}")
    nodes, why = _nodes(table, given, ranks)
    if nodes:
        known.append(f"{nodes} node{'s' * (nodes > 1)}: {why}")
    library = _library(table, given, known)
    run = Run(collective=table.collective, library=library, harness=_harness(table), **_forced(table, known))
    gpu, why = _gpu(log, table, given)
    base = Situation(table.collective, ranks, nodes, None, run, gpu)

    def without_a_model(missing: str) -> Situation:
        return replace(base, known=tuple(known), missing=missing)

    if ranks == 1:
        return without_a_model("")
    if table.tool.startswith(MPI_TOOLS):
        return without_a_model("there is no model of an MPI library's time: only the curve's own shape is judged")
    if not ranks:
        return without_a_model("p is not in the log: name it with --ranks P")
    if given.system is not None:
        known.append(f"{given.system.name}: --system")
        nodes = nodes or -(-ranks // given.system.node.gpus)
        machine = predict.platform(given.system)
        machine = predict.laid_out(machine, ranks, nodes) if ranks % nodes == 0 else machine
        return replace(base, platform=machine, nodes=nodes, gpu=gpu or given.system.gpu.name, known=tuple(known))
    if not gpu:
        return without_a_model(
            "the GPU is not in the log: name the system with --system NAME (busbw systems lists them), or --gpu and --nics"
        )
    known.append(f"{gpu}: {why}")
    if told := table.system.facts.get("instance"):
        known.append(told)
    assumed: list[str] = []
    if nodes is None and (again := _listed_again(table)) > 1:
        nodes = again
        assumed.append(f"{nodes} nodes: each GPU is listed {nodes} times, as if of one host (--nodes N)")
    elif nodes is None:
        nodes = -(-ranks // HOST_GPUS)
        assumed.append(f"{nodes} node{'s' * (nodes > 1)}: {ranks} ranks at {HOST_GPUS} GPUs a node (--nodes N)")
    return _of_words(base, table, given, gpu, nodes, known, assumed)


def _of_words(base, table, given, gpu, nodes, known, assumed) -> Situation:
    """From the names of GPU and NICs, as published points are read."""
    nics = given.nics or ("" if nodes > 1 else "none")
    if nics and given.nics:
        known.append(f"NICs {given.nics}: --nics")
    elif nodes > 1 and (seen := nics_seen(table)):
        each = min(
            len(seen), int(table.system.facts.get("nics_a_node", len(seen)))
        )  # hosts may name theirs differently
        nics = f"{each} per node {' '.join(table.system.hints)}"
        known.append(f"{each} NIC{'s' * (each > 1)} a node: NCCL INFO")
    point = Point(
        line=table.line,
        series="",
        system=" ".join(table.system.hints),
        gpu=gpu,
        nic=nics or " ".join(table.system.hints) or "not stated",
        nodes=nodes,
        ranks=base.ranks,
        per_node=-(-base.ranks // nodes),
        library=_library_words(table, base.run),
        algorithm="",
        size=None,
        seconds=None,
        busbw=None,
    )
    try:
        machine = published.machine(point)
    except Skipped as e:
        return replace(base, nodes=nodes, known=tuple(known), assumed=tuple(assumed), missing=str(e))
    assumed += [a for a in machine.assumed if "release is not stated" not in a]
    run = base.run._replace(library=machine.run.library, without_protocols=machine.run.without_protocols)
    return replace(base, platform=machine.platform, run=run, nodes=nodes, known=tuple(known), assumed=tuple(assumed))


def _library_words(table: Table, run: Run) -> str:
    """As a published point names its library."""
    if table.system.rccl or "rccl" in table.tool or run.library == "rccl":
        return f"RCCL {table.system.rccl}".strip()
    return f"NCCL {run.library.removeprefix('nccl-')}" if run.library else ""


def nics_seen(table: Table) -> list[str]:
    """NICs that the library says it uses, each once, whatever its ports."""
    names = (n.split("/")[0].split(":")[0] for n in table.system.nics)
    return list(dict.fromkeys(n for n in names if not n.startswith(("eth", "ens", "eno", "bond0.", "lo", "docker"))))


def _nodes(table: Table, given: Given, ranks: int | None) -> tuple[int | None, str]:
    if given.nodes:
        return given.nodes, "--nodes"
    if table.system.comm_nodes and table.system.comm_ranks == ranks:
        return table.system.comm_nodes, "the communicator in NCCL INFO"
    hosts = len(table.system.hosts)
    listed = len({d.rank for d in table.system.devices})
    if _listed_again(table) > 1:
        return None, ""
    if hosts and ranks and (listed == ranks or (hosts > 1 and ranks % hosts == 0 and listed == hosts)):
        return hosts, "the list of devices"
    if (n := table.parameters.get("nodes", "")).isdigit() and int(n) > 0:
        return int(n), "the log"
    told = int(table.system.facts.get("nodes", 0))
    if told and ranks and ranks % told == 0:
        return told, "the command line"
    return None, ""


def _listed_again(table: Table) -> int:
    """How often each GPU stands in the list of devices. NCCL refuses two ranks on one: several hosts have been given one name."""
    places = Counter((d.host, d.device, d.bus) for d in table.system.devices if d.bus)
    return min(places.values(), default=1)


def _gpu(log: Log, table: Table, given: Given) -> tuple[str, str]:
    if given.gpu:
        return given.gpu, "--gpu"
    for name in (*table.system.gpus, *log.system.gpus, table.system.facts.get("gpu", "")):
        if re.search(r"\d", name):  # "NVIDIA Graphics Device" says nothing
            return name, "the list of devices"
    for hint in (*table.system.hints, *log.system.hints):
        if hint in ("GB200", "GB300"):
            return hint, "a name in the log"
    return "", ""


def _library(table: Table, given: Given, known: list[str]) -> str | None:
    if given.library:
        known.append(f"{given.library}: --library")
        return given.library
    if not table.system.nccl:
        return None
    found = releases.nearest(f"NCCL {table.system.nccl}")
    if found is None:
        return None
    known.append(f"NCCL {table.system.nccl}: the log" + (f" ({found.assumed})" if found.assumed else ""))
    return f"nccl-{found.name}"


_NCCL_ALGO = {"ring": "ring", "tree": "tree", "nvls": "nvls", "nvlstree": "nvls-tree", "collnetdirect": "sharp",
              "collnetchain": "sharp", "collnet": "sharp"}  # fmt: skip


def _forced(table: Table, known: list[str]) -> dict:
    """What NCCL_ALGO and NCCL_PROTO force, where they name one; lists and exclusions leave the choice to the library."""
    out: dict = {}
    env = table.system.environment
    algorithm = _NCCL_ALGO.get(env.get("NCCL_ALGO", "").lower())
    if algorithm:
        out["algorithm"] = algorithm
        known.append(f"algorithm {algorithm}: NCCL_ALGO in the log")
    protocol = env.get("NCCL_PROTO", "").lower()
    if protocol in releases.PROTOCOLS:
        out["protocol"] = protocol
        known.append(f"protocol {protocol}: NCCL_PROTO in the log")
    return out


def _harness(table: Table) -> str:
    if "all_reduce_bench" in table.tool or table.tool.startswith("PARAM"):
        return "pytorch"
    pids = {d.pid for d in table.system.devices if d.pid}
    return "one-process" if len(pids) == 1 and len(table.system.devices) > 1 else "nccl-tests"


def check(given: Given) -> None:
    """Raises UserError for what no run can have."""
    for flag, value in (("--ranks", given.ranks), ("--nodes", given.nodes)):
        if value is not None and not 1 <= value <= 10_000_000:
            raise UserError(f"{flag} {value}; accepted: 1 to 10000000")
    if given.library is not None:
        releases.find(given.library)
