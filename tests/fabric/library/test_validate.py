"""Published points: reading them, the machine each describes, and the errors of the model."""

import csv
import math
import statistics

import pytest
from busbw.errors import UserError
from busbw.fabric.library import predict, published, validate
from busbw.fabric.library.published import Point

HEADER = "id,system,gpu,nic,nodes,ranks,gpus_per_node,library,algorithm,size_bytes,time_us,algbw_GBps,busbw_GBps,source,notes\n"
ROW = "a,Lab,H100 80GB,8x400G RoCE per node,4,32,8,NCCL 2.30,ring,1073741824,5500,,,here,\n"


@pytest.fixture(scope="module")
def shipped():
    return published.read()


@pytest.fixture(scope="module", params=predict.MODELS)
def report(request, shipped):
    return validate.compare(shipped, request.param)


def point(**more):
    given = {
        "line": 2,
        "series": "s",
        "system": "Lab",
        "gpu": "H100 80GB HBM3",
        "nic": "8x400G InfiniBand",
        "nodes": 4,
        "ranks": 32,
        "per_node": 8,
        "library": "NCCL 2.30",
        "algorithm": "default",
        "size": 1 << 30,
        "seconds": 5e-3,
        "busbw": None,
    }
    return Point(**(given | more))


def test_the_shipped_table_is_read_whole(shipped):
    with published.PUBLISHED.open() as f:
        rows = list(csv.DictReader(f))
    assert len(shipped) == len(rows) == 1447
    assert len({p.series for p in shipped}) == 115
    for p, row in zip(shipped, rows):
        assert p.series == row["id"] and str(p.size or "") == row["size_bytes"]


def test_times_and_bandwidths_of_the_table_agree(shipped):
    """The two columns were rounded apart; from 1 GB/s up they must give one another."""
    both = [p for p in shipped if p.seconds and p.busbw and p.ranks and p.size and p.busbw > 1e9]
    assert len(both) > 500
    for p in both:
        assert 2 * (p.ranks - 1) / p.ranks * p.size / p.seconds == pytest.approx(p.busbw, rel=0.03)


def test_the_model_reaches_its_aims_on_the_published_points(report):
    everything = validate.summary("all", report.compared)
    assert len(report.compared) > 1400
    if report.model == "fabric":
        groups = validate.summaries(report.compared)
        for regime, aim in validate.TARGETS.items():
            assert statistics.median(g.absolute[regime] for g in groups if g.absolute[regime] is not None) <= aim, (
                regime
            )
    else:  # what NCCL believes is no clock
        assert everything.absolute["large"] <= 0.15


def test_errors_are_relative_to_what_was_measured(report):
    for c in report.compared[::7]:
        factor = 2 * (c.point.ranks - 1) / c.point.ranks * c.point.size
        if c.point.size >= 64 << 20:
            measured = c.point.busbw if not c.point.seconds else factor / c.point.seconds
            assert c.error == pytest.approx((factor / c.modelled - measured) / measured)
        else:
            measured = c.point.seconds or factor / c.point.busbw
            assert c.error == pytest.approx((c.modelled - measured) / measured)


def test_summaries_cover_every_point_once(report):
    for by_series in (False, True):
        groups = validate.summaries(report.compared, by_series)
        assert sum(g.points for g in groups) == len(report.compared)
    one = validate.summaries(report.compared)[0]
    own = [c for c in report.compared if c.point.system == one.name]
    large = [abs(c.error) for c in own if c.point.size >= 64 << 20]
    assert one.absolute["large"] == statistics.median(large)
    assert abs(one.worst.error) == max(abs(c.error) for c in own)


def test_every_point_is_compared_or_skipped_with_a_reason(report, shipped):
    assert len(report.compared) + sum(report.skipped.values()) == len(shipped)
    assert any("GPU is not stated" in why for why in report.skipped)
    assert all(math.isfinite(c.error) and c.modelled > 0 for c in report.compared)


def test_what_the_library_chose_is_told(report):
    chosen = validate.defaults(report.compared)
    assert sum(chosen.values()) == sum(c.machine.run.algorithm == "auto" for c in report.compared) > 1000
    assert {a for a, _ in chosen} >= {"ring", "tree", "nvls", "nvls-tree"}


@pytest.mark.parametrize(
    "nic, gpu, per_node, nics, gigabits",
    [
        ("8x400G RoCE per node", "H100", 8, 8, 400),
        ("4x200G InfiniBand", "A100", 4, 4, 200),
        ("EFA v2 32x100G per node (3.2 Tb/s)", "H100", 8, 32, 100),
        ("8x NDR 400G InfiniBand", "B200", 8, 8, 400),
        ("16x ConnectX-7 NDR InfiniBand in 2 nodes", "H20", 8, 8, 400),
        ("HPE Slingshot-11 200G, 4 per node (estimated)", "GH200 120GB", 4, 4, 200),
        ("ConnectX-7, one 200G QSFP cable", "GB10", 1, 1, 200),
        ("one NIC a GPU, 400G class (48.9 GB/s with 1 GPU a node; model not in the log)", "H100", 4, 4, 400),
        ("NDR 400G InfiniBand; 12 IB HCAs, its successor says 8 compute rails of 400G", "B200", 8, 8, 400),
        ("HDR InfiniBand", "A100", 8, 8, 200),
        ("ConnectX-8", "GB300", 4, 4, 800),
        ("InfiniBand (rate not stated)", "H200", 8, 8, 400),
        ("not stated in the log", "A100-SXM4-40GB", 8, 8, 200),
    ],
)
def test_a_nic_in_words_becomes_figures(nic, gpu, per_node, nics, gigabits):
    made = published.machine(point(nic=nic, gpu=gpu, per_node=per_node, ranks=4 * per_node))
    assert made.platform.nics == nics
    assert made.platform.nic_rate == pytest.approx(gigabits * 1e9 / 8)
    told = any(word in nic for word in ("not stated", "HDR Inf", "ConnectX-8"))
    assert bool(made.assumed) == told  # what the row does not say is noted


@pytest.mark.parametrize(
    "words, gpu, expected",
    [
        ("default (ofi tuner)", "H100", ("auto", ())),
        ("Ring (forced)", "H100", ("ring", ())),
        ("Tree (NVLS off)", "H100", ("tree", ())),
        ("NVLS off", "H100", ("auto", ("nvls", "nvls-tree"))),
        ("NVLS/NVLSTree", "H100", ("nvls", ())),
        ("CollnetChain SHARP", "H100", ("collnet-chain", ())),
        ("CollnetDirect SHARP", "H100", ("sharp", ())),
        ("author says NVLS (A100 has none)", "A100", ("auto", ())),
        ("ring LL to 1 MiB, then NVLS", "H100", ("auto", ())),
        ("default: tree below 8 MiB, ring above", "H100", ("auto", ())),
        ("Ring LL128 (forced)", "H100", ("ring", ())),
    ],
)
def test_an_algorithm_in_words(words, gpu, expected):
    made = published.machine(point(algorithm=words, gpu=gpu))
    assert (made.run.algorithm, made.run.without) == expected


@pytest.mark.parametrize(
    "more, why",
    [
        ({"library": "RCCL"}, "RCCL on H100"),
        ({"library": "oneCCL"}, "oneCCL"),
        ({"gpu": ""}, "GPU is not stated"),
        ({"gpu": "MI300X", "library": "?"}, r"no model of \? on MI300X"),
        ({"gpu": "L40S"}, "without NVLink"),
        ({"gpu": "H100 NVL"}, "bridges"),
        ({"ranks": None}, "ranks are not stated"),
        ({"ranks": 1, "nodes": 1}, "one rank"),
        ({"algorithm": "butterfly"}, "butterfly"),
    ],
)
def test_a_row_without_a_model_says_why(more, why):
    with pytest.raises(published.Skipped, match=why):
        published.machine(point(**more))


def test_gpus_of_one_rack_are_one_domain():
    rack = point(system="Lab GB200 NVL72", gpu="GB200", nic="none (one rack)", nodes=18, ranks=72, per_node=4)
    assert published.machine(rack).platform.domain == 72
    two = point(system="Lab GB200 NVL72", gpu="GB200", nic="4x400G InfiniBand", nodes=36, ranks=144, per_node=4)
    assert published.machine(two).platform.domain == 72 and published.machine(two).platform.nics == 72
    card_hosts = point(gpu="A100 PCIe 80GB")
    assert published.machine(card_hosts).platform.link == "pcie"


def test_an_amd_host_has_its_own_rows():
    amd, intel = (predict.tables(published.machine(point(gpu=g)).platform) for g in ("A100", "H100"))
    assert amd.posting == 2e-6 and intel.posting == 1e-6
    assert amd.ll[1:] == (22.5e9, 19e9)


def test_a_system_is_found_by_part_of_its_name(shipped):
    alps = validate.compare(shipped, system="alps")
    assert {c.point.system for c in alps.compared} == {"CSCS Alps (Clariden/Todi)", "CSCS Alps"}
    with pytest.raises(UserError, match=r"'Collosus'.*accepted: part of a name such as"):
        validate.compare(shipped, system="Collosus")
    with pytest.raises(UserError, match=r"model 'magic'"):
        validate.compare(shipped, "magic")


def test_rows_are_written_as_they_were_compared(tmp_path, shipped):
    found = validate.compare(shipped, system="slinky")
    path = validate.write(found, tmp_path / "rows.csv")
    with path.open() as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == len(found.compared)
    for row, c in zip(rows, found.compared):
        assert float(row["modelled_us"]) == pytest.approx(c.modelled * 1e6, rel=1e-5)
        assert float(row["error"]) == pytest.approx(c.error, abs=1e-4)
        assert row["error_of"] == "busbw"
    with pytest.raises(UserError, match="cannot be written"):
        validate.write(found, tmp_path / "no" / "rows.csv")


def test_a_table_of_ones_own(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("﻿" + HEADER + ROW + ROW.replace("5500,,", ",,380"), encoding="utf-8")
    report = validate.compare(published.read(path))
    first, second = report.compared
    assert first.measured == pytest.approx(5.5e-3)
    assert second.measured_busbw == pytest.approx(380e9)
    assert (first.algorithm, first.protocol) == ("ring", "simple") and abs(first.error) < 0.1


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "no column id|no column system"),
        (b"a,b\n1,2\n", "no column system, gpu, nic"),
        (HEADER.encode(), "no rows"),
        ((HEADER + ROW.replace("5500", "fast")).encode(), r":2: time_us 'fast'; accepted: a number"),
        ((HEADER + ROW.replace("1073741824", "-8")).encode(), r":2: size_bytes '-8'"),
        ((HEADER + ROW.replace(",32,8", ",32.5,8")).encode(), r":2: ranks 32.5; accepted: a whole number"),
        ((HEADER + ROW.replace("5500", "nan")).encode(), r"time_us 'nan'"),
        ((HEADER + ROW.replace("5500", "1e999")).encode(), r"time_us '1e999'"),
        (b"\xff\xfe\x00id", "not UTF-8"),
        ((HEADER + ROW + '"' + "x" * 200_000).encode(), "not CSV"),
        (
            HEADER.replace("time_us", "t").replace("busbw_GBps", "b").encode() + b"x\n",
            "no column time_us or busbw_GBps",
        ),
    ],
)
def test_a_bad_table_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        published.read(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_table_too_large_or_missing_is_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no such file"):
        published.read(tmp_path / "none.csv")
    with pytest.raises(UserError, match="no such file"):
        published.read(tmp_path)
    path = tmp_path / "large.csv"
    with path.open("wb") as f:
        f.truncate(published.MAX_BYTES + 1)
    with pytest.raises(UserError, match="more than 64 MiB"):
        published.read(path)
    monkeypatch.setattr(published, "MAX_ROWS", 1)
    own = tmp_path / "own.csv"
    own.write_text(HEADER + ROW + ROW)
    with pytest.raises(UserError, match="more than 1 rows"):
        published.read(own)
