"""What another program's log says, as plain data: a ``Log`` of ``Table``s of ``Row``s, and the ``System`` it describes.

Readers (``interchange.logs``) fill these; nothing here knows a format. Times are in seconds, sizes in bytes, bandwidths in bytes
a second. A field that the log does not tell is None (or empty), never a guess; what was concluded rather than read has a
``..._from`` field beside it, or a ``Note``, that says by what.
"""

from __future__ import annotations

from dataclasses import dataclass, field

UNBOUNDED = 1 << 40  # the upper end of an interval of ranks that has none


@dataclass(frozen=True, slots=True)
class Note:
    """Something about one line (0: about the whole file).

    kind: "torn" (a row that ends too early), "skipped" (seen and not read), "ranks", "collective", "units", "limit" (a bound of the
    reader was reached), "warning" (the log's own: NCCL WARN, failed checks), "read" (how something was read).
    """

    line: int
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Figures:
    """One half of a row: what was timed out-of-place, or in-place.

    seconds_error, algbw_error, busbw_error: half of the last printed digit. wrong: elements that differ; None: not checked.
    deviation: the largest deviation that releases before 2.12 print as "error": not a count. low, high, p50, p95, p99: seconds over
    iterations; cv: their coefficient of variation; samples: seconds of each iteration where the log has them.
    """

    seconds: float | None = None
    algbw: float | None = None
    busbw: float | None = None
    wrong: float | None = None
    deviation: float | None = None
    seconds_error: float = 0.0
    algbw_error: float = 0.0
    busbw_error: float = 0.0
    low: float | None = None
    high: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    cv: float | None = None
    samples: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One size of one table. count: as printed (all_gather and the like print that of one rank). repetitions: iterations, where
    printed by row. algorithm, protocol, channels: where the log says them by row."""

    line: int
    size_bytes: int
    out_of_place: Figures | None = None
    in_place: Figures | None = None
    count: int | None = None
    dtype: str = ""
    op: str = ""
    root: int | None = None
    repetitions: int | None = None
    algorithm: str = ""
    protocol: str = ""
    channels: int | None = None
    timestamp: str = ""


@dataclass(frozen=True, slots=True)
class Device:
    """A line of the list of devices. group: of NCCL_TESTS_SPLIT; bus: the PCI address as printed."""

    line: int
    rank: int
    host: str
    device: int | None = None
    name: str = ""
    bus: str = ""
    pid: int | None = None
    group: int | None = None


@dataclass(frozen=True)
class System:
    """What a log tells of the machine and the library. Everything may be empty.

    nccl, rccl, cuda, driver, rocm, mpi: releases as printed. plugin: the network plug-in's name ("AWS Libfabric", ...).
    network: "IB", "Socket", a plug-in's name: what "Using network" or the channels say. nics: as named by NET lines. gdr: whether
    GPUDirect RDMA was seen in use (True), seen off (False) or not told. transports: how many channel connections go by what
    ("P2P/CUMEM", "SHM", "NET/IB/0/GDRDMA"). channels: of collectives; nvls_channels; p2p_channels. rings, trees: how many ring and
    tree lines rank 0 printed (at most one a channel). connected: what "Connected all ..." names. algorithms: by (name, protocol)
    how often tuning lines chose it. comm_ranks, comm_nodes, local_ranks: of the largest communicator. environment: NCCL_* and the
    like, as set; topology: lines on paths (kept as they stand, at most 200); graphs: pattern lines. hints: platform names that
    prefixes, hosts or lines tell (e.g. "p5.48xlarge"). commands: command lines seen. facts: what else was told, by key.
    """

    devices: tuple[Device, ...] = ()
    nccl: str = ""
    rccl: str = ""
    cuda: str = ""
    driver: str = ""
    rocm: str = ""
    mpi: str = ""
    plugin: str = ""
    network: str = ""
    nics: tuple[str, ...] = ()
    gdr: bool | None = None
    transports: dict[str, int] = field(default_factory=dict)
    channels: int | None = None
    nvls_channels: int | None = None
    p2p_channels: int | None = None
    rings: int = 0
    trees: int = 0
    connected: tuple[str, ...] = ()
    algorithms: dict[str, int] = field(default_factory=dict)
    comm_ranks: int | None = None
    comm_nodes: int | None = None
    local_ranks: int | None = None
    environment: dict[str, str] = field(default_factory=dict)
    topology: tuple[str, ...] = ()
    graphs: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def hosts(self) -> list[str]:
        """Distinct host names of the device list, in order."""
        return list(dict.fromkeys(d.host for d in self.devices if d.host))

    @property
    def gpus(self) -> list[str]:
        """Distinct device names, in order."""
        return list(dict.fromkeys(d.name for d in self.devices if d.name))


@dataclass(frozen=True)
class Table:
    """One table of a log.

    format: the reader's name; tool, version: the program that printed it. collective: nccl-tests' name ("all_reduce",
    "all_gather", ...), MPI's in that style for OSU and IMB ("scatterv", "barrier"), or a point-to-point test ("pingpong");
    collective_from says by what. label: what tells this table from others of its log. ranks: p, None where it cannot be known;
    ranks_low, ranks_high: the interval that the figures allow; ranks_from: "figures", "devices", "count", "header" ... .
    runs: how many separate jobs printed into it (N jobs of one rank: runs N, ranks 1). host_time: times are of the CPU, which
    does not wait for the GPU. parameters: of the tool's own header line. average: the printed "Avg bus bandwidth", bytes/s.
    out_of_bounds: the printed count of wrong values. line, last_line: where it stands.
    """

    format: str
    tool: str
    collective: str
    rows: tuple[Row, ...]
    system: System
    line: int
    last_line: int
    version: str = ""
    collective_from: str = ""
    label: str = ""
    ranks: int | None = None
    ranks_low: int = 1
    ranks_high: int = UNBOUNDED
    ranks_from: str = ""
    runs: int = 1
    host_time: bool = False
    parameters: dict[str, str] = field(default_factory=dict)
    average: float | None = None
    out_of_bounds: int | None = None
    notes: tuple[Note, ...] = ()

    @property
    def wrong(self) -> float:
        """Elements that the log says are wrong, over all rows."""
        halves = (h for r in self.rows for h in (r.out_of_place, r.in_place) if h)
        return max(sum(h.wrong or 0 for h in halves), self.out_of_bounds or 0)


@dataclass(frozen=True, slots=True)
class Pair:
    """Figures between two named ends: bandwidth from source to target in bytes a second, seconds one way; both: the bandwidth of
    both ways at once, added up."""

    line: int
    source: str
    target: str
    bandwidth: float | None = None
    seconds: float | None = None
    both: float | None = None


@dataclass(frozen=True)
class Log:
    """A whole file. lines: how many it has; read_lines: how many of them told something. pairs: a list or matrix of pairs, if
    there is one."""

    path: str
    tables: tuple[Table, ...]
    system: System
    lines: int
    read_lines: int
    notes: tuple[Note, ...] = ()
    pairs: tuple[Pair, ...] = ()

    @property
    def all_notes(self) -> list[Note]:
        """Of the file and of its tables, by line."""
        return sorted({*self.notes, *(n for t in self.tables for n in t.notes)}, key=lambda n: (n.line, n.kind, n.text))
