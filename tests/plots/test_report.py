"""The page is parsed, searched for anything that would load or run, and fed with files that try to break out of it."""

import re
from dataclasses import replace

import pytest
from busbw.bench.record import Timing
from busbw.plots.report import DRAWN_SAMPLES, ReportError, noise, report, save, strip
from page_reader import Page, flaws


def test_page_is_well_formed_and_ids_are_unique(make):
    page = Page(report([make(), make(path="other.jsonl", seed=2)]))
    assert [t for t, _ in page.tags[:2]] == ["html", "head"]
    own = [i for i in page.ids if re.search(r"figure|axes|legend", i)]
    assert own and len(own) == len(set(own))


def test_page_loads_and_runs_nothing(make):
    text = report([make()])
    page = Page(text)
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "script" not in policy
    assert not {t for t, _ in page.tags} & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("href", "src", "xlink:href", "action", "data"):
                assert value.startswith("#"), (tag, name, value)
    outside = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert not re.search(r"https?://|//\w|@import|javascript:", outside)
    assert set(re.findall(r"url\((.)", outside)) <= {"#"}


def test_page_says_what_was_measured(make):
    result = make()
    page = Page(report([result]))
    for text in (
        "All-reduce, 8 ranks, float32 sum",
        "Test CPU 9000",
        "node-17",
        "busbw sweep -b 8 -e 16M --ranks 8",
        "Crossover from tree to ring",
        "64 GiB (68719476736)",
        "caches.L1d",
        "1.75 for 8 ranks",
        "No warnings",
        "reads one array, writes one",
    ):
        assert text in page.words, text


def test_page_has_what_assistive_technology_needs(make):
    """With one setting and with several, whose headings are a level deeper."""
    for results in ([make()], [make(), make(path="other.jsonl", environment={"cpu_model": "Other"})]):
        assert not flaws(Page(report(results)))


def test_table_holds_every_row_of_both_modes(make):
    result = make({"ring": (1e-5, 1e-10)}, sizes=[8, 1024, 1 << 20])
    page = Page(report([result]))
    rows = [c.strip() for c in page.cells]
    assert rows.count("out-of-place") == rows.count("in-place") == 3
    for size in ("8 B", "1 KiB", "1 MiB"):
        assert size in rows
    last = result.records[-1]
    assert f"{last.busbw(last.out_of_place) / 1e9:.1f}" in rows
    assert f"{last.algbw(last.in_place) / 1e9:.1f}" in rows
    assert "30 × 10" in rows


EVIL = "</td></table><script>alert(1)</script><img src=x onerror=alert(1)>\"' style='x' -->]]>"


def test_no_text_of_a_file_becomes_markup(make):
    result = make(
        {EVIL: (1e-6, 1e-10), "ring" + EVIL: (1e-5, 1e-11), "tree" + EVIL: (1e-6, 1e-9)},
        transport=EVIL,
        dtype=EVIL,
        op=EVIL,
        chosen=EVIL,
        run=EVIL,
        time=EVIL,
        path=EVIL,
        warnings=[EVIL, 7, None],
        options={EVIL: EVIL, "command": EVIL},
        environment=dict.fromkeys(("cpu_model", "cores", "mpi", "time", "command", EVIL), EVIL) | {"hostnames": [EVIL]},
        limits={EVIL: EVIL, "copy": 1e11, "add": "fast", "least_seconds": EVIL, "least_seconds_size": EVIL},
    )
    result.records[0] = replace(result.records[0], out_of_place=replace(result.records[0].best, stopped=EVIL, wrong=3))
    result.records.extend(make(clock="fabric:" + EVIL, environment={EVIL: {EVIL: [EVIL]}}).records)
    result.notes.append(EVIL)
    for results in ([result], [result, make()]):
        page = Page(report(results))
        assert not {t for t, _ in page.tags} & {"script", "img"}
        assert not [a for _, a in page.tags for name in a if name.startswith("on")]
        assert "<script>alert(1)</script>" in page.words  # as text, in the warnings


def test_text_that_utf8_cannot_carry_is_replaced(make, tmp_path):
    result = make(environment={"cpu_model": "\ud800\x00\x1b[31m", "k\ud800": "\ud800"}, run="\ud800", path="\ud800")
    save(report([result]), tmp_path / "a.html")
    assert "\x1b" not in (tmp_path / "a.html").read_text("utf-8")


def test_wrong_results_cut_lines_and_warnings_are_shown(make):
    result = make(warnings=["the noise is high"])
    bad = replace(result.records[0].out_of_place, wrong=5)
    result.records[0] = replace(result.records[0], out_of_place=bad)
    result.notes.append("run.jsonl:9: passed over a line cut short")
    page = Page(report([result]))
    assert "Wrong results. ring at 8 B" in page.words
    assert "passed over a line cut short" in page.words
    assert "the noise is high at every size" in page.words
    assert page.tags.count(("td", {"class": "bad"})) == 1


def test_many_samples_and_sizes_do_not_make_it_huge(make):
    few = len(report([make({"ring": (1e-5, 1e-10)}, samples=30)]))
    many = len(report([make({"ring": (1e-5, 1e-10)}, samples=5000)]))
    assert many < 1.3 * few
    long = report([make({"ring": (1e-5, 1e-10)}, sizes=list(range(8, 16008, 8)), samples=6)])
    assert "1600 more sizes" in long and len(long) < 3_000_000


def test_the_same_files_give_the_same_page(make):
    assert report([make()]) == report([make()])


def test_odd_files_are_reported_without_a_figure_or_limits(make):
    none = Timing(0.0, 0.0, 0.0, [], 1, 0, "iterations", None)
    page = Page(report([make(out_of_place=none, in_place=None, environment={}, options={}, limits={})]))
    assert "figure" not in [t for t, _ in page.tags]
    odd = Timing(1e-6, float("nan"), float("inf"), [1e-6], 1, 0, "x", None)
    Page(report([make(out_of_place=odd, in_place=None, sizes=[0, 8])]))
    Page(report([make(ranks=1, sizes=[8, 16])]))


def test_strip_thins_samples_but_keeps_the_extremes():
    t = Timing(1.0, 0.9, 1.1, [0.6 + 0.0005 * i for i in range(2000)], 1, 0, "budget", 0)
    ticks = re.search(r'class="ticks" d="([^"]*)"', strip(t))[1].split("M")[1:]
    assert len(ticks) == DRAWN_SAMPLES
    places = [float(x.split()[0]) for x in ticks]
    assert places == sorted(places)
    far = Timing(1.0, 0.9, 1.1, [0.1, 1.0, 50.0], 1, 0, "budget", 0)
    assert strip(far).count("<circle") == 2


def test_noise_is_variation_and_the_slowest_over_the_median():
    cv, spread = noise(Timing(2.0, 1, 3, [1.0, 2.0, 3.0], 1, 0, "", 0))
    assert (cv, spread) == (pytest.approx(0.5), pytest.approx(1.5))
    assert noise(Timing(2.0, 1, 3, [2.0], 1, 0, "", 0)) == (None, None)
    assert noise(Timing(0.0, 0, 0, [0.0, 0.0], 1, 0, "", 0)) == (None, None)


def test_errors_name_what_is_accepted(make, tmp_path):
    with pytest.raises(ReportError, match="at least one"):
        report([])
    with pytest.raises(ReportError, match=r"accepted: a path that ends in \.html or \.md"):
        save("x", tmp_path / "a.pdf")
    with pytest.raises(ReportError, match="cannot be written"):
        save("x", tmp_path / "missing" / "a.html")


def test_what_differs_between_files_stands_side_by_side(make):
    one = make(path="one.jsonl", environment={"mpi": "Open MPI 5.0.8", "cores": 16})
    two = make(path="two.jsonl", environment={"mpi": "MPICH 4.2", "cores": 16})
    rows = Page(report([one, two])).rows
    assert ["mpi", "Open MPI 5.0.8", "MPICH 4.2"] in rows
    assert not [r for r in rows if r[0] == "cores" and len(r) == 3]
    assert "say the same" in Page(report([one, one])).words
    assert "What differs" not in report([one])
