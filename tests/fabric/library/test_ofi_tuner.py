"""aws-ofi-nccl's tuner: costs worked out by hand from its source, where it acts, and that it overrules NCCL."""

import math

import pytest
from busbw.fabric.cards import card
from busbw.fabric.library import ofi_tuner, predict

P5, DGX = (predict.platform(card.load(n)) for n in ("aws-p5-h100-efa", "dgx-h100-cx7"))
GIB = 1024**3


@pytest.mark.parametrize(
    "algorithm, protocol, microseconds, gibibytes",
    [
        ("ring", "ll", 8 * 20 + 54 * 0.6, 50 * 8 * 0.5),
        ("ring", "simple", 8 * 23 + 54 * 3.4, 50 * 8),
        ("tree", "ll128", 2 * 7 * 1.25 + 2 * 2 * 20, 25 * 8 * 0.9375),
        ("nvls-tree", "simple", 2 * (23 + 2 * 23), 20 * 8),
    ],
)
def test_costs_by_hand_of_32_ranks_on_4_p5(algorithm, protocol, microseconds, gibibytes):
    size = 1 << 26
    expected = microseconds * 1e-6 + size / (gibibytes * GIB)
    assert ofi_tuner.cost(ofi_tuner.P5, 32, 4, algorithm, protocol, size) == pytest.approx(expected)
    assert ofi_tuner.cost(ofi_tuner.P5, 32, 4, "nvls", "simple", size) == math.inf


def test_it_acts_beyond_two_nodes_of_its_instances_alone():
    for machine, ranks, acts in ((P5, 16, False), (P5, 32, True), (DGX, 32, False)):
        why = predict.expect(machine, ranks, 1 << 26).why
        assert any("aws-ofi-nccl's tuner" in w for w in why) is acts
    forced = predict.expect(P5, 32, 1 << 26, predict.Run(algorithm="ring", protocol="simple"))
    assert not any("tuner" in w for w in forced.why)


def test_what_it_names_runs():
    for k in range(10, 33, 2):
        told = predict.expect(P5, 128, 1 << k)
        costs = {c[:2]: ofi_tuner.cost(ofi_tuner.P5, 128, 16, c.algorithm, c.protocol, 1 << k) for c in told.candidates}
        assert (told.choice.algorithm, told.choice.protocol) == min(costs, key=costs.get) == told.candidates[0][:2]
