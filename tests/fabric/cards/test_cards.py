"""System cards: what is shipped is complete and sourced, what is hostile is refused with a place, and settings work."""

import pickle
import re
from pathlib import Path

import pytest
import yaml
from busbw.errors import UserError
from busbw.fabric.cards import card, yamltree
from busbw.fabric.cards.card import Figure, load, names, override
from busbw.fabric.physics import topology
from hypothesis import given, settings
from hypothesis import strategies as st

SHIPPED = [n for n in names() if n != card.THIS_MACHINE]
ASKED_FOR = {
    "memphis-h100-100k",
    "memphis-b200-cx8-300k",
    "gb300-nvl72-cx8",
    "dgx-b200-cx7",
    "dgx-h100-cx7",
    "gb200-nvl72-cx7",
    "oci-h100-supercluster",
    "x-datacenter",
    "tesla-h100-85k",
    "xai-h100-12k",
    "tesla-dojo",
    "frontier",
    "aurora",
    "this-machine",
}


def test_every_system_that_is_promised_has_a_card():
    assert set(names()) >= ASKED_FOR


@pytest.mark.parametrize("name", SHIPPED)
def test_every_figure_has_a_value_a_status_and_a_source(name):
    system = load(name)
    needed = {k for k, rule in card.schema().items() if not rule.get("optional")}
    if system.nic is None:
        needed = {k for k in needed if k.split(".")[0] not in ("nic", "switch", "network")}
    assert needed <= set(system.figures)
    for key, figure in system.figures.items():
        assert figure.status in card.STATUSES, key
        assert len(figure.source) > 3, key
        assert bool(figure.how) == (figure.status == "estimated"), key


@pytest.mark.parametrize("name", SHIPPED)
def test_the_dataclasses_hold_what_the_figures_say(name):
    system = load(name)
    for key, figure in system.figures.items():
        value = system
        for part in key.split("."):
            value = getattr(value, part)
        assert value == figure.value
    assert system.power.gpu == system.gpu.power
    assert system.nic is None or system.nic.planes == system.network.planes
    assert (system.nodes - 1) * system.node.gpus < system.gpus <= system.nodes * system.node.gpus


def test_a_system_can_be_sent_to_another_process():
    system = load("dgx-h100-cx7")
    assert pickle.loads(pickle.dumps(system)) == system
    assert isinstance(hash(system), int)


# Figures that documents state, written here from those documents and not from the cards.
STATED = [
    ("memphis-h100-100k", "gpus", 100_000),
    ("memphis-h100-100k", "network.tiers", 3),
    ("memphis-h100-100k", "network.throughput_fraction", 0.95),
    ("memphis-b200-cx8-300k", "gpus", 300_000),
    ("memphis-b200-cx8-300k", "nic.rate", 100e9),
    ("dgx-h100-cx7", "node.link.rate", 20.6e9 * 18),
    ("dgx-b200-cx7", "node.link.rate", 40.1e9 * 18),
    ("dgx-h100-cx7", "nic.rate", 50e9),
    ("gb300-nvl72-cx8", "node.domain", 72),
    ("gb300-nvl72-cx8", "node.gpus", 4),
    ("gb300-nvl72-cx8", "nic.pcie_generation", 6),
    ("frontier", "node.nics", 4),
    ("aurora", "network.endpoints_per_switch", 16),
    ("alps-gh200", "gpus", 2688 * 4),
    ("polaris-a100", "node.nics", 2),
    ("tesla-dojo", "gpus", 3000),
    ("tesla-h100-85k", "gpus", 85_000),
    ("xai-h100-12k", "gpus", 12_000),
    ("dgx-h100-cx7", "software.ring.network.simple", 14e-6),
    ("dgx-b200-cx7", "software.tree.network.ll", 5e-6),
]


@pytest.mark.parametrize("name, key, value", STATED)
def test_stated_figures_stand_in_the_cards(name, key, value):
    assert load(name).figures[key].value == pytest.approx(value, rel=1e-12)


def leaf(value, status="known", source="a test"):
    how = ", how: guessed" if status == "estimated" else ""
    return f"{{value: {value}, status: {status}, source: {source}{how}}}"


def text_of(system, **changes):
    """A card without parts, as YAML: every figure of `system`, with some of them as given."""
    rules = card.schema()
    tree = {}
    for key, figure in system.figures.items():
        *sections, name = key.split(".")
        at = tree
        for section in sections:
            at = at.setdefault(section, {})
        value, rule = figure.value, rules[key]
        si = {"rate": "B/s", "time": "s", "bytes": "B", "power": "W", "length": "m", "messages": "msg/s"}.get(
            rule["kind"], ""
        )
        words = [f"'{v!r} {si}'" if si else str(v).lower() if isinstance(v, bool) else f"'{v}'" for v in
                 (value if isinstance(value, tuple) else (value,))]  # fmt: skip
        at[name] = changes.pop(key, leaf(f"[{', '.join(words)}]" if rule.get("many") else words[0]))

    def write(at, indent):
        return "".join(
            f"{indent}{k}: {v}\n" if isinstance(v, str) else f"{indent}{k}:\n{write(v, indent + '  ')}"
            for k, v in at.items()
        )

    assert not changes
    return "title: of a test\n" + write(tree, "")


@pytest.fixture(scope="module")
def dgx():
    return load("dgx-h100-cx7")


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "mine.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def refused(path):
    with pytest.raises(UserError) as e:
        load(path)
    message = str(e.value)
    assert str(path) in message and "\n" not in message and len(message) < 2000
    return message


@pytest.mark.parametrize("name", ["dgx-h100-cx7", "tesla-dojo", "aurora", "mi300x-host"])
def test_a_card_written_out_in_full_is_the_card_itself(write, name):
    """The parts and the units leave nothing out: SI values written as text give the same system."""
    system = load(name)
    mine = load(write(text_of(system)))
    for field in ("gpus", "gpu", "node", "nic", "switch", "network", "software", "power"):
        assert getattr(mine, field) == getattr(system, field)
    assert mine.name == "mine"


BAD_FIGURES = [
    ("nic.rate", leaf("400"), "no unit"),
    ("nic.rate", leaf("400 Gb"), "unit 'Gb'"),
    ("nic.rate", leaf("-400 Gb/s"), "out of range"),
    ("nic.rate", leaf("1e30 Gb/s"), "out of range"),
    ("nic.rate", leaf(".nan"), "accepted: a rate"),
    ("nic.rate", leaf(".inf"), "accepted: a rate"),
    ("nic.rate", "400 Gb/s", "no source"),
    ("nic.rate", "{value: 400 Gb/s, status: known}", "no source"),
    ("nic.rate", "{value: 400 Gb/s, source: x}", "accepted: known, estimated"),
    ("nic.rate", "{value: 400 Gb/s, status: guessed, source: x}", "accepted: known, estimated"),
    ("nic.rate", "{value: 400 Gb/s, status: estimated, source: x}", "no how"),
    ("nic.rate", "{value: 400 Gb/s, status: known, source: x, why: y}", "unknown key 'why'"),
    ("nic.rate", "{status: known, source: x}", "no value"),
    ("nic.rate", "{value: {a: b}, status: known, source: x}", "accepted: a word"),
    ("nic.rate", leaf("[1 Gb/s, 2 Gb/s]"), "accepted: one value"),
    ("nic.latency", leaf("2 s"), "out of range"),
    ("nic.latency", leaf("-1 us"), "out of range"),
    ("nic.framing", leaf("token-ring"), "accepted: rocev2, infiniband, slingshot, ttpoe"),
    ("nic.pcie_efficiency", leaf("1.5"), "out of range"),
    ("node.gpus", leaf("0"), "out of range"),
    ("node.gpus", leaf("7.5"), "not a whole number"),
    ("node.domain", leaf("12"), "not a multiple of node.gpus"),
    ("node.nics", leaf("0"), "yet there is a network"),
    ("node.link.sharp", leaf("maybe"), "accepted: true, false"),
    ("node.link.rate", leaf("500 GB/s"), "more than node.link.nominal_rate"),
    ("network.cable_lengths", leaf("[1 m]"), "1 lengths for 2 tiers"),
    ("network.cable_lengths", leaf("[[1 m], 2 m]"), "a list in a list"),
    ("network.planes", leaf("3"), "3 planes cannot share 1 ports"),
    ("network.topology", leaf("dragonfly"), "a dragonfly needs it"),
    ("network.topology", leaf("torus"), "a torus needs it"),
    ("network.topology", leaf("single-switch"), "accepted: 1"),
    ("switch.port_rate", leaf("100 Gb/s"), "slower than a port of the NIC"),
    ("software.caps.ll", leaf("[1 GB/s, 2 GB/s]"), "accepted: 3"),
    ("gpus", leaf("10000000000"), "out of range"),
    ("gpu.power", leaf("0.7"), "no unit"),
]


@pytest.mark.parametrize("key, words, said", BAD_FIGURES)
def test_a_bad_figure_is_refused_with_file_line_and_key(write, dgx, key, words, said):
    text = text_of(dgx, **{key: words})
    message = refused(write(text))
    line = 1 + next(i for i, t in enumerate(text.split("\n")) if words in t)
    assert f":{line}:" in message or key == "network.topology"  # that one is told at the key that is missing or wrong
    assert said in message
    assert key in message or key == "network.topology"


def test_an_unknown_key_is_refused_with_the_nearest(write, dgx):
    good = text_of(dgx)
    message = refused(write(good.replace("  pcie_lanes:", "  pcie_lane:")))
    assert "pcie_lane'" in message and "did you mean 'pcie_lanes'?" in message and message.count(":") >= 2
    assert "did you mean 'switch'?" in refused(write(good.replace("switch:", "swich:")))


def test_a_missing_key_or_section_is_named(write, dgx):
    good = text_of(dgx)
    line = next(t for t in good.split("\n") if t.startswith("  mtu:"))
    assert "nic.mtu is missing" in refused(write(good.replace(line + "\n", "")))
    assert "switch is missing" in refused(write(good[: good.index("switch:")] + good[good.index("network:") :]))
    assert "title is missing" in refused(write(good.replace("title: of a test\n", "")))


def test_pcie_is_described_whole_or_left_out(write, dgx):
    lines = text_of(dgx).split("\n")
    without = "\n".join(line for line in lines if not line.startswith("  pcie_"))
    assert load(write(without)).nic.pcie_generation is None
    some = "\n".join(line for line in lines if not line.startswith("  pcie_lanes"))
    assert "nic.pcie_lanes: missing; accepted: all of" in refused(write(some))


def test_more_gpus_than_a_domain_need_a_network(write, dgx):
    alone = load("mi300x-host")
    assert "need a network" in refused(write(text_of(alone, gpus=leaf("16"))))


def test_a_part_that_does_not_exist_is_refused(write, dgx):
    message = refused(
        write(
            "title: t\ngpus: " + leaf("8") + "\ngpu: {part: h100-sxn}\n" + text_of(dgx)[text_of(dgx).index("node:") :]
        )
    )
    assert ":3:" in message and "did you mean 'h100-sxm'?" in message
    for escape in ("../dgx-h100-cx7", "/etc/passwd", "h100-sxm.yaml"):
        assert "no part" in refused(write(text_of(dgx).replace("nic:\n", f"nic:\n  part: {escape}\n")))


BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi"))

HOSTILE = {
    "billion laughs": (BOMB, "anchors and aliases"),
    "alias alone": ("title: *x\n", "anchors and aliases"),
    "merge key bomb": ("title: t\nx: &y {a: 1}\n<<: *y\n", "anchors and aliases"),
    "object tag": ("title: !!python/object/apply:os.system ['touch /tmp/owned']\n", "tag"),
    "name tag": ("gpus: !!python/name:os.system\n", "tag"),
    "own tag": ("title: !mine x\n", "tag"),
    "plain tag": ("title: !!str x\n", "tag"),
    "deep flow": ("title: " + "[" * 100_000, "nest"),
    "deep flow lines": ("title: " + "[\n" * 100_000, "nest"),
    "deep blocks": ("\n".join(" " * i + f"k{i}:" for i in range(300)), "nest"),
    "duplicate key": ("title: a\ntitle: b\n", "stands twice"),
    "duplicate in flow": ("gpus: {value: 1, value: 2}\n", "stands twice"),
    "list as a key": ("? [a, b]\n: c\n", "a key must be a word"),
    "two documents": ("title: a\n---\ntitle: b\n", "second document"),
    "empty": ("", "no keys"),
    "a list": ("- a\n- b\n", "no keys"),
    "a word": ("hello\n", "no keys"),
    "broken": ("title: [a\n", "not YAML"),
    "tabs": ("title:\n\t- a\n", "not YAML"),
    "control characters": ("title: \x00\x01\n", "not YAML"),
    "not text": (bytes(range(256)), "not UTF-8"),
    "too large": ("# " + "x" * 300_000, "more than 256 KiB"),
}


@pytest.mark.parametrize("loader", ["CSafeLoader", "SafeLoader"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_yaml_is_refused_without_being_built(write, kind, loader, monkeypatch):
    if loader == "SafeLoader":  # PyYAML built without libyaml
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    text, said = HOSTILE[kind]
    assert said in refused(write(text))


def test_a_hundred_megabytes_are_not_read(tmp_path):
    path = tmp_path / "large.yaml"
    with path.open("wb") as f:
        f.truncate(100 << 20)
    assert "more than 256 KiB" in refused(path)


def test_what_is_no_file_is_refused(tmp_path):
    import os

    assert "no such file" in refused(tmp_path / "absent.yaml")
    (tmp_path / "folder.yaml").mkdir()
    assert "no such file" in refused(tmp_path / "folder.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")  # opening it would wait for a writer
    assert "no such file" in refused(tmp_path / "pipe.yaml")


@given(st.binary(max_size=400))
def test_any_bytes_give_a_user_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "card.yaml"
    path.write_bytes(data)
    with pytest.raises(UserError):
        load(path)


@given(
    st.integers(0, 4000),
    st.integers(0, 40),
    st.sampled_from(["", "&a ", "*a", "!!x ", "{", "[", "'", "\n", "-1 ", ": ", "\t"]),
)
def test_a_damaged_card_loads_or_is_refused(tmp_path_factory, at, gone, put):
    text = (card._HERE / "dgx-h100-cx7.yaml").read_text()
    path = tmp_path_factory.mktemp("fuzz") / "card.yaml"
    path.write_text(text[:at] + put + text[at + gone :])
    try:
        system = load(path)
    except UserError as e:
        assert "card.yaml" in str(e) or "parts" in str(e)
    else:
        assert all(isinstance(f, Figure) for f in system.figures.values())


def test_an_unknown_system_suggests_the_nearest():
    with pytest.raises(UserError, match="did you mean 'memphis-h100-100k'"):
        load("memphis-h100-100")
    with pytest.raises(UserError, match="accepted: alps-gh200, "):
        load("qqqqqq")


def test_settings_change_a_figure_and_say_who_set_it(dgx):
    system = override(dgx, ["nic.rate=200Gb/s", "network.routing=ecmp", "node.link.sharp=false"])
    assert (system.nic.rate, system.network.routing, system.node.link.sharp) == (25e9, "ecmp", False)
    assert system.figures["nic.rate"].status == card.SET_BY_USER
    assert dgx.nic.rate == 50e9  # the card is as it was
    assert override(dgx, []) == dgx


@settings(deadline=None)
@given(st.integers(1, 1000), st.integers(1, 64))
def test_nodes_set_the_gpus(nodes, gpus):
    system = override(load("dgx-h100-cx7"), [f"nodes={nodes}", f"node.gpus={gpus}"])
    assert (system.gpus, system.nodes, system.node.domain) == (nodes * gpus, nodes, gpus)


def test_planes_and_tiers_can_be_set_alone(dgx):
    b200 = load("memphis-b200-cx8-300k")
    assert override(b200, ["nic.planes=1"]).network.planes == override(b200, ["network.planes=1"]).nic.planes == 1
    taller = override(dgx, ["network.tiers=3"])
    assert taller.network.cable_lengths == (10.0, 30.0, 30.0)
    assert override(dgx, ["network.tiers=3", "network.cable_lengths=1m, 2m,3m"]).network.cable_lengths == (
        1.0,
        2.0,
        3.0,
    )
    assert override(dgx, ["network.topology=single-switch"]).network.tiers == 1


BAD_SETTINGS = [
    ("nic.rat=1Gb/s", "did you mean 'nic.rate'?"),
    ("nic.rate", "accepted: KEY=VALUE"),
    ("=5", "accepted: KEY=VALUE"),
    ("nic.rate=400", "no unit"),
    ("nic.rate=-1 Gb/s", "out of range"),
    ("gpus=0", "out of range"),
    ("nodes=100000000", "at most"),
    ("node.domain=7", "not a multiple"),
    ("nic.planes=5", "cannot share"),
    ("software.ring.base.ll=2", "no unit"),
    ("network.cable_lengths=1m,2m,3m", "3 lengths for 2 tiers"),
    ("title=x", "accepted: "),
    ("x" * 10_000, "accepted: KEY=VALUE"),
    ("x" * 10_000 + "=1", "no key"),
]


@pytest.mark.parametrize("setting, said", BAD_SETTINGS)
def test_a_bad_setting_is_refused(dgx, setting, said):
    with pytest.raises(UserError) as e:
        override(dgx, [setting])
    assert said in str(e.value) and len(str(e.value)) < 1000


def test_contradictory_settings_are_refused(dgx):
    with pytest.raises(UserError, match="contradict each other; accepted: gpus=64"):
        override(dgx, ["nodes=8", "gpus=65"])
    with pytest.raises(UserError, match="set twice"):
        override(dgx, ["nic.rate=1Gb/s", "nic.rate=2Gb/s"])
    with pytest.raises(UserError, match="has no network"):
        override(load("mi300x-host"), ["nic.rate=400Gb/s"])


def test_this_machine_is_measured_and_plausible():
    system = load(card.THIS_MACHINE)
    link = system.node.link
    assert (system.nodes, system.gpus, system.nic) == (1, system.node.gpus, None)
    assert 1e-9 < link.latency < 1e-3
    assert 1e8 < link.rate <= link.nominal_rate < 1e12
    assert 1e8 < system.gpu.memory_bandwidth < 1e13
    assert system.figures["node.link.rate"].status == "known"


def test_limits_are_those_promised():
    assert (yamltree.MAX_BYTES, yamltree.MAX_DEPTH) == (262144, 8)


DOCS = Path(__file__).resolve().parents[3] / "docs" / "systems.md"


def test_the_documentation_lists_every_key_as_the_schema_has_it():
    rows = [line.split("|")[1:3] for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    documented = {key.strip().strip("`"): doc.strip() for key, doc in rows}
    rules = {k: r for k, r in card.schema().items() if not k.startswith(("software.ring", "software.tree"))}
    assert documented == {key: rule["doc"] for key, rule in rules.items()}


def test_the_card_in_the_documentation_is_a_card(write):
    blocks = re.findall(r"^```yaml\n(.*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    system = load(write(next(b for b in blocks if b.startswith("title:"))))
    topology.check(system)
    assert system.gpus == 512
