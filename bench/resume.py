"""Going on from the records of an interrupted sweep."""

from __future__ import annotations

from .options import OptionError, Options, plain
from .record import Record, ResultFile

RESUME_MUST_MATCH = (
    "transport", "channels", "slices", "node_size", "modes", "pin", "eager_bytes", "nccl_register", "nccl_graph", "nccl_blocking",
    "fabric", "overrides", "seed", "noise", "stragglers", "routing", "failed_planes", "pace",
)  # fmt: skip


def resumable(file: ResultFile, options: Options, ranks: int) -> list[Record]:
    """The records of an earlier, interrupted run of the same sweep. Raises OptionError where it was another."""
    for record in file.records:
        if record.ranks != ranks:
            raise OptionError(f"--resume: {file.path} has {record.ranks} ranks, this sweep {ranks}")
        ours = {k: list(v) if isinstance(v, tuple) else v for k, v in plain(options).items()}
        if record.options.get("backend", "cpu") != options.backend:  # older files have none
            raise OptionError(
                f"--resume: {file.path} was measured with --backend {record.options.get('backend', 'cpu')}, this sweep has "
                f"{options.backend}; accepted: the same backend"
            )
        for name in RESUME_MUST_MATCH:
            if record.options.get(name) != ours.get(name):
                raise OptionError(
                    f"--resume: {file.path} was measured with {name} {record.options.get(name)}, this sweep has "
                    f"{ours.get(name)}; accepted: the same options"
                )
    return file.records
