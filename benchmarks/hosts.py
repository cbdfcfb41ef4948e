"""Ring all-reduce over several hosts with slow links: measured, as the model has it, and beside the MPI library's own.

    python benchmarks/hosts.py --hosts 4 --megabits 200

The hosts are network namespaces of this machine (tests/hosts.py; needs root and iproute2), so that the links are the slow part and
two cores can drive them. `links` is what a ring's 2(p-1)/p S bytes take at the links' rate alone; `ours` is a sweep that is told
nothing, which chooses the slices; `modelled` is `busbw simulate` of that very schedule on a card that says nothing but those links;
`library` is MPI_Allreduce in the same sweep. Each time is the best of the medians of --rounds sweeps: other work may disturb one.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mode

from busbw.bench.record import read
from busbw.bench.sizes import format_size, parse_size, sweep_sizes

_spec = importlib.util.spec_from_file_location("busbw_test_hosts", Path(__file__).parent.parent / "tests" / "hosts.py")
hosts = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = hosts
_spec.loader.exec_module(hosts)

SEGMENT = 1448  # payload of an Ethernet frame of 1500 bytes with TCP's timestamps; headers before it: 66 bytes

CARD = """\
title: {n} hosts, each behind a shaped link of {megabits:g} Mb/s
gpus: {{value: {n}, status: known, source: "tests/hosts.py"}}
gpu:
  name: {{value: one core, status: known, source: "tests/hosts.py"}}
  architecture: {{value: cpu, status: known, source: "tests/hosts.py"}}
  memory: {{value: 1 GB, status: estimated, source: "none", how: "not used"}}
  memory_bandwidth: {{value: 10 GB/s, status: estimated, source: "none", how: "a core's part of a small machine"}}
  power: {{value: 10 W, status: estimated, source: "none", how: "not used"}}
node:
  gpus: {{value: 1, status: known, source: "tests/hosts.py"}}
  nics: {{value: 1, status: known, source: "tests/hosts.py"}}
  domain: {{value: 1, status: known, source: "tests/hosts.py"}}
  link:
    name: {{value: none, status: known, source: "one rank a host"}}
    kind: {{value: memory, status: known, source: "one rank a host"}}
    nominal_rate: {{value: 10 GB/s, status: estimated, source: "none", how: "not used"}}
    rate: {{value: 10 GB/s, status: estimated, source: "none", how: "not used"}}
    latency: {{value: 1 us, status: estimated, source: "none", how: "not used"}}
    sharp: {{value: false, status: known, source: "one rank a host"}}
nic:
  name: {{value: veth, status: known, source: "tests/hosts.py"}}
  rate: {{value: {megabits:g} Mb/s, status: known, source: "tc tbf, tests/hosts.py"}}
  ports: {{value: 1, status: known, source: "tests/hosts.py"}}
  framing: {{value: slingshot, status: estimated, source: "RFC 9293, RFC 7323", how: "TCP has 66 bytes, slingshot 62"}}
  mtu: {{value: {segment} B, status: known, source: "1500 bytes less 40 of headers and 12 of timestamps"}}
  message_overhead: {{value: 10 us, status: estimated, source: "none", how: "a system call and a copy"}}
  message_rate: {{value: 100 kmsg/s, status: estimated, source: "none", how: "one over the overhead"}}
  latency: {{value: 40 us, status: estimated, source: "none", how: "two TCP stacks and a wake-up"}}
switch:
  name: {{value: a bridge, status: known, source: "tests/hosts.py"}}
  radix: {{value: 64, status: known, source: "tests/hosts.py"}}
  port_rate: {{value: {megabits:g} Mb/s, status: known, source: "tc tbf, tests/hosts.py"}}
  latency: {{value: 1 us, status: estimated, source: "none", how: "a function call"}}
network:
  topology: {{value: single-switch, status: known, source: "tests/hosts.py"}}
  tiers: {{value: 1, status: known, source: "tests/hosts.py"}}
  planes: {{value: 1, status: known, source: "tests/hosts.py"}}
  oversubscription: {{value: 1.0, status: known, source: "tests/hosts.py"}}
  routing: {{value: static, status: known, source: "tests/hosts.py"}}
  cable_lengths: {{value: [0 m], status: known, source: "tests/hosts.py"}}
  sharp: {{value: false, status: known, source: "tests/hosts.py"}}
software: {{part: nccl-hopper}}
power:
  all_in_per_gpu: {{value: 10 W, status: estimated, source: "none", how: "not used"}}
"""


def card(n: int, megabits: float) -> str:
    return CARD.format(n=n, megabits=megabits, segment=SEGMENT)


def measured(cluster, n: int, first: str, last: str, budget: float, algorithms: str, folder: Path, *more: str) -> list:
    """Records of out-of-place all-reduces with a rank on each of n hosts; budget: seconds for one size."""
    out = folder / f"measured-{len(list(folder.iterdir()))}.jsonl"
    sweep = ["sweep", "-b", first, "-e", last, "-f", "4", "--algo", algorithms, "--budget", f"{budget:g}"]
    more = [*more, "--in-place", "no", "--no-report", "-q", "--out", out]
    done = cluster.mpirun([1] * n, "-m", "busbw", *sweep, *more, timeout=1800)
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)
    return read(out).records


def modelled(n: int, megabits: float, first: str, last: str, folder: Path, *more: str) -> dict[int, tuple[float, int]]:
    """Size in bytes -> seconds, slices."""
    path, out = folder / "links.yaml", folder / f"modelled-{len(list(folder.iterdir()))}.jsonl"
    path.write_text(card(n, megabits))
    command = ["simulate", str(path), "--ranks", str(n), "-b", first, "-e", last, "-f", "4", "--algo", "ring", *more]
    subprocess.run(
        [sys.executable, "-m", "busbw", *command, "--out", str(out), "-q"], check=True, stdout=subprocess.PIPE
    )
    return {r.size_bytes: ((r.out_of_place or r.in_place).seconds, r.slices) for r in read(out).records}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--megabits", type=float, default=200)
    parser.add_argument("-b", dest="first", default="64K")
    parser.add_argument("-e", dest="last", default="4M")
    parser.add_argument("--budget", type=float, default=1.0, help="seconds for one size and mode")
    parser.add_argument("--rounds", type=int, default=3, help="sweeps of each size")
    args = parser.parse_args()
    if problem := hosts.missing():
        sys.exit(problem)
    made = hosts.hosts(args.hosts, megabits=args.megabits)
    print(f"{args.hosts} hosts, links of {args.megabits:g} Mb/s, ring, float32, out of place; ms", flush=True)
    print("    size slices     links  modelled      ours   library  ours/modelled  library/ours", flush=True)
    with tempfile.TemporaryDirectory(prefix="busbw-hosts-") as folder, made as cluster:
        for size in sweep_sizes(parse_size(args.first), parse_size(args.last), factor=4):
            this = str(size), str(size)
            rounds = [
                measured(cluster, args.hosts, *this, args.budget, "ring,mpi-native", Path(folder))
                for _ in range(args.rounds)
            ]
            ours, library = (min(r[i].out_of_place.seconds for r in rounds) for i in range(2))
            slices = mode(r[0].slices for r in rounds)
            model = modelled(args.hosts, args.megabits, *this, Path(folder), "--slices", str(slices))
            seconds = model[size][0]
            links = 2 * (args.hosts - 1) / args.hosts * size * 8 / (args.megabits * 1e6)
            cells = "".join(f"{1e3 * t:10.2f}" for t in (links, seconds, ours, library))
            print(f"{format_size(size):>8}{slices:>7}{cells}{ours / seconds:15.2f}{library / ours:14.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
