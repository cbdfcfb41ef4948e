"""Scaling curves and the map: what is drawn is what the records say."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from busbw.bench.record import Record, ResultFile, Timing
from busbw.plots.best_map import best_map, winners
from busbw.plots.curves import PlotError, save
from busbw.plots.scaling import count_words, scaling, spaced
from busbw.scripts import main
from hypothesis import given
from hypothesis import strategies as st

MODEL = {
    "ring": lambda p, n: 2 * (p - 1) * 3e-6 + 2 * n / 90e9,
    "tree": lambda p, n: 4 * np.log2(p) * 5e-6 + 2 * n / 70e9,
}


def record(algorithm, ranks, size, seconds, clock="fabric:somewhere"):
    t = Timing(seconds, seconds, seconds, [seconds], 1, 0, "exact", None)
    return Record(algorithm, algorithm, "exact", clock, ranks, size, size // 4, "float32", "sum", 1, 1, t, None)


def swept(ranks=(8, 64, 512, 4096), sizes=(8, 1 << 10, 1 << 20, 1 << 30), clock="fabric:somewhere", model=MODEL):
    records = [record(a, p, n, float(f(p, n)), clock) for p in ranks for n in sizes for a, f in model.items()]
    return ResultFile("swept.jsonl", records, {}, [])


def lines_of(figure, label):
    (ax,) = (a for a in figure.axes if a.get_label() == label)
    return {line.get_label(): line for line in ax.get_lines()}


def test_curves_over_ranks_are_the_records():
    figure = scaling([swept()])
    line = lines_of(figure, "time")["ring 1073741824"]
    assert list(line.get_xdata()) == [8, 64, 512, 4096]
    assert np.allclose(line.get_ydata(), [MODEL["ring"](p, 1 << 30) for p in (8, 64, 512, 4096)])
    rate = lines_of(figure, "bandwidth")["tree 1073741824"].get_ydata()[1]
    assert rate == pytest.approx((1 << 30) / MODEL["tree"](64, 1 << 30) * 2 * 63 / 64 / 1e9)


def test_one_colour_an_algorithm_and_one_dash_a_size():
    lines = lines_of(scaling([swept()]), "time")
    assert lines["ring 8"].get_color() == lines["ring 1073741824"].get_color() != lines["tree 8"].get_color()
    assert lines["ring 8"].get_linestyle() == lines["tree 8"].get_linestyle()
    assert len({line._unscaled_dash_pattern for line in lines.values()}) == 3  # smallest, middle, largest


def test_measured_points_are_told_from_modelled_ones():
    both = [swept(clock="wall"), swept()]
    figure = scaling(both)
    (ax,) = (a for a in figure.axes if a.get_label() == "time")
    assert {line.get_marker() for line in ax.get_lines()} == {"o", ""}
    texts = [t.get_text() for legend in figure.legends for t in legend.get_texts()]
    assert "measured" in texts
    assert "modelled: somewhere" in texts


def test_nothing_to_scale_is_an_error():
    with pytest.raises(PlotError, match="give --ranks"):
        scaling([swept(ranks=(8,))])
    with pytest.raises(PlotError, match="not among the records"):
        scaling([swept()], sizes=[12345])


@given(st.dictionaries(st.sampled_from(["ring", "tree", "binomial"]), st.floats(1e-7, 10), min_size=1))
def test_the_winner_has_the_least_time(times):
    found = winners([record(a, 8, 64, t) for a, t in times.items()])[8, 64]
    assert times[found.algorithm] == min(times.values())
    others = [t for a, t in times.items() if a != found.algorithm]
    assert found.lead == (min(others) / times[found.algorithm] if others else np.inf)


def test_auto_and_references_are_no_contestants():
    found = winners(
        [record(a, 8, 64, t) for a, t in (("auto", 1.0), ("mpi-native", 2.0), ("ring", 3.0), ("tree", 4.0))]
    )
    assert found[8, 64].algorithm == "ring"


def test_the_map_has_a_cell_for_each_pair_in_the_winners_colour():
    result = swept()
    (ax,) = (a for a in best_map([result]).axes if a.get_label() == "map")
    cells = {p.get_label() for p in ax.patches}
    expected = {f"{p} {s} {w.algorithm}" for (p, s), w in winners(result.records).items()}
    assert cells == expected
    area = sum(p.get_width() * p.get_height() for p in ax.patches)
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    assert area == pytest.approx((x1 - x0) * (y1 - y0))  # no gaps, no overlaps


def test_maps_that_make_no_sense_are_refused():
    with pytest.raises(PlotError, match="one clock"):
        best_map([swept(), swept(clock="wall")])
    with pytest.raises(PlotError, match="two algorithms"):
        best_map([swept(model={"ring": MODEL["ring"]})])
    with pytest.raises(PlotError, match="several numbers of ranks"):
        best_map([swept(ranks=(8,))])


@given(st.sets(st.integers(2, 10**6), min_size=1, max_size=40), st.floats(0.1, 5))
def test_labels_keep_their_distance_and_both_ends(values, octaves):
    values = sorted(values)
    kept = spaced(values, octaves)
    assert kept[0] == values[0]
    assert kept[-1] == values[-1]
    assert set(kept) <= set(values)
    assert all(b / a >= 2**octaves * 0.999 for a, b in itertools.pairwise(kept)) or len(kept) == 2


def test_counts_read_as_people_write_them():
    assert [count_words(n) for n in (8, 4096, 32768, 300000)] == ["8", "4,096", "32.8k", "300k"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "swept.jsonl"
    path.write_text("".join(r.to_json() + "\n" for r in swept().records))
    return path


def test_plot_picks_by_what_the_file_holds(file, capsys):
    assert main(["plot", str(file)]) == 0
    drawn = capsys.readouterr().out.split()
    assert drawn == [str(file.with_suffix(".png")), str(file.with_name("swept-map.png"))]
    assert all(Path(p).read_bytes()[:4] == b"\x89PNG" for p in drawn)
    assert main(["plot", str(file), "--kind", "size", "-o", str(file.with_name("only.svg"))]) == 0
    assert capsys.readouterr().out.split() == [str(file.with_name("only.svg"))]


def test_one_number_of_ranks_is_drawn_over_size(tmp_path, capsys):
    path = tmp_path / "one.jsonl"
    path.write_text("".join(r.to_json() + "\n" for r in swept(ranks=(8,)).records))
    assert main(["plot", str(path)]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "one.png")]
    with pytest.raises(SystemExit):
        main(["plot", str(path), "--kind", "map"])
    assert "several numbers of ranks" in capsys.readouterr().err


def test_the_same_records_give_the_same_bytes(tmp_path):
    first, second = (save(scaling([swept()]), tmp_path / f"{i}.svg").read_bytes() for i in (1, 2))
    assert first == second
    assert json.dumps(first.decode())  # text throughout


def test_curves_of_both_kinds_say_which_nobody_measured():
    from busbw.plots.curves import curves

    measured, modelled = swept(ranks=(8,), clock="wall"), swept(ranks=(8,))
    figure = curves([measured, modelled])
    texts = [t.get_text() for legend in figure.legends for t in legend.get_texts()]
    assert any(t.endswith("(measured)") for t in texts)
    assert any(t.endswith("(modelled somewhere)") for t in texts)
