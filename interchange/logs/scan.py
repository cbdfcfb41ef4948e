"""One pass over a log: strips prefixes, gives each line to the open table or to the reader that knows its header, and keeps count.

Nothing of the file is kept but what was read, so its size does not matter; `MAX_ROWS` bounds the rows.
"""

from __future__ import annotations

import re
from dataclasses import replace
from io import BufferedReader

from ...bench.log import Log, Note, Table
from . import delimited, imb, markdown, nccl_json, nccl_text, osu, param, plain, rccl_json
from .collective import collective
from .draft import MAX_ROWS, Draft, finish
from .grid import Grid, columns
from .info import SystemBuilder
from .lines import Stripper, lines
from .pairs import PairReader

MAX_TABLES = 5000
MAX_NOTES = 2000
_SKIPPED = re.compile(r"^\s*\d[\d_]*\s+[\d.]+\s+[\d.]+\s")
_BENCH_TITLE = re.compile(r"The average bandwidth of (\w{3,30}) over (\d{1,7}) ranks")
_ROW_STARTS = frozenset(" 0123456789")
# Lines that name nothing, though they may be the last before a table.
_NO_LABEL = (
    "|", "real", "user", "sys", "srun:", "```", "RCCL", "HIP", "ROCm", "rccl-tests", "[", "Legend", "NCCL version", "out-of-place",
)  # fmt: skip
_COLUMNS = "size count type redop root time algbw busbw #wrong time algbw busbw #wrong"


class Scan:
    """The state of a pass. `run` does it; what comes out is a Log."""

    def __init__(self, path: str):
        self.path = path
        self.notes: list[Note] = []
        self.tables: list[Table] = []
        self.stripper = Stripper()
        self.pairs = PairReader(self.notes)
        self.table = None  # the open one
        self.number = self.read_lines = self.kept = self.full_at = 0
        self.label, self.label_line = "", -100
        self.context: dict = {}  # what a line said of the next table
        self.preamble: dict[str, str] = {}  # IMB's
        self.imb_version = ""
        self.unread = self.unread_tables = 0
        self.between: SystemBuilder | None = None  # takes what is told after a run has ended
        self._begin_run()

    # -- the pass ------------------------------------------------------------------------------------------------

    def run(self, file: BufferedReader) -> Log:
        if _is_document(file.peek(1 << 16)[: 1 << 16]):
            return self._document(file)
        for batch in lines(file, self.notes):
            number, told, full = self.number, 0, self._full()
            info, own, opened = self.builder.info, len(self.stripper.prefix), self.table is not None
            for text in batch:
                number += 1
                # Nearly all lines of a long log are NCCL's own, so these pass by without a call more than is needed.
                if not text:
                    continue
                at = text.find(" NCCL INFO ")
                if at >= 0:
                    told += 1
                    if opened and text[own : own + 1] in _ROW_STARTS:
                        self._glued(number, text)
                    info(number, text, at + 11)
                elif text.startswith("NCCL INFO "):  # whose host was cut off
                    told += 1
                    info(number, text, 10)
                elif not full:
                    self.number = number
                    if at_warn := text.find(" NCCL WARN ") + 1:
                        told += 1
                        self.builder.warn(number, text[at_warn + 10 :])
                    else:
                        self._line(text)
                    info, own, opened = self.builder.info, len(self.stripper.prefix), self.table is not None
            self.number = number
            self.read_lines += told
        return self._finish()

    def _full(self) -> bool:
        """Whether the log has all the rows that are kept; from there on only NCCL's own lines are read."""
        rows = getattr(self.table.draft, "rows", ()) if self.table else ()
        if not self.full_at and self.kept + len(rows) >= MAX_ROWS:
            self.full_at = self.number
            self.notes.append(
                Note(self.number, "limit", f"{MAX_ROWS} rows are read; of what follows only NCCL's own lines are")
            )
        return bool(self.full_at)

    def _glued(self, number: int, text: str) -> None:
        """A line of NCCL's own that may have broken into a row, whose head it then begins with."""
        text = text[len(self.stripper.prefix) :] if text.startswith(self.stripper.prefix) else text
        if text.lstrip()[:1].isdigit() and isinstance(self.table, nccl_text.NcclTable):
            self.table.fragment(number, text, self.stripper)

    def _line(self, raw: str) -> None:
        text = self.stripper(raw)
        bare = text.lstrip()
        if not bare:
            return
        first = bare[0]
        table = self.table
        if first == "#":
            self._comment(text, bare)
            return
        if table is not None and table.take(self.number, text, self.stripper):
            self.read_lines += 1
            return
        if first.isdigit():
            self._numeric(text, bare)
            return
        self._words(text, bare)

    def _comment(self, text: str, bare: str) -> None:
        body = bare.lstrip("#").lstrip()
        if body.startswith("Rank") and self.builder.device(self.number, bare):
            self.read_lines += 1
            return
        if nccl_text.is_header(bare):
            self._nccl_header(bare)
        elif body.startswith(("nThread ", "nccl-tests version", "rccl-tests version", "Collective test starting")):
            self._nccl_start(body)
        elif body.startswith("Collective test concluded"):
            self.read_lines += 1
            self._close()
        elif body.startswith(("Out of bounds values", "Avg bus bandwidth")):
            self._nccl_footer(body)
        elif body.startswith("Using devices"):
            self.read_lines += 1
            if self.builder.devices and self.run_tables:
                self._new_run()
        elif body.startswith("OSU ") and (found := osu.TITLE.match(bare)):
            self._open(osu.OsuTable(self._draft("osu", "OSU"), found))
        elif body.startswith("Benchmarking") and (found := imb.TITLE.match(bare)):
            self._open(imb.ImbTable(self._draft("imb", "IMB"), found, self.preamble, self.imb_version))
        elif "MPI Benchmarks" in body and (found := imb.VERSION.match(bare)):
            self.imb_version = found.group(1)
            self.read_lines += 1
        elif isinstance(self.table, imb.ImbTable) and set(bare) <= {"#", "-"}:
            pass
        elif self.table is not None and self.table.take(self.number, text, self.stripper):
            self.read_lines += 1
        elif body.startswith("IMB-"):
            self.builder.sets["commands"].setdefault(body[:500])
        elif fact := imb.fact(bare):
            self.preamble[fact[0]] = fact[1]
        elif bare.startswith(("## ", "### ", "# run", "# Run")):
            self._words(text, bare)
        elif (
            len(body) < 400
            and ("ize" in body or "ytes" in body or "ayload" in body)
            and (found := columns(body.split()))
        ):
            self._grid(bare, found, plain.NAME, plain.split, strict=False)
        else:
            self.builder.other(self.number, bare)

    def _numeric(self, text: str, bare: str) -> None:
        """A line that begins with a number while no open table wants it."""
        if nccl_text.HEADLESS.match(text):
            tokens = len(self.stripper.inside(text).split())
            draft = self._draft("nccl-tests", "nccl-tests")
            table = nccl_text.NcclTable(draft, "", tokens)
            self._open(table)
            if table.take(self.number, text, self.stripper):
                return
        elif self.pairs.labels and self.pairs.row(self.number, text):
            self.read_lines += 1
            return
        if self.pairs.header(self.number, text):
            return
        if _SKIPPED.match(text):
            self._unread(text)

    def _words(self, text: str, bare: str) -> None:
        """Any other line: a header, a fact, or a remark."""
        if self.builder.topo.take(bare):
            self.read_lines += 1
            return
        if bare.startswith("...") and self.builder.devices and not self.run_tables:
            self.builder.cut = True
        if bare.startswith(("Out of bounds values", "Avg bus bandwidth")):  # its "#" was lost on the way
            self._nccl_footer(bare)
            return
        if "COMMS-RES" in bare and (found := param.opens(bare)):
            self._open(param.ParamTable(self._draft("param", "PARAM"), *found))
            self.table.take(self.number, text)
            return
        if bare[0] == "{" and rccl_json.opens(bare):
            self._open(rccl_json.RcclTable(self._draft("rccl-tests-json", "rccl-tests")))
            self.table.take(self.number, text)
            return
        lower = bare[:400].lower()
        if ("size" in lower or "payload" in lower or "bytes" in lower) and (
            "bw" in lower or "time" in lower or "laten" in lower or "band" in lower
        ):
            if self._any_header(bare, lower):
                return
        if self.pairs.labels and self.pairs.row(self.number, text):
            self.read_lines += 1
            return
        if self.table is None and (self.pairs.line(self.number, text) or self.pairs.header(self.number, text)):
            self.read_lines += 1
            return
        if "(" in bare and ("GB/s" in bare or "(us)" in bare or "MB/s" in bare) and len(bare) < 200:
            self.pairs.title = bare
        if found := _BENCH_TITLE.search(bare):
            self._close()
            self.context = {"collective": collective(found.group(1)), "ranks": int(found.group(2)), "line": self.number}
            self.read_lines += 1
        (self.between or self.builder).other(self.number, bare)
        command = "_perf" in bare or "mpirun" in bare or "srun" in bare  # kept among the commands
        if (
            not command
            and len(bare) <= 120
            and "stderr" not in self.stripper.prefix
            and not bare.startswith(_NO_LABEL)
            and not bare.endswith("\\")
            and any(c.isalpha() for c in bare)
        ):
            self.label, self.label_line = bare.strip().lstrip("# ").rstrip(":"), self.number
        if bare.startswith("|") and self.table is None and ("GB/s" in bare or "busbw" in bare):
            self._unread(text)

    # -- opening and closing -------------------------------------------------------------------------------------

    def _any_header(self, bare: str, lower: str) -> bool:
        if bare.startswith("|"):
            if found := columns(markdown.split(bare) or []):
                self._grid(bare, found, markdown.NAME, markdown.split)
                return True
            return False
        if (split := delimited.splitter(bare)) and (found := columns(split(bare) or [])):
            self._grid(bare, found, delimited.NAME, split)
            return True
        if nccl_text.is_header(bare):  # its "#" was lost on the way
            self._nccl_header(bare)
            return True
        if found := columns(bare.split()):
            known = sum(c is not None for c in found)
            if known >= 2 and len(found) - known <= known // 2 and len(found) <= 16:
                self._grid(bare, found, plain.NAME, plain.split, strict=False)
                return True
        return False

    def _grid(self, bare: str, found: list, name: str, split, strict: bool = True) -> None:
        kinds = {c.kind for c in found if c}
        draft = self._draft(name, "rccl-tests" if {"cycle", "inplace"} & kinds else "")
        if self.context:
            draft.tool, draft.collective, draft.collective_from = (
                "all_reduce_bench.py",
                self.context["collective"],
                "the title",
            )
            draft.stated_ranks.append((self.context["ranks"], "the title"))
            draft.format = "all_reduce_bench"
            self.context = {}
        self._open(Grid(draft, found, split, strict))

    def _nccl_header(self, bare: str) -> None:
        label = ""
        if isinstance(self.table, nccl_text.NcclTable) and not self.table.draft.rows:
            # The same header again before any row: another rank's copy.
            label, self.table, self.run_tables = self.table.draft.label, None, self.run_tables - 1
        draft = self._draft("nccl-tests", "rccl-tests" if self.builder.values.get("rccl") else "nccl-tests")
        draft.label = draft.label or label
        draft.parameters.update(self.run_parameters)
        self._open(nccl_text.NcclTable(draft, bare))

    def _nccl_start(self, body: str) -> None:
        self.read_lines += 1
        if self.run_tables and (
            body.startswith(("nccl-tests version", "rccl-tests version"))
            or (body.startswith("Collective") and not self.fresh)
        ):
            self._close()
            self._new_run()
        if body.startswith("nThread "):
            if self.run_tables and not self.fresh:
                self._close()
                self._new_run()
            self.run_parameters.update(nccl_text.parameters(body))
            self.headers += 1
        elif body.startswith("Collective"):
            self.run_collective = nccl_text.named_test(body)
        else:
            self.run_version = body.split("version", 1)[1].split()[0] if body.split("version", 1)[1].split() else ""
        self.fresh = True

    def _nccl_footer(self, body: str) -> None:
        self.read_lines += 1
        value = body.split(":", 1)[-1].split()
        if not isinstance(self.table, nccl_text.NcclTable):
            if not body.startswith("Avg") or self.run_tables or not self.headers:
                return
            draft = self._draft("nccl-tests", "nccl-tests")  # a run without any table: its average is all it says
            draft.parameters.update(self.run_parameters)
            self._open(nccl_text.NcclTable(draft, _COLUMNS))
        draft = self.table.draft
        draft.last_line = self.number
        if value and body.startswith("Out") and value[0].isdigit() and len(value[0]) < 19:
            draft.out_of_bounds = int(value[0])
        elif value and body.startswith("Avg"):
            try:
                average = float(value[0][:40])
            except ValueError:
                average = -1.0
            if 0 <= average < 1e12:
                draft.average = average * 1e9
            self._close()
            self.fresh = False
            self.between = SystemBuilder(self.notes)

    def _draft(self, format: str, tool: str) -> Draft:
        self._close()
        if self.between:  # no new run began: what was told since is of this one
            self.builder.absorb(self.between)
            self.between = None
        draft = Draft(format, tool, self.builder, self.number, last_line=self.number, room=MAX_ROWS - self.kept)
        if self.run_collective and format == "nccl-tests":
            draft.collective, draft.collective_from = self.run_collective, "Collective test starting"
        draft.version = self.run_version if format == "nccl-tests" else ""
        if self.label and self.number - self.label_line < 60:
            draft.label = self.label[:100]
        self.label = ""
        if (prefix := self.stripper.prefix) and (found := re.search(r"\[pod/([^/\]\s]{1,120})", prefix)):
            draft.parameters["launcher"] = found.group(1)
        return draft

    def _open(self, table) -> None:
        self.table = table
        self.read_lines += 1
        self.run_tables += 1
        self.fresh = False

    def _close(self) -> None:
        table, self.table = self.table, None
        if table is None:
            return
        if hasattr(table, "close"):
            table.close()
        drafts = table.drafts() if isinstance(table, Grid) else [table.draft]
        for draft in drafts:
            if isinstance(table, Grid) and not draft.rows:
                continue
            if len(self.tables) + len(self.open_drafts) >= MAX_TABLES:
                self.unread_tables += 1
                continue
            self.kept += len(draft.rows)
            self.open_drafts.append(draft)

    def _new_run(self) -> None:
        self._settle_run()
        self._begin_run()

    def _begin_run(self) -> None:
        """A run is what shares one list of devices."""
        self.builder, self.between = self.between or SystemBuilder(self.notes), None
        self.open_drafts: list[Draft] = []
        self.run_tables = self.headers = 0
        self.run_parameters: dict[str, str] = {}
        self.run_collective = self.run_version = ""
        self.fresh = False

    def _settle_run(self) -> None:
        """Conclude the run's tables, once all that its lines tell is known."""
        system = self.builder.build()
        for draft in self.open_drafts:
            self.tables.append(finish(draft, system))
        self.open_drafts = []

    def _unread(self, text: str) -> None:
        self.unread += 1
        if self.unread <= 20:
            self.notes.append(Note(self.number, "skipped", f"figures in no known table: {text.strip()[:70]!r}"))

    # -- the end -------------------------------------------------------------------------------------------------

    def _finish(self) -> Log:
        self._close()
        if self.between:
            self.builder.absorb(self.between)
        last = self.builder
        had = bool(self.open_drafts)
        self._settle_run()
        system = last.build() if had or not self.tables else self.tables[-1].system
        if self.unread > 20:
            self.notes.append(Note(0, "skipped", f"{self.unread - 20} further lines of figures in no known table"))
        if self.unread_tables:
            self.notes.append(
                Note(0, "limit", f"{self.unread_tables} further tables are not kept: a log may have {MAX_TABLES}")
            )
        pairs = self.pairs.close(len(self.tables))
        return Log(
            self.path,
            tuple(_runs_apart(self.tables)),
            system,
            self.number,
            min(self.read_lines, self.number),
            tuple(self.notes[:MAX_NOTES]),
            pairs,
        )

    def _document(self, file: BufferedReader) -> Log:
        raw = file.read(nccl_json.MAX_BYTES + 1)
        if len(raw) > nccl_json.MAX_BYTES:
            self.notes.append(
                Note(0, "limit", f"a JSON document of more than {nccl_json.MAX_BYTES >> 20} MiB is read up to there")
            )
            raw = raw[: nccl_json.MAX_BYTES]
        text = raw.decode("utf-8-sig", "replace")
        draft = rccl_json.array(text, self._draft("rccl-tests-json", "rccl-tests")) or nccl_json.read(
            text, self.builder
        )
        self.number = text.count("\n") + 1
        if draft is None:
            self.notes.append(Note(1, "skipped", "JSON, but neither nccl-tests' document nor rccl-tests' objects"))
        else:
            self.open_drafts.append(draft)
            self.read_lines = self.number
        return self._finish()


def _is_document(start: bytes) -> bool:
    """Whether a file is one JSON document rather than lines."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"[") and text[1:].lstrip().startswith(b"{"):
        return True
    if not text.startswith(b"{"):
        return False
    return not rccl_json.opens(text.split(b"\n", 1)[0].decode("utf-8", "replace"))


def _runs_apart(tables: list[Table]) -> list[Table]:
    """Tables of one rank each from different processes that lie in one log: N jobs of one rank."""
    single = [t for t in tables if t.ranks == 1 and t.runs == 1 and t.system.devices and t.format == "nccl-tests"]
    owners = {(d.host, d.pid) for t in single for d in t.system.devices}
    if len(single) < 2 or len(owners) < 2:
        return tables
    note = Note(
        single[1].line, "ranks", f"{len(owners)} separate runs of 1 rank in this log, not one run of {len(owners)}"
    )
    return [replace(t, notes=(*t.notes, note)) if t is single[1] else t for t in tables]
