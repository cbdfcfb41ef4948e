"""Published points beside measured and modelled curves: their values, their look, their names, and the table of ratios."""

import argparse
import csv

import pytest
from busbw.errors import UserError
from busbw.fabric.library import published as data
from busbw.plots.curves import curves
from busbw.plots.published import MOST_SERIES, pairs, published
from busbw.plots.report import report
from busbw.scripts import plot
from busbw.scripts import report as report_command

SERIES = "together-h100-8r-ring"


@pytest.fixture(scope="module")
def shipped():
    return data.read()


def rows_of(series):
    with open(data.PUBLISHED, newline="", encoding="utf-8") as f:
        return [r for r in csv.DictReader(f) if r["id"] == series]


def panel(fig, name):
    return next(ax for ax in fig.axes if ax.get_label() == name)


def test_marks_stand_where_the_source_has_them_without_a_line(make, shipped):
    others = published(data.named(shipped, SERIES))
    fig = curves([make()], others=others)
    (line,) = [x for x in panel(fig, "bandwidth").lines if x.get_label() == f"published {SERIES}"]
    (times,) = [x for x in panel(fig, "time").lines if x.get_label() == f"published {SERIES}"]
    rows = sorted(rows_of(SERIES), key=lambda r: int(r["size_bytes"]))
    assert list(line.get_xdata()) == [int(r["size_bytes"]) for r in rows]
    assert list(line.get_ydata()) == pytest.approx([float(r["busbw_GBps"]) for r in rows], rel=0.01)
    assert list(times.get_ydata()) == pytest.approx([float(r["time_us"]) * 1e-6 for r in rows])
    for drawn in (line, times):
        assert drawn.get_linestyle() == "None" and drawn.get_markerfacecolor() == "none"
        low, high = drawn.axes.get_xlim()
        assert low < min(drawn.get_xdata()) and max(drawn.get_xdata()) < high
    hollow = [x for x in panel(fig, "bandwidth").lines if x.get_markerfacecolor() == "none"]
    assert hollow == [line]  # no measured curve looks like it
    texts = [t.get_text() for legend in fig.legends for t in legend.get_texts()]
    (named,) = [t for t in texts if t.startswith(f"published: {SERIES}")]
    assert "8 ranks" in named and "github.com/togethercomputer" in named


def test_a_name_means_its_series_or_all_of_a_system(shipped):
    assert {p.series for p in data.named(shipped, "aws-p5-16r")} == {"aws-p5-16r"}  # and not aws-p5-16r-old
    assert {p.system for p in data.named(shipped, "polaris")} == {"ALCF Polaris"}
    with pytest.raises(UserError, match="'ALCF Polarsi'; did you mean ALCF Polaris"):
        data.named(shipped, "ALCF Polarsi")
    with pytest.raises(UserError, match=r"'together-h100-8r-rign'.*did you mean together-h100-8r-ring"):
        data.named(shipped, "together-h100-8r-rign")
    for nothing in ("", "  ", "zzzzzzzzzzzzzzzzzzzzzzzz"):
        with pytest.raises(UserError, match="accepted: part of a name"):
            data.named(shipped, nothing)
    with pytest.raises(UserError, match=f"13 series match; accepted: up to {MOST_SERIES}"):
        published(data.named(shipped, "alcf polaris"))


def test_ratios_are_taken_at_equal_size_ranks_and_algorithm_only(make, shipped):
    sizes = [1 << 20, 1 << 24, 3000]
    measured = make({"ring": (10e-6, 1e-9), "tree": (5e-6, 1e-9)}, sizes=sizes, seed=2)
    modelled = make({"ring": (10e-6, 1e-9)}, sizes=[1 << 20, 1 << 24, 8], seed=3, clock="fabric:a", transport="exact")
    other_ranks = make({"tree": (5e-6, 1e-9)}, sizes=sizes, ranks=16, clock="fabric:a", transport="exact")
    records = [*measured.records, *modelled.records, *other_ranks.records]
    others = published(data.named(shipped, SERIES))
    first, second = pairs(records, others)
    assert first.what == "measured (shared)" and second.what == f"published: {SERIES}"
    assert {p.algorithm for p in (first, second)} == {"ring"} and {p.ranks for p in (first, second)} == {8}
    assert [s for s, _, _ in first.rows] == [1 << 20, 1 << 24]
    for size, real, model in first.rows:
        (r,) = [r for r in measured.records if r.size_bytes == size and r.algorithm == "ring"]
        (m,) = [r for r in modelled.records if r.size_bytes == size]
        assert (real, model) == (r.out_of_place.seconds, m.out_of_place.seconds)
    theirs = {int(r["size_bytes"]): float(r["time_us"]) * 1e-6 for r in rows_of(SERIES)}
    assert [real for _, real, _ in second.rows] == pytest.approx([theirs[s] for s in (1 << 20, 1 << 24)])

    page = report([measured, modelled], others=others)
    assert "Where they differ from the model" in page and f"{first.rows[0][1] / first.rows[0][2]:.3g}</td>" in page
    assert "togethercomputer/together-nccl-tests" in page
    assert "there is no ratio to give" in report([make(path="a"), other_ranks])
    assert "Where they differ" not in report([measured])


def call(module, *arguments):
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return module.run(parser.parse_args([str(a) for a in arguments]))


def test_the_commands_take_published_series(make, tmp_path, capsys):
    path = tmp_path / "run.jsonl"
    path.write_text("".join(r.to_json() + "\n" for r in make(sizes=[1024, 1 << 20], samples=5).records))
    assert call(plot, path, "--published", SERIES, "-o", tmp_path / "a.svg") == 0
    assert call(report_command, path, "--published", SERIES, "--published", "aws-p5-8r-batch") == 0
    page = path.with_suffix(".html").read_text("utf-8")
    assert f"published: {SERIES}" in page and "published: aws-p5-8r-batch" in page
    for module in (plot, report_command):
        with pytest.raises(UserError, match="did you mean together-h100-8r-ring"):
            call(module, path, "--published", "together-h100-8r-rign")
    with pytest.raises(UserError, match="--kind ranks"):
        call(plot, path, "--published", SERIES, "--kind", "ranks")
