"""nccl-tests' options on our command line: those that mean the same here have our names too, the rest say what we have instead."""

from __future__ import annotations

from argparse import SUPPRESS, Namespace

from ..errors import UserError

# letter, long name, what it is; the values that ask for nothing special, which are accepted; what busbw has in its place
WITHOUT_A_COUNTERPART = (
    ("N", "run_cycles", "cycles", ("1",), "run the command again, and busbw plot FILE FILE draws the runs over one another"),
    ("m", "agg_iters", "operations in a group", ("1",),
     "short messages are timed in blocks of back-to-back all-reduces anyway (-n: how many samples)"),
    ("p", "parallel_init", "parallel initialisation", ("0", "1"), "every rank starts by itself"),
    ("y", "stream_null", "the null stream", ("0",), "GPU work goes to streams of its own"),
    ("C", "report_cputime", "processor time", ("0",), "--backend cpu measures on processors; every time is a wall-clock time"),
    ("S", "report_timestamps", "timestamps", ("0", "1"), "every record of --out FILE has its time"),
    ("M", "memory_report", "a report of memory", ("0",), "what does not fit is refused before anything runs"),
    ("D", "device_implementation", "NCCL's device API", ("0",), "--algo names the algorithm"),
    ("V", "device_cta_count", "thread blocks", (), "--channels N runs N rings or trees beside each other"),
    ("x", "cta_policy", "a policy for thread blocks", ("0",), "--channels N runs N rings or trees beside each other"),
    ("u", "unalign", "unaligned buffers", ("0",), "buffers are aligned"),
)  # fmt: skip


def add_arguments(parser) -> None:
    parser.add_argument("-t", "--nthreads", type=int, metavar="N", help=(
        "ranks that are threads of this process, as --ranks; on GPUs each takes -g of them"
    ))  # fmt: skip
    for letter, name, *_ in WITHOUT_A_COUNTERPART:
        parser.add_argument(f"-{letter}", f"--{name}", dest=f"nccl_tests_{letter}", help=SUPPRESS)


def check(args: Namespace) -> None:
    """Raises UserError for an option of nccl-tests that asks for what is not here, with what is."""
    for letter, _, what, accepted, instead in WITHOUT_A_COUNTERPART:
        value = getattr(args, f"nccl_tests_{letter}")
        if value is not None and value not in accepted:
            only = f"accepted: {' or '.join(accepted)}; " if accepted else ""
            raise UserError(f"-{letter} {value[:40]}: {what} as in nccl-tests is not measured here; {only}{instead}")


def ranks_and_gpus(args: Namespace, *, mpi: bool) -> tuple[int | None, int | None]:
    """(--ranks, --gpus) of -t and -g: threads of a process, and GPUs of each thread, one rank a GPU.

    Under mpirun a process is one rank, so that -t 1 and -g 1, as scripts for nccl-tests have them, ask for nothing.
    """
    threads, gpus = args.nthreads, args.gpus
    for letter, value in (("t", threads), ("g", gpus)):
        if value is not None and value < 1:
            raise UserError(f"-{letter} {value}: accepted are whole numbers from 1")
    if mpi:
        if threads not in (None, 1):
            raise UserError(
                f"-t {threads}: under mpirun a process is one rank; accepted: -t 1, with more processes (-np)"
            )
        return args.ranks, None if gpus == 1 else gpus
    if threads is None:
        return args.ranks, gpus
    if args.ranks is not None:
        raise UserError(f"-t {threads} and --ranks {args.ranks} both say how many ranks; give one of them")
    return (threads, None) if gpus is None else (None, threads * gpus)
