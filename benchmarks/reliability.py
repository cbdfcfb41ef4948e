"""Strikes sweeps at random: what a killed, stopped or interrupted rank leaves behind. Nothing may hang, nothing may be lost.

    python benchmarks/reliability.py --trials 300 --seed 1

A trial starts a sweep (local ranks, a shared window, MPI only, or both together), waits a random time of what an undisturbed one
takes, and sends SIGKILL, SIGSTOP or SIGINT to one rank, or Ctrl-C to all. Then it asks:

    hangs       did the job end within the time-out and a grace?
    lost        is every record still there that the file had at the stroke, and every row the table had shown?
    unnamed     was the rank named (Ctrl-C: nobody need be), by us in one line or by the launcher, and no other?
    tracebacks  did a user see one?
    swallowed   did a sweep go on for more than a second after an interrupt, to its end?
    code        is the exit code 3 for a stop, 130 for an interrupt, not 0 for a kill?
    resume      does the same command, with --resume where a size was finished, then complete the file?

Local ranks are threads of one process, which is stopped as a whole: there the sweep must go on after SIGCONT. Exit code 1 if
any answer was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from busbw.transports.launcher import launch

MODES = {
    "local": (0, ("--ranks", "2")),
    "shared": (2, ()),
    "mpi": (2, ("--transport", "mpi")),
    "hybrid": (3, ("--node-size", "2")),
}
STROKES = ("kill", "stop", "interrupt", "ctrl-c")
SIZES = ("-b", "1K", "-e", "1M", "-f", "4", "--algo", "ring", "--budget", "0.05", "--no-report", "-q")
SIZES_FINISHED = 6
GRACE_SECONDS = 10  # beside the time-out: for the launcher to end the job, and for a busy machine
BROKEN = ("hang", "lost", "unnamed", "misnamed", "traceback", "swallowed", "code", "resume")
SWALLOWED_SECONDS = 1.0


@dataclass
class Trial:
    number: int
    mode: str
    stroke: str
    victim: int
    at: float  # seconds after the start; of an undisturbed sweep's duration, until it begins
    seconds: float = 0.0  # from the stroke to the end
    undisturbed: float | None = None  # seconds of a sweep that was over before the stroke
    code: int | None = None
    said: str = ""
    finished: int = 0
    wrong: list[str] = field(default_factory=list)
    over_before: bool = False


def command(mode: str, out: Path, timeout: float) -> list[str]:
    ranks, more = MODES[mode]
    if mode == "local":  # nobody can be late: on a busy machine all are slow
        timeout = 60.0
    launcher = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(ranks)] if ranks else []
    sweep = [sys.executable, "-m", "busbw", "sweep", *SIZES, *more, "--out", str(out), "--timeout", f"{timeout:g}"]
    return [*launcher, *sweep]


def environment() -> dict[str, str]:
    return {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def ranks_of(out: Path) -> dict[int, int]:
    """rank -> pid of the processes that write `out`."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if str(out).encode() not in words or b"mpirun" in words[0]:
                continue
            pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        said = launch(dict(p.decode(errors="replace").split("=", 1) for p in pairs if b"=" in p))
        found[said.rank if said else 0] = int(pid)
    return found


def strike(trial: Trial, process: subprocess.Popen, out: Path) -> None:
    if trial.stroke == "ctrl-c" or (trial.mode == "local" and trial.stroke == "interrupt"):
        process.send_signal(signal.SIGINT)
        return
    until = time.monotonic() + 30
    while trial.victim not in (ranks := ranks_of(out)) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    if trial.victim not in ranks:
        return
    number = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "interrupt": signal.SIGINT}[trial.stroke]
    try:
        os.kill(ranks[trial.victim], number)
        if trial.mode == "local" and trial.stroke == "stop":
            time.sleep(2)
            os.kill(ranks[trial.victim], signal.SIGCONT)
    except ProcessLookupError:
        pass


def run(trial: Trial, folder: Path, timeout: float, resumed: bool) -> Trial:
    out = folder / f"trial-{trial.number}.jsonl"
    log = folder / f"trial-{trial.number}.log"
    with open(log, "w+") as file:
        process = subprocess.Popen(
            command(trial.mode, out, timeout),
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment(),
            start_new_session=True,
        )
        started = time.monotonic()
        try:
            process.wait(trial.at)
            trial.over_before = True
            trial.undisturbed = time.monotonic() - started
        except subprocess.TimeoutExpired:
            pass
        before = out.read_bytes() if out.exists() else b""
        began = time.monotonic()
        if not trial.over_before:
            strike(trial, process, out)
        limit = timeout + GRACE_SECONDS + (60 if trial.mode == "local" and trial.stroke == "stop" else 0)
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            trial.wrong.append("hang")
            for pid in [*ranks_of(out).values(), process.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
        trial.seconds, trial.code = time.monotonic() - began, process.returncode
        file.seek(0)
        text = file.read()
    judge(trial, text, before, out)
    if resumed:
        resume(trial, out, timeout)
    if not trial.wrong:
        log.unlink()
    return trial


def judge(trial: Trial, text: str, before: bytes, out: Path) -> None:
    after = out.read_bytes() if out.exists() else b""
    whole = before[: before.rfind(b"\n") + 1]
    shown = len(re.findall(r"^ +\d+ +\d+ +float +sum ", text, re.MULTILINE))
    trial.finished = sum(1 for line in after.splitlines() if b'"measurement"' in line)
    if not after.startswith(whole) or shown > trial.finished:
        trial.wrong.append("lost")
    if "Traceback" in text:
        trial.wrong.append("traceback")
    ours = [line for line in re.split(r"[\r\n]", text) if line.startswith("busbw")]
    trial.said = ours[0].rstrip(chr(0)) if ours else ""
    completed = trial.code == 0 and trial.finished == SIZES_FINISHED
    if trial.over_before or completed:
        trial.over_before = True  # the stroke came too late, or the sweep went on after it
        if trial.stroke in ("interrupt", "ctrl-c") and trial.seconds > SWALLOWED_SECONDS:
            trial.wrong.append("swallowed")
        return
    if trial.mode != "local" and trial.stroke != "ctrl-c":
        named = {int(n) for line in ours for n in re.findall(r"rank (\d+) \(", line)}
        named |= {int(n) for n in re.findall(r"process rank (\d+) with PID", text)}
        if trial.victim not in named:
            trial.wrong.append("unnamed")
        if named - {trial.victim} or len(ours) > 1:
            trial.wrong.append("misnamed")
    expected = {"stop": (3,), "interrupt": (130,)}.get(trial.stroke)
    if trial.mode == "local":
        # -2: before Python looks after SIGINT, which a shell shows as 130.
        expected = {"kill": (-9,), "stop": (0,)}.get(trial.stroke, (130, -2))
    if (expected and trial.code not in expected) or trial.code == 0:
        trial.wrong.append("code")


def resume(trial: Trial, out: Path, timeout: float) -> None:
    again = command(trial.mode, out, 60.0)
    if trial.finished:
        again.append("--resume")
    else:
        out.unlink(missing_ok=True)
    try:
        done = subprocess.run(again, capture_output=True, text=True, timeout=240, env=environment())
    except subprocess.TimeoutExpired:
        trial.wrong.append("resume")
        return
    records = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    sizes = [r["size_bytes"] for r in records if r.get("kind", r.get("type")) == "measurement" or "size_bytes" in r]
    if done.returncode != 0 or len(sizes) != len(set(sizes)) or len(sizes) != SIZES_FINISHED:
        trial.wrong.append("resume")
        print(done.stdout[-500:], done.stderr[-1500:], sizes, file=sys.stderr)


def duration(mode: str, folder: Path) -> float:
    """Of an undisturbed sweep; the second of two, so that no kernel is compiled in it."""
    for turn in range(2):
        out = folder / f"{mode}-{turn}.jsonl"
        start = time.monotonic()
        done = subprocess.run(command(mode, out, 60.0), capture_output=True, text=True, env=environment())
        if done.returncode != 0:
            sys.exit(f"an undisturbed sweep failed: {done.stdout}{done.stderr}")
    return time.monotonic() - start


def table(trials: list[Trial]) -> str:
    lines = ["mode    stroke     trials  struck  " + "  ".join(BROKEN) + "  median s to the end"]
    for mode in MODES:
        for stroke in STROKES:
            those = [t for t in trials if (t.mode, t.stroke) == (mode, stroke)]
            if not those:
                continue
            count = Counter(w for t in those for w in t.wrong)
            struck = sorted(t.seconds for t in those if not t.over_before)
            median = f"{struck[len(struck) // 2]:.1f}" if struck else "-"
            cells = "  ".join(f"{count[w]:>{len(w)}}" for w in BROKEN)
            lines.append(f"{mode:7} {stroke:10} {len(those):6} {len(struck):7}  {cells}  {median:>19}")
    count = Counter(w for t in trials for w in t.wrong)
    struck = sum(not t.over_before for t in trials)
    lines.append(f"{'all':18} {len(trials):6} {struck:7}  " + "  ".join(f"{count[w]:>{len(w)}}" for w in BROKEN))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no trial later than that")
    parser.add_argument("--resume-every", type=int, default=1, metavar="N", help="resume after every N-th trial only")
    parser.add_argument("--timeout", type=float, default=4.0, help="the sweeps' --timeout, seconds")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--strokes", default=",".join(STROKES))
    parser.add_argument(
        "--earliest", action="store_true", help="strike in the first third only: imports, MPI_Init, windows"
    )
    args = parser.parse_args()
    # A shell's job in the background ignores it, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    chance = random.Random(args.seed)
    folder = Path(tempfile.mkdtemp(prefix="busbw-reliability-"))
    modes, strokes = args.modes.split(","), args.strokes.split(",")
    with ThreadPoolExecutor(args.jobs) as pool:
        takes = dict(zip(modes, pool.map(lambda mode: duration(mode, folder), modes)))
    print("an undisturbed sweep takes " + ", ".join(f"{s:.1f} s {mode}" for mode, s in takes.items()), flush=True)
    until = time.monotonic() + 60 * args.minutes
    trials, done = [], []
    for number in range(args.trials):
        mode, stroke = modes[number % len(modes)], chance.choice(strokes)
        if mode == "local" and stroke == "ctrl-c":
            stroke = "interrupt"
        victim = chance.randrange(MODES[mode][0] or 1)
        at = chance.random() * (1 / 3 if args.earliest else 1)
        trials.append(Trial(number, mode, stroke, victim, at))

    def begin(trial: Trial) -> Trial | None:
        if time.monotonic() > until:
            return None
        trial.at *= takes[trial.mode]
        run(trial, folder, args.timeout, resumed=trial.number % args.resume_every == 0)
        if trial.undisturbed:  # the machine is less busy now
            takes[trial.mode] = min(takes[trial.mode], trial.undisturbed)
        return trial

    with ThreadPoolExecutor(args.jobs) as pool:
        for trial in pool.map(begin, trials):
            if trial is None:
                continue
            done.append(trial)
            state = "too late" if trial.over_before else f"ended after {trial.seconds:.1f} s with {trial.code}"
            print(
                f"{trial.number:4} {trial.mode:6} {trial.stroke:9} rank {trial.victim} at {trial.at:4.1f} s: {state}, "
                f"{trial.finished} sizes {' '.join(trial.wrong).upper()} {trial.said}",
                flush=True,
            )
    print(table(done))
    if any(t.wrong for t in done):
        print(f"logs of what went wrong: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
