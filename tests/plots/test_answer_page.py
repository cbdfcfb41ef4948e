"""A report of a log: the verdict before everything else, why, the values behind the figures, and nothing of the log as markup."""

import re

import pytest
from busbw.answer.situation import Given
from busbw.answer.tables import answers_of
from busbw.fabric.library.published import read as points
from busbw.interchange.results import opened
from busbw.plots import page as frame
from busbw.plots.answer_page import beside
from busbw.plots.report import report
from busbw.plots.report_markdown import markdown
from busbw.scripts import main
from log_excerpts import ACROSS_RACKS, H100, nccl_log
from page_reader import Page, contrast, flaws

SIZES = [1 << k for k in range(13, 34)]
LOW = nccl_log(2, 8, H100, {n: 480 * n / (n + (60 << 20)) * (0.5 if n > 1 << 24 else 1) for n in SIZES})
GIVEN = Given(nics="8x400 Gb/s InfiniBand")


def reported(tmp_path, *logs, given=GIVEN):
    results, answers = [], []
    for i, text in enumerate(logs):
        path = tmp_path / f"{i}.log"
        path.write_text(text)
        result, log = opened(path)
        results.append(result)
        answers += answers_of(log, given)
    return results, answers


def test_verdict_comes_first_then_causes_then_the_picture_and_its_table(tmp_path):
    results, answers = reported(tmp_path, LOW)
    page = Page(report(results, answers=answers))
    assert not flaws(page)
    headings = [text.strip() for _, text in page.headings]
    assert headings[1:3] == ["Is this number normal?", "Likely causes"] and headings.index("Summary") > 2
    words = page.words
    assert words.index("LOW at") < words.index(answers[0].causes[0].title) < words.index("The figure as a table")
    for evidence in answers[0].causes[0].evidence:
        assert evidence in words
    first, last = answers[0].answer.rows[0], answers[0].answer.rows[-1]
    for row, name in ((first, "8 KiB"), (last, "8 GiB")):
        line = next(r for r in page.rows if r[0] == name and len(r) == 9)
        assert line[-1] == row.verdict and line[6] == f"{100 * row.share:.0f} %"


def test_values_at_each_size_stand_in_the_figure_for_mouse_and_keyboard(tmp_path):
    results, answers = reported(tmp_path, LOW)
    stops = [a for _, a in Page(report(results, answers=answers)).tags if a.get("class") == "hit"]
    spoken = [a["aria-label"] for a in stops if "tabindex" in a]
    assert len([t for t in spoken if "; measured" in t]) == len(SIZES)
    assert len([t for t in spoken if "; nccl: " in t]) == len(SIZES)
    assert len([a for a in stops if a.get("aria-hidden")]) == len(spoken)
    said = next(t for t in spoken if t.startswith("8 GiB; measured"))
    row = answers[0].answer.rows[-1]
    assert f"measured {row.busbw / 1e9:.0f} GB/s" in said and "90 % band" in said and "50 % band" in said


def test_published_points_are_of_the_same_gpu_ranks_and_nodes(tmp_path):
    _, answers = reported(tmp_path, LOW)
    drawn = beside(answers[0].answer.situation, [])
    assert drawn
    for p in drawn:
        own = [q for q in points() if q.series == p.name]
        assert all(q.ranks == 16 and q.nodes == 2 and "H100" in q.gpu for q in own if q.ranks == p.ranks)


EVIL = "</td></svg><script>alert(1)</script><img src=x onerror=alert(1)>\"' [a](javascript:x) | `"


def test_a_logs_words_are_text_everywhere(tmp_path):
    text = nccl_log(2, 8, EVIL + " H100", dict.fromkeys(SIZES, 100.0), info=f"NCCL_{EVIL}=1\n{EVIL}\n")
    text = text.replace("node0", "node0<b>").replace("node1", "<script>")
    pairs = "".join(f"{EVIL.replace(' ', '')}{a},node{b}<img>  {49 + a}.3\n" for a in range(3) for b in range(4, 7))
    results, answers = reported(tmp_path, text, ACROSS_RACKS, pairs, given=Given())
    page = Page(report(results, answers=answers))
    assert not {t for t, _ in page.tags} & {"script", "img", "b"}
    assert not [a for _, a in page.tags for name in a if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.words
    text = markdown(results, answers)
    assert "alert(1)" in text and "<" not in text and "](" not in text


def test_pairs_become_a_map_that_marks_what_is_slow(tmp_path):
    rates = {(a, b): 20.0 if 2 in (a, b) else 49.0 for a in range(4) for b in range(4) if a != b}
    results, answers = reported(tmp_path, "".join(f"node{a},node{b}  {rate}\n" for (a, b), rate in rates.items()))
    assert not results[0].records and answers
    page = Page(report(results, answers=answers))
    assert not flaws(page)
    assert "node2 is slow" in page.words
    rows = {r[0]: r[1:] for r in page.rows if r[0].startswith("node")}
    assert all(
        ("▼" in cell) == (2 in (a, b)) for a in range(4) for b in range(4) if a != b for cell in [rows[f"node{a}"][b]]
    )


def test_pairs_that_are_alike_are_called_neither_low_nor_unsaid(tmp_path):
    text = "".join(f"node{a},node{b}  49.{a}\n" for a in range(4) for b in range(4) if a != b)
    results, answers = reported(tmp_path, text)
    words = Page(report(results, answers=answers)).words
    assert answers[0].lines[0] in words and "cannot say" not in words and "▼ below" in words


def test_markdown_says_the_same(tmp_path):
    results, answers = reported(tmp_path, LOW)
    text = markdown(results, answers)
    assert ": low" in text and f"1. **{answers[0].causes[0].title}**" in text
    assert len([line for line in text.splitlines() if line.startswith("| ")]) > len(SIZES)


@pytest.mark.parametrize("colours", [frame.LIGHT_PAGE, frame.DARK_PAGE])
def test_text_has_contrast_enough(colours):
    """4.5 to 1 for text of any size (WCAG 2.2, 1.4.3)."""
    light = colours == frame.LIGHT_PAGE
    named = dict(re.findall(r"--(\w+):(#\w+)", colours))
    texts = [c if light else frame.DARK[c] for c in (frame.style.INK, frame.style.MUTED)]
    for text in [*texts, named["bad"], named["noisy"], named["good"]]:
        assert contrast(text, named["page"]) >= 4.5, text
    assert contrast(texts[0], named["alert"]) >= 4.5 and contrast(texts[0], named["soft"]) >= 4.5


def test_command_writes_what_the_suffix_or_the_format_says(tmp_path, capsys, monkeypatch):
    log = tmp_path / "a.log"
    log.write_text(LOW)
    assert main(["report", str(log), "--format", "md", "--nics", "8x400 Gb/s InfiniBand"]) == 0
    assert (tmp_path / "a.md").read_text().startswith("# All-reduce, 16 ranks")
    assert main(["report", str(log), "-o", str(tmp_path / "b.html"), "--gpu", "H100"]) == 0
    assert "The figure as a table" in (tmp_path / "b.html").read_text()
    for bad in (["-o", "c.txt"], ["-o", "c.html", "--format", "md"]):
        with pytest.raises(SystemExit) as end:
            main(["report", str(log), *bad])
        assert end.value.code == 2
    monkeypatch.setenv("BUSBW_CHROMIUM", str(tmp_path / "none"))
    with pytest.raises(SystemExit):
        main(["report", str(log), "--format", "pdf"])
    assert "is no program" in capsys.readouterr().err and not (tmp_path / "a.pdf").exists()
