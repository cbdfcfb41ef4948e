"""What NCCL INFO (and RCCL, plug-in, shell) lines tell of a system; gathered line by line into a ``System``.

The words are NCCL's own (src/init.cc, src/transport/net_ib*, src/graph/connect.cc, aws-ofi-nccl). A fact that ranks
repeat is kept once.
"""

from __future__ import annotations

import re

from ...bench.log import Device, Note, System
from . import launched
from .collective import in_words
from .topo import Topo

MOST_DEVICES = 150_000
MOST_KINDS = 200  # of anything that is kept by name
MOST_WARNINGS = 50

_VERSION = re.compile(r"(?:NCCL version|RCCL version|NCCL VERSION)\s*:?\s*([\w.+-]{1,80})")
_CHANNELS = re.compile(
    r"(\d{1,6}) coll channels?(?:, (\d{1,6}) collnet channels?)?(?:, (\d{1,6}) nvls channels?)?, (\d{1,6}) p2p channels?"
)
_COMM = re.compile(r"\bnranks (\d{1,9})\b")
_NODES = re.compile(r"\bnNodes (\d{1,7})\b")
_LOCAL = re.compile(r"\blocalRanks (\d{1,5})\b")
_SET_BY = re.compile(r"([A-Z][A-Z0-9_]{2,60}) set (?:by environment )?to (\S{1,200})")
_ASSIGNED = re.compile(
    r"(?<![\w$])((?:NCCL|RCCL|UCX|FI|OFI_NCCL|OMPI_MCA|I_MPI|MPICH|MV2|CUDA|HSA|ROCR|HIP|TORCH_NCCL|OMP)_[A-Z0-9_a-z]{1,60})"
    r"=[\"']?((?:[^\s\"',;]|,(?![A-Z][A-Z0-9_]{1,60}=)){1,200})"  # "A=x,y", and srun's "A=x,B=y"
)
_PLUGIN = re.compile(r"NET/Plugin\s?: (?:Loaded|Using)(?: net)?(?: plugin)? ([^(]{1,60}?)(?: \(v\d+\))?\s*$")
_NICS = re.compile(r"\[\d+\]([\w-]{1,40})(?::(\d+)(?=[/\s]|$))?(?:/(IB|RoCE|RO))?")
_HCA = re.compile(r"HCA \d+\W{1,4}(\w{1,40})|HCA '(\w{1,40})'")
_ALGO = re.compile(r"(\w{3,20}): (\d{1,20}) Bytes -> Algo (\w{1,12}) proto (\w{1,10})", re.IGNORECASE)
_PLATFORM = re.compile(r"Running on (\S{3,40}) platform")  # aws-ofi-nccl
# The slots in which EC2 shows a p4d's and p4de's GPUs; a DGX A100's are behind switches, each 00 on a bus of its own.
_P4D = frozenset(f"{bus}{slot}0" for bus in ("10", "20", "90", "a0") for slot in ("1c", "1d"))
_BUS = re.compile(r"\bbusId ([0-9a-f]{4,9})\b")
_CONNECTED = re.compile(r"Connected (?:all )?([\w ]{3,20})")
_DRIVER = re.compile(r"cudaDriverVersion (\d{4,6})")
_DEVICE = re.compile(
    r"#?\s*Rank\s+(\d{1,9})\s+(?:Group\s+(\d{1,9})\s+)?(?:Pid\s+(\d{1,10})\s+)?on\s+(\S{1,200}(?: \S{1,60})?)\s+"
    r"device\s+(\d{1,6})\s+\[([^\]]{0,40})\]\s*(.{0,120})"
)
_HINTS = re.compile(
    r"\b(p[345]d?e?n?\.\d{1,2}xlarge|p6-b\d00\.\d{1,2}xlarge|g[4-6]\w*\.\d{1,2}xlarge|trn\d\w*\.\d+xlarge|a[23]-(?:ultra|mega|high)gpu-\d+g(?:-\w+)?|"
    r"Standard_N[CD]\w{2,40}|BM\.GPU\.[\w.]{2,30}|DGX[ -]?[A-Z]\w{2,8}|HGX[ -]?[A-Z]\w{2,8}|GB[23]00|NVL72|"
    r"Slingshot|EFA|efa|RoCE|InfiniBand)\b"
)
_MPI = re.compile(r"\b(Open MPI|Intel\(R\) MPI Library|MPICH|MVAPICH2?)\)?[ :,]{0,3}(?:Version |v)?(\d[\w.]{1,20})")
_TROUBLE = re.compile(
    r"\b(?:fail(?:ed|ure)|error|fatal|unhandled|denied|abort(?:ed|ing)?|segmentation fault|timed out|timeout|killed|"
    r"cannot allocate)\b",
    re.IGNORECASE,
)
_ALGORITHM_NUMBERS = {
    "0": "TREE",
    "1": "RING",
    "2": "COLLNET_DIRECT",
    "3": "COLLNET_CHAIN",
    "4": "NVLS",
    "5": "NVLS_TREE",
}
_PROTOCOL_NUMBERS = {"0": "LL", "1": "LL128", "2": "SIMPLE"}


class SystemBuilder:
    """Facts of one run, as its lines come. `notes` takes the log's own warnings."""

    def __init__(self, notes: list[Note]):
        self._notes = notes
        self.devices: list[Device] = []
        self.device_numbers: set[tuple] = set()
        self.buses: set[str] = set()  # of NCCL's communicators
        self.topo = Topo()
        self._unfinished = ""  # a command whose lines end in a backslash
        self.cut = False  # the list of devices ends in "..."
        self.values: dict = {}
        self.transports: dict[str, int] = {}
        self.algorithms: dict[str, int] = {}
        self.environment: dict[str, str] = {}
        self.facts: dict[str, str] = {}
        self.sets: dict[str, dict[str, None]] = {
            k: {} for k in ("nics", "connected", "topology", "graphs", "hints", "commands")
        }
        self.rings = self.trees = 0
        self._seen: set[str] = set()
        self._told: dict[str, int] = {}

    # -- lines ---------------------------------------------------------------------------------------------------

    def info(self, number: int, text: str, start: int) -> None:
        """What stands behind "NCCL INFO ", which is text[start:]. Most lines of a long log are of channels, so these come first."""
        if text.startswith("Channel ", start):
            at = text.rfind(" via ", start)
            if at > 0:
                via = text[at + 5 :]
                self.transports[via] = self.transports.get(via, 0) + 1
                if len(self.transports) > 2000:
                    self.transports = _by_kind(self.transports)
            elif text.find("->", start) < 0:
                self.rings += 1
            return
        if text.startswith("Trees ", start):
            self.trees += 1
            return
        message = text[start:].rstrip()
        if message in self._seen:
            return
        if len(self._seen) < 5000 and len(message) < 200:
            self._seen.add(message)
        self._fact(number, message)

    def _fact(self, number: int, m: str) -> None:
        if " set " in m and (found := _SET_BY.search(m)):
            self._environment(found.group(1), found.group(2).rstrip("."))
        elif found := _COMM.search(m):
            self._largest("comm_ranks", found.group(1))
            if bus := _BUS.search(m):
                self.buses.add(bus.group(1))
            for key, pattern in (("comm_nodes", _NODES), ("local_ranks", _LOCAL)):
                if more := pattern.search(m):
                    self._largest(key, more.group(1))
        elif "coll channels" in m and (found := _CHANNELS.search(m)):
            self._largest("channels", found.group(1))
            self._largest("nvls_channels", found.group(3) or "0")
            self._largest("p2p_channels", found.group(4))
        elif m.startswith("Using network "):
            self.values.setdefault("network", m[14:60].strip())
        elif m.startswith(("NET/", "Using ", "GPU Direct", "DMA-BUF", "GPU ")):
            self._net(m)
        elif m.startswith("Connected "):
            if found := _CONNECTED.match(m):
                self._add("connected", found.group(1).strip())
        elif "Algo" in m and (found := _ALGO.search(m)):
            algorithm = _ALGORITHM_NUMBERS.get(found.group(3), found.group(3).upper())
            key = f"{found.group(1)} {algorithm} {_PROTOCOL_NUMBERS.get(found.group(4), found.group(4).upper())}"
            if key in self.algorithms or len(self.algorithms) < MOST_KINDS:
                self.algorithms[key] = self.algorithms.get(key, 0) + 1
        elif m.startswith(("Pattern ", " Pattern ")):
            self._add("graphs", m.strip()[:160])
        elif m.startswith(
            ("+ ", "- ", "GPU/", "NIC/", "CPU/", "=== System", "NET/", "PCI/", "NVS/")
        ) or m.lstrip().startswith("+ "):
            self._add("topology", m[:160])
        elif found := _DRIVER.search(m):
            self.values.setdefault("driver", found.group(1))
        elif found := _VERSION.search(m):
            self._version(found)
        elif "NVLS" in m:
            self.facts.setdefault("nvls", m[:160])
        elif m.startswith(("TUNER", "Bootstrap", "MNNVL", "NVSwitch")):
            self.facts.setdefault(m.split(":")[0].split(" ")[0].strip().lower(), m[:160])
        elif "ACS" in m or "IOMMU" in m or "virtual" in m.lower():
            self.facts.setdefault("pci", m[:160])

    def _net(self, m: str) -> None:
        lower = m.lower()
        if found := _PLUGIN.search(m):
            self.values.setdefault("plugin", found.group(1).strip())
        elif "initializing aws-ofi-nccl" in lower or "NET/OFI" in m:
            self.values.setdefault("plugin", "AWS Libfabric")
            key = "ofi_provider" if "provider" in lower else "ofi" if "aws-ofi-nccl" in lower else "ofi_other"
            self.facts.setdefault(key, m[:160])
            if found := _PLATFORM.search(m):
                self._add("hints", found.group(1))
        elif "gpu direct rdma" in lower or "GPUDirect" in m:
            # One GPU without it decides: the slowest rank sets the time.
            state = not ("disabled" in lower or "not supported" in lower or "can't" in lower)
            self.values["gdr"] = state and self.values.get("gdr", True)
            self.facts.setdefault("gdr" if state else "gdr_off", m[:160])
        elif m.startswith("DMA-BUF"):
            self.facts.setdefault("dmabuf", m[:160])
        elif m.startswith(("NET/IB : Using", "NET/IB: Using", "NET/Socket : Using", "NET/Socket: Using", "NET/IBext")):
            found = _NICS.findall(m[:4000])
            if "Socket" not in m[:12]:
                self._largest("nics_a_node", str(len({name for name, _, _ in found})))
            for name, port, kind in found:
                self._add("nics", f"{name}{':' + port if port else ''}{'/' + kind if kind else ''}")
            self.values.setdefault("network_seen", "Socket" if "Socket" in m[:12] else "IB")
        elif (
            "no device found" in lower
            or "failed to open" in lower
            or "no plugin found" in lower
            or "libibverbs" in lower
        ):
            self.facts.setdefault("net_missing", m[:160])

    def other(self, number: int, text: str) -> None:
        """Any other line that might tell something: versions, settings, commands."""
        if "CCL" in text or "UCX_" in text or "OMPI_" in text or "FI_" in text or "I_MPI" in text:
            for name, value in _ASSIGNED.findall(text[:4000]):
                self._environment(name, value)
            if found := _VERSION.search(text):
                self._version(found)
        self._command(text)
        if "MPI" in text or "MVAPICH" in text:
            if found := _MPI.search(text, 0, 600):
                self.values.setdefault("mpi", f"{found.group(1)} {found.group(2)}")
        if _TROUBLE.search(text, 0, 600):
            self._warn(number, text)
        stripped = text.strip()
        if stripped.startswith("ROCm version"):
            self.values.setdefault("rocm", stripped.split(":", 1)[-1].strip()[:60])
        elif stripped.startswith("HIP version"):
            self.facts.setdefault("hip", stripped.split(":", 1)[-1].strip()[:60])
        elif stripped.startswith("librccl path"):
            self.facts.setdefault("library", stripped[:160])
        elif stripped.startswith("- software:"):
            if found := re.search(r"nccl=\(([\d, ]{3,20})\)", stripped):
                self.values.setdefault("nccl", found.group(1).replace(", ", "."))
            if found := re.search(r"cuda=([\d.]{1,12})", stripped):
                self.values.setdefault("cuda", found.group(1))
            self.facts.setdefault("software", stripped[:200])
        elif stripped.startswith("- hardware:"):
            if found := re.search(r"name='([^']{1,80})'", stripped):
                self.facts.setdefault("gpu", found.group(1))
        for hint in _HINTS.findall(text[:2000])[:4]:
            self._add("hints", hint)

    def _command(self, text: str) -> None:
        """A line that is a command's, or one of its lines."""
        begins = "mpirun" in text or "srun" in text or "mpiexec" in text or "_perf" in text or "osu_" in text
        if (not begins and not self._unfinished) or len(text) >= launched.MOST:
            return
        whole = f"{self._unfinished} {text.strip()}".strip()[: launched.MOST]
        if whole.endswith("\\") and len(whole) < launched.MOST:
            self._unfinished = whole[:-1].rstrip()
            return
        self._unfinished = ""
        if re.search(r"(^|[\s/$])(mpirun|mpiexec|srun|\./\S+|\S*_perf|osu_\w+)\s+-", whole):
            self._add("commands", whole)

    def warn(self, number: int, message: str) -> None:
        """What stands behind "NCCL WARN "."""
        self._warn(number, f"NCCL WARN {message}")

    def _warn(self, number: int, text: str) -> None:
        if len(self._told) > MOST_WARNINGS:
            return
        shape = re.sub(r"\d+", "0", text[:400])  # every rank may say the same
        self._told[shape] = self._told.get(shape, 0) + 1
        if self._told[shape] <= 3:
            self._notes.append(Note(number, "warning", text.strip()[:300]))

    def device(self, number: int, text: str) -> bool:
        """A line of the list of devices; False for any other."""
        found = _DEVICE.match(text)
        if not found:
            return False
        rank, group, pid, host, device, bus, name = found.groups()
        key = (int(rank), host, pid, device)
        if key not in self.device_numbers and len(self.devices) < MOST_DEVICES:
            self.device_numbers.add(key)
            self.devices.append(
                Device(
                    number,
                    int(rank),
                    host,
                    int(device),
                    name.strip(),
                    bus,
                    int(pid) if pid else None,
                    int(group) if group else None,
                )
            )
        return True

    def add_device(self, device: Device) -> None:
        if len(self.devices) < MOST_DEVICES:
            self.devices.append(device)

    def absorb(self, later: SystemBuilder) -> None:
        """Take in what another builder gathered; what this one has stays."""
        for mine, other in (
            (self.values, later.values),
            (self.environment, later.environment),
            (self.facts, later.facts),
        ):
            for key, value in other.items():
                mine.setdefault(key, value)
        for key, texts in later.sets.items():
            self.sets[key].update(texts)

    def command_ranks(self) -> int | None:
        """The p of a launcher's command line (-np 144), where exactly one stands in the log."""
        return launched.ranks(self.sets["commands"])

    def command_collective(self) -> str:
        found = {in_words(c) for c in self.sets["commands"]} - {""}
        return found.pop() if len(found) == 1 else ""

    # -- what comes out ------------------------------------------------------------------------------------------

    def build(self) -> System:
        if self.buses and self.buses <= _P4D and any("A100" in d.name for d in self.devices):
            self._add("hints", "p4d.24xlarge")
            self.facts.setdefault(
                "instance", f"GPUs in the PCI slots of EC2's p4d: busId {', '.join(sorted(self.buses))}"
            )
        for key, text in self.topo.facts().items():
            self.facts.setdefault(key, text)
        if count := self.values.get("nics_a_node"):
            self.facts.setdefault("nics_a_node", str(count))
        if hosts := launched.nodes(self.sets["commands"]):
            self.facts.setdefault("nodes", str(hosts))
        v, sets = self.values, {k: tuple(d) for k, d in self.sets.items()}
        transports = _by_kind(self.transports)
        by_net = [t for t in transports if t.startswith("NET/")]
        network = v.get("network") or v.get("network_seen") or ""
        if not network and by_net:
            network = by_net[0].split("/")[1]
        if not network and self.environment.get("NCCL_NET"):
            network = self.environment["NCCL_NET"]
        gdr = v.get("gdr")
        if by_net:  # what the channels really use decides over what was possible
            gdr = any("GDR" in t for t in by_net) if gdr is None or all("GDR" not in t for t in by_net) else gdr
        return System(
            devices=tuple(self.devices), nccl=v.get("nccl", ""), rccl=v.get("rccl", ""), cuda=v.get("cuda", ""),
            driver=v.get("driver", ""), rocm=v.get("rocm", ""), mpi=v.get("mpi", ""), plugin=v.get("plugin", ""), network=network,
            nics=sets["nics"], gdr=gdr, transports=transports, channels=v.get("channels"),
            nvls_channels=v.get("nvls_channels"), p2p_channels=v.get("p2p_channels"), rings=self.rings, trees=self.trees,
            connected=sets["connected"], algorithms=dict(self.algorithms), comm_ranks=v.get("comm_ranks"),
            comm_nodes=v.get("comm_nodes"), local_ranks=v.get("local_ranks"), environment=dict(self.environment),
            topology=sets["topology"], graphs=sets["graphs"], hints=sets["hints"], commands=sets["commands"],
            facts=dict(self.facts),
        )  # fmt: skip

    def _version(self, found: re.Match) -> None:
        release, _, cuda = found.group(1).partition("+cuda")
        key = "rccl" if found.group(0).startswith("RCCL") else "nccl"
        if release[:1].isdigit():
            self.values.setdefault(key, release)
        if cuda:
            self.values.setdefault("cuda", cuda)

    def _environment(self, name: str, value: str) -> None:
        if name in self.environment or len(self.environment) < MOST_KINDS:
            self.environment.setdefault(name, value)

    def _largest(self, key: str, text: str) -> None:
        self.values[key] = max(int(text), self.values.get(key) or 0)

    def _add(self, key: str, text: str) -> None:
        if len(self.sets[key]) < MOST_KINDS:
            self.sets[key].setdefault(text)


def _by_kind(counts: dict[str, int]) -> dict[str, int]:
    """Channels by what they go by, without what varies ("comm 0x..", "nRanks 02"); at most MOST_KINDS of them."""
    found: dict[str, int] = {}
    for text, n in counts.items():
        kind = re.split(r" comm | nRanks|\s*$", text, maxsplit=1)[0].strip()[:40]
        if kind in found or len(found) < MOST_KINDS:
            found[kind] = found.get(kind, 0) + n
    return found
