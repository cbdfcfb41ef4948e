"""The figure's own data are compared with the records; the files written are opened and looked into."""

import io
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from busbw.bench.record import Timing
from busbw.bench.summary import crossover, limit_busbw, series
from busbw.errors import UserError
from busbw.plots import style
from busbw.plots.curves import PlotError, curves, headline, provenance, render, save
from matplotlib.colors import to_hex
from PIL import Image


def panels(fig):
    return {ax.get_label(): ax for ax in fig.axes}


def line(ax, label):
    (found,) = (item for item in ax.lines if item.get_label() == label)
    return found


def texts(fig):
    found = [t.get_text() for t in fig.texts] + [t.get_text() for legend in fig.legends for t in legend.get_texts()]
    for ax in fig.axes:
        found += [ax.get_title(loc="left"), ax.get_xlabel(), *(t.get_text() for t in ax.texts)]
        found += [t.get_text() for t in (*ax.get_xticklabels(), *ax.get_yticklabels())]
    return found


def test_curves_hold_the_records_values(make):
    result = make()
    axes = panels(curves([result]))
    for algorithm in ("ring", "tree", "mpi-native"):
        rows = [r for r in result.records if r.algorithm == algorithm]
        for mode in ("out_of_place", "in_place"):
            times = [getattr(r, mode) for r in rows]
            drawn = line(axes["bandwidth"], f"{algorithm} {mode}")
            assert list(drawn.get_xdata()) == [r.size_bytes for r in rows]
            assert list(drawn.get_ydata()) == pytest.approx([r.busbw(t) / 1e9 for r, t in zip(rows, times)])
            drawn = line(axes["time"], f"{algorithm} {mode}")
            assert list(drawn.get_ydata()) == pytest.approx([t.seconds for t in times])
            assert to_hex(drawn.get_color()) == style.NAMED[algorithm]


def test_bands_reach_over_the_confidence_intervals(make):
    result = make({"ring": (1e-5, 1e-10)}, in_place=False)
    (band,) = panels(curves([result]))["time"].collections
    corners = {(float(x), float(y)) for x, y in band.get_paths()[0].vertices}
    for r in result.records:
        assert any(x == r.size_bytes and y == pytest.approx(r.best.ci_low) for x, y in corners)
        assert any(x == r.size_bytes and y == pytest.approx(r.best.ci_high) for x, y in corners)


def test_a_model_with_bands_has_the_inner_one_drawn_over_the_outer(make):
    result = make({"auto": (1e-5, 1e-10)}, in_place=False, clock="fabric:dgx-h100-cx7", transport="library")
    inner = {r.size_bytes: [r.best.seconds * 0.9, r.best.seconds * 1.2] for r in result.records}
    result.records[:] = [replace(r, options={**r.options, "band50": inner[r.size_bytes]}) for r in result.records]
    fig = curves([result])
    outer, inner = panels(fig)["time"].collections
    corners = {(float(x), float(y)) for x, y in inner.get_paths()[0].vertices}
    for r in result.records:
        for factor in (0.9, 1.2):
            assert any(x == r.size_bytes and y == pytest.approx(r.best.seconds * factor) for x, y in corners)
    assert outer is not inner and "model: holds 90 % (darker: 50 %) of measurements" in texts(fig)
    assert "95 % confidence of the median" not in texts(fig)


def test_in_place_is_dashed_and_thinner(make):
    ax = panels(curves([make()]))["time"]
    out, inplace = line(ax, "ring out_of_place"), line(ax, "ring in_place")
    assert not out.is_dashed() and inplace.is_dashed()
    assert inplace.get_linewidth() < out.get_linewidth()


def test_axes_are_logarithmic_and_labelled_in_human_units(make):
    fig = curves([make()])
    axes = panels(fig)
    assert axes["bandwidth"].get_xscale() == axes["bandwidth"].get_yscale() == "log"
    found = texts(fig)
    for text in ("32 B", "1 KiB", "1 MiB", "10 µs", "1 ms", "0.01", "Bus bandwidth, GB/s", "ring", "in-place"):
        assert text in found, text


def test_title_states_what_was_measured_and_where(make):
    found = texts(curves([make()]))
    assert "All-reduce, 8 ranks, float32 sum" in found
    assert "transport shared · Test CPU 9000 · 16 cores · node-17 · Open MPI 5.0.8 · 2026-01-02" in found


def test_crossover_and_memory_limit_are_marked_where_they_are(make):
    result = make()
    expected = crossover(series(result.records)).size_bytes
    axes = panels(curves([result]))
    for ax in axes.values():
        assert line(ax, "crossover").get_xdata()[0] == pytest.approx(expected)
    limit = limit_busbw(result.limits, 8) / 1e9
    assert line(axes["bandwidth"], "memory limit").get_ydata()[0] == pytest.approx(limit)
    bottom, top = axes["bandwidth"].get_ylim()
    assert bottom < limit < top
    assert not [item for item in panels(curves([make(limits={})]))["bandwidth"].lines if "limit" in item.get_label()]


def test_limits_of_each_algorithm_are_drawn_in_its_colour(make):
    axes = panels(curves([make()], traffic=lambda a, p: {"ring": 3.0 * p, "tree": 4.0 * p}.get(a)))
    drawn = [item for item in axes["bandwidth"].lines if item.get_label() == "memory limit"]
    assert {to_hex(item.get_color()) for item in drawn} == {style.NAMED["ring"], style.NAMED["tree"]}


def test_several_files_differ_by_marker_and_are_named_in_the_legend(make):
    fig = curves([make(path="x/old.jsonl"), make(path="y/new.jsonl", seed=2)])
    drawn = [item for item in panels(fig)["time"].lines if item.get_label() == "ring out_of_place"]
    assert len({item.get_marker() for item in drawn}) == 2
    assert len({item.get_color() for item in drawn}) == 1
    assert {"old", "new"} <= set(texts(fig))
    assert {"x/run", "y/run"} <= set(texts(curves([make(path="x/run.jsonl"), make(path="y/run.jsonl")])))


def test_several_settings_of_one_file_are_told_apart(make):
    two = make(ranks=2)
    two.records.extend(make(ranks=4).records)
    found = texts(curves([two]))
    assert {"2 ranks", "4 ranks", "All-reduce, 2, 4 ranks, float32 sum"} <= set(found)


def test_modelled_times_are_drawn_apart_from_measured_ones(make):
    model = make(clock="fabric:pod", transport="fabric", environment={}, in_place=False, path="model.jsonl")
    fig = curves([make(), model])
    measured, modelled = (i for i in panels(fig)["time"].lines if i.get_label() == "ring out_of_place")
    assert modelled.get_marker() == "" and modelled.is_dashed() and not measured.is_dashed()
    assert any("modelled: pod" in t for t in texts(fig))


def test_one_rank_shows_algbw(make):
    result = make({"ring": (1e-6, 1e-10)}, ranks=1)
    axes = panels(curves([result]))
    assert axes["bandwidth"].get_title(loc="left") == "Algorithm bandwidth, GB/s"
    expected = [r.algbw(r.out_of_place) / 1e9 for r in result.records]
    assert list(line(axes["bandwidth"], "ring out_of_place").get_ydata()) == pytest.approx(expected)


def test_one_size_and_records_without_a_file_are_drawn(make):
    result = make(sizes=[1 << 20])
    assert render(curves([result]), "png")
    assert render(curves(result.records), "png")


def test_zero_sizes_and_zero_times_are_left_out(make):
    none = Timing(0.0, 0.0, 0.0, [0.0], 1, 0, "iterations", None)
    result = make({"ring": (1e-6, 1e-10)}, sizes=[0, 8, 16])
    drawn = line(panels(curves([result]))["time"], "ring out_of_place")
    assert list(drawn.get_xdata()) == [8, 16]
    with pytest.raises(PlotError, match="nothing to plot"):
        curves([make(out_of_place=none, in_place=None)])
    with pytest.raises(PlotError, match="nothing to plot"):
        curves([])


def test_title_names_the_gpus_that_were_measured_and_not_the_cpu(make):
    devices = [{"name": "NVIDIA H100 80GB HBM3"}] * 4
    environment = {"cpu_model": "Test CPU 9000", "cores": 16, "hostnames": ["node-17"], "gpu": {"devices": devices}}
    found = texts(curves([make(transport="peer", environment=environment)]))
    assert any(t.startswith("transport peer · 4 × NVIDIA H100 80GB HBM3 · node-17") for t in found)


def test_colours_are_stable_and_distinct():
    known = style.colours(["ring", "tree", "halving_doubling", "x", "y", "z"])
    assert known["ring"] == style.BLUE and known["halving_doubling"] == style.GREEN
    assert len(set(known.values())) == 6
    assert style.colours(["x"])["x"] == style.colours(["ring", "x"])["x"]


def test_hostile_text_is_drawn_as_text(make):
    evil = "$\\frac{$ <script>\n\x00\ud800 & " + "x" * 5000
    result = make({evil: (1e-6, 1e-10), "ring": (1e-6, 1e-10)}, dtype=evil, op=evil, path=evil + "/" + evil,
                  environment={"cpu_model": evil, "cores": evil, "hostnames": [evil], "mpi": evil, "time": 7,
                               "gpu": {"devices": [evil, {"name": 7}]}})  # fmt: skip
    for kind in ("png", "svg", "pdf"):
        assert render(curves([result, make()]), kind)
    ET.fromstring(render(curves([result]), "svg", **{"svg.fonttype": "none"}))
    assert len(headline(result.records)) <= 90 and len(provenance(result.records)) <= 150


def test_png_is_a_picture_of_the_right_size(make):
    fig = curves([make()])
    picture = Image.open(io.BytesIO(render(fig, "png")))
    assert picture.size == tuple(round(200 * inches) for inches in fig.get_size_inches())
    assert len(picture.convert("RGB").resize((300, 150)).getcolors(100_000)) > 50  # more than an empty page


def test_svg_holds_its_text_and_no_dates(make):
    svg = render(curves([make()]), "svg", **{"svg.fonttype": "none"}).decode()
    ET.fromstring(svg)
    assert "All-reduce, 8 ranks, float32 sum" in svg and "tree → ring" in svg
    assert not re.search(r"dc:date|<metadata", svg)


@pytest.mark.parametrize("kind, magic", [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_saving_twice_gives_the_same_bytes(make, tmp_path, kind, magic):
    one, two = (save(curves([make()]), tmp_path / f"{n}.{kind}").read_bytes() for n in "ab")
    assert one == two and one.startswith(magic)


def test_save_says_what_it_accepts(make, tmp_path):
    fig = curves([make()])
    with pytest.raises(PlotError, match=r"'\.jpg'; accepted: \.png, \.svg, \.pdf"):
        save(fig, tmp_path / "a.jpg")
    with pytest.raises(PlotError, match="cannot be written"):
        save(fig, tmp_path / "missing" / "a.png")
    assert issubclass(PlotError, UserError)


def test_drawing_leaves_pyplot_unloaded_and_the_settings_alone(make, tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text("\n".join(r.to_json() for r in make(sizes=[8, 16]).records))
    code = f"""if True:
        import sys, matplotlib
        from busbw.bench.record import read
        from busbw.plots.curves import curves, render
        names = [n for n in matplotlib.rcParams if not n.startswith("backend")]
        before = [matplotlib.rcParams[n] for n in names]
        render(curves([read({str(path)!r})]), "svg")
        assert [matplotlib.rcParams[n] for n in names] == before
        assert "matplotlib.pyplot" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
