"""Files that tell a communication library which algorithm to take: NCCL's example tuner plug-in, Open MPI's coll/tuned rules.

NCCL: a line ``collective,min_bytes,max_bytes,algorithm,protocol,channels,nNodes,nRanks``; the first that matches counts
(plugins/tuner/example in NCCL's repository, read by plugin.c). Open MPI: numbers: how many collectives; of each its id and how many
communicator sizes; of each of those how many message sizes; of each of those "bytes algorithm topology segment", in force from that
size on; algorithm 0 is the library's own decision (ompi/mca/coll/tuned/coll_tuned_dynamic_file.c, release 5.0).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..bench.choice import Choice
from ..bench.record import Record
from ..errors import UserError

NCCL_COLLECTIVES = {
    "all_reduce": "allreduce", "broadcast": "broadcast", "reduce": "reduce", "all_gather": "allgather",
    "reduce_scatter": "reducescatter",
}  # fmt: skip
NCCL_ALGORITHMS = ("tree", "ring", "collnet_direct", "collnet_chain", "nvls", "nvls_tree", "pat")
NCCL_PROTOCOLS = ("ll", "ll128", "simple")

OPEN_MPI_COLLECTIVES = {"all_reduce": 2}  # of coll_base_functions.h; algorithms' numbers are each collective's own
OPEN_MPI_ALGORITHMS = {
    "linear": 1, "nonoverlapping": 2, "recursive-doubling": 3, "ring": 4, "segmented-ring": 5, "rabenseifner": 6,
    "allgather-reduce": 7,
}  # fmt: skip
_ALIASES = {
    "basic-linear": "linear",
    "halving-doubling": "rabenseifner",
}  # Rabenseifner's is that of halving and doubling
DEFAULT = ""  # the name of what the library chooses by itself
OWN_CHOICE = ("", "default", "auto", "nccl", "mpi-native", "library")


def nccl_name(record: Record, label: str | None = None) -> str | None:
    """As ``ring/ll128``, with ``/8`` behind for 8 channels; DEFAULT for NCCL's own choice; None: NCCL has none.

    label: what the user calls it. Else it is what the record says was chosen, or what NCCL_ALGO and NCCL_PROTO forced.
    """
    settings = _settings(record)
    words = record.chosen if label is None else label
    if label is None and _plain(words) in OWN_CHOICE and settings.get("NCCL_ALGO"):
        words = f"{settings['NCCL_ALGO']}/{settings.get('NCCL_PROTO', '')}"
    if _plain(words) in OWN_CHOICE:
        return DEFAULT
    algorithm, protocol, channels = _split_nccl(words)
    protocol = protocol or _plain(settings.get("NCCL_PROTO", ""))
    if algorithm not in NCCL_ALGORITHMS or protocol not in NCCL_PROTOCOLS:
        return None
    return f"{algorithm}/{protocol}" + (f"/{channels}" if channels else "")


def _split_nccl(words: str) -> tuple[str, str, str]:
    found = re.fullmatch(r"(.+?)(?:[/-](ll|ll128|simple))?(?:/(\d{1,3}))?", words.strip().lower())
    if not found:
        return "", "", ""
    algorithm = found[1].strip("/").replace("-", "_")
    return (
        {"nvlstree": "nvls_tree", "collnetdirect": "collnet_direct"}.get(algorithm, algorithm),
        found[2] or "",
        found[3] or "",
    )


def openmpi_name(record: Record, label: str | None = None) -> str | None:
    """Of OPEN_MPI_ALGORITHMS; DEFAULT for Open MPI's own choice; None for what it has not.

    label: what the user calls it, a name or a number. Else it is what coll_tuned_allreduce_algorithm forced, or the record's own.
    """
    words = record.chosen if label is None else label
    if label is None and _plain(words) in OWN_CHOICE:
        settings = _settings(record)
        if settings.get("OMPI_MCA_coll_tuned_use_dynamic_rules", "0").lower() in ("1", "true", "yes"):
            words = settings.get("OMPI_MCA_coll_tuned_allreduce_algorithm", "")
    words = _ALIASES.get(_plain(words), _plain(words))
    if words in (*OWN_CHOICE, "0", "ignore"):
        return DEFAULT
    by_number = {str(n): name for name, n in OPEN_MPI_ALGORITHMS.items()}
    return by_number.get(words, words if words in OPEN_MPI_ALGORITHMS else None)


def nccl_csv(choices: Mapping[tuple[str, int, int | None], Sequence[Choice]], about: Sequence[str] = ()) -> str:
    """The example plug-in's file. choices: by (collective, ranks, nodes; None: any number of nodes). about: lines of comment.

    A choice holds from its first size to just before the next one's where that follows at once, else to its last size.
    Raises UserError for a collective that the plug-in does not know.
    """
    lines = [f"# {_comment(t)}" for t in about]
    lines.append("# collective_type,min_bytes,max_bytes,algorithm,protocol,channels,nNodes,nRanks")
    for (collective, ranks, nodes), found in choices.items():
        if collective not in NCCL_COLLECTIVES:
            raise UserError(f"{collective}: not of NCCL's tuner; accepted: {', '.join(NCCL_COLLECTIVES)}")
        for choice, (first, last) in zip(found, _spans(found)):
            algorithm, protocol, *channels = choice.name.split("/")
            lines.append(
                f"{NCCL_COLLECTIVES[collective]},{first},{last},{algorithm},{protocol},{channels[0] if channels else -1},"
                f"{-1 if nodes is None else nodes},{ranks}"
            )
    return "\n".join(lines) + "\n"


def openmpi_rules(choices: Mapping[tuple[str, int], Sequence[Choice]], about: Sequence[str] = ()) -> str:
    """coll/tuned's file. choices: by (collective, ranks). Sizes outside the choices, and communicators of any other size, stay with
    Open MPI's own decision: a rule holds for larger communicators too, up to the next one's size, so that one follows.

    Raises UserError for a collective without numbers here.
    """
    by_collective: dict[int, dict[int, list[tuple[int, int]]]] = {}
    for (collective, ranks), found in choices.items():
        if collective not in OPEN_MPI_COLLECTIVES:
            raise UserError(
                f"{collective}: not among those that are written here; accepted: {', '.join(OPEN_MPI_COLLECTIVES)}"
            )
        by_collective.setdefault(OPEN_MPI_COLLECTIVES[collective], {})[ranks] = _from_sizes(found)
    lines = [f"# {_comment(t)}" for t in about] + [f"{len(by_collective)} # collectives"]
    for number, by_ranks in by_collective.items():
        own = {p + 1: [(0, 0)] for p in by_ranks if p + 1 not in by_ranks}
        lines += [f"{number} # collective", f"{len(by_ranks) + len(own)} # communicator sizes"]
        for ranks, rules in sorted((by_ranks | own).items()):
            lines += [f"{ranks} # ranks", f"{len(rules)} # message sizes"]
            lines += [f"{size} {algorithm} 0 0" for size, algorithm in rules]
    return "\n".join(lines) + "\n"


def _from_sizes(found: Sequence[Choice]) -> list[tuple[int, int]]:
    """(bytes, algorithm's number), each in force up to the next; from 0 on."""
    rules = [(0, 0)] if not found or found[0].first > 0 else []
    spans = _spans(found)
    for i, (choice, (first, last)) in enumerate(zip(found, spans)):
        rules.append((first, OPEN_MPI_ALGORITHMS[choice.name]))
        if i + 1 == len(found) or spans[i + 1][0] != last + 1:
            rules.append((last + 1, 0))
    return rules


def _spans(found: Sequence[Choice]) -> list[tuple[int, int]]:
    """(first, last) byte of each choice. Between two choices of which nothing was measured in between, the later begins at its
    first size."""
    out = []
    for i, choice in enumerate(found):
        follows = i + 1 < len(found) and found[i + 1].after == choice.last
        out.append((choice.first, found[i + 1].first - 1 if follows else choice.last))
    return out


def _settings(record: Record) -> Mapping[str, str]:
    settings = record.environment.get("settings")
    return {str(k): str(v) for k, v in settings.items()} if isinstance(settings, Mapping) else {}


def _plain(words: str) -> str:
    return words.strip().lower().replace("_", "-")


def _comment(text: str) -> str:
    """One line; the plug-in reads lines of at most 255 bytes."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))[:120]
