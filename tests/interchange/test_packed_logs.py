"""Logs packed by gzip: read as they are, cut short, damaged, or made to burst."""

import gzip
import io
import tracemalloc
from dataclasses import replace

import pytest
from busbw.errors import UserError
from busbw.interchange.logs import packed, read, read_stream
from busbw.scripts import main

HEADER = "#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong\n"
ROW = "{size:12} {count:12}     float     sum      -1   2180.1   15.39   29.50      0   2285.2   14.68   28.14      0\n"
TEXT = HEADER + "".join(ROW.format(size=1 << k, count=1 << (k - 2)) for k in range(10, 30))


def test_a_packed_log_says_what_it_says_unpacked(tmp_path, capsys):
    (tmp_path / "a.log").write_text(TEXT)
    (tmp_path / "a.log.gz").write_bytes(gzip.compress(TEXT[:500].encode()) + gzip.compress(TEXT[500:].encode()))
    plain, found = read(tmp_path / "a.log"), read(tmp_path / "a.log.gz")
    assert replace(found, path=plain.path) == plain and len(found.tables[0].rows) == 20
    assert read_stream(io.BytesIO((tmp_path / "a.log.gz").read_bytes()), "pipe").tables == plain.tables
    for command in ("import", "expect", "report", "compare"):
        more = [str(tmp_path / "a.log")] * (command == "compare")
        assert main([command, str(tmp_path / "a.log.gz"), *more]) in (0, 2), command
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    "spoil", [lambda b: b[: len(b) // 2], lambda b: b[:-8], lambda b: b[:300] + b"\xff" * 40 + b[340:]]
)
def test_what_is_whole_of_a_spoiled_one_is_read_and_the_rest_said(spoil):
    raw = gzip.compress((TEXT * 50).encode())
    found = read_stream(io.BytesIO(spoil(raw)), "spoiled")
    assert [n.kind for n in found.all_notes if "packed" in n.text] == ["torn"]
    assert len(found.tables) == 0 or all(t.rows for t in found.tables)


def test_a_bomb_is_read_up_to_its_bound_in_little_memory(monkeypatch):
    monkeypatch.setattr(packed, "FREE", 8 << 20)
    bomb = gzip.compress(TEXT.encode() + (b" " * 65535 + b"\n") * (100 << 4))
    assert len(bomb) * packed.MOST_TIMES < 30 << 20
    tracemalloc.start()
    found = read_stream(io.BytesIO(bomb), "bomb")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [n.kind for n in found.all_notes if "packed" in n.text] == ["limit"] and len(found.tables[0].rows) == 20
    assert found.lines < 30 << 4 and peak < 16 << 20


def test_a_packed_result_file_is_refused(tmp_path):
    path = tmp_path / "r.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"schema":"busbw.result/1","kind":"measurement"}\n'))
    with pytest.raises(UserError, match="unpack it first"):
        read(path)
