"""simulate --contention: shared links change what they must, nothing else, and only where there is a tree to share."""

import pytest
from busbw.errors import UserError
from busbw.fabric import simulate
from busbw.fabric.cards import card
from busbw.fabric.simulate import Options, Point, evaluate

DGX = card.load("dgx-h100-cx7")
SMALL = card.override(DGX, ["switch.radix=16", "nodes=16"])  # 16 leaves of 8 hosts' NICs
THIN = card.override(DGX, ["switch.radix=16", "nodes=16", "network.oversubscription=3"])


def seconds(system, algorithm, ranks, size, **more):
    options = simulate.checked(system, Options(ranks=(ranks,), sizes=(size,), algorithms=(algorithm,), **more))
    return evaluate(system, options, Point(algorithm, ranks, size)).seconds


def test_inside_a_domain_nothing_is_shared():
    for algorithm in ("ring", "two-shot"):
        alone = seconds(DGX, algorithm, 8, 1 << 20, model="replay", slices=1)
        assert seconds(DGX, algorithm, 8, 1 << 20, contention=True, slices=1) == alone


def test_a_ring_in_order_meets_nobody():
    plain = seconds(DGX, "ring", 64, 1 << 20, model="replay", slices=1, rails="own")
    assert seconds(DGX, "ring", 64, 1 << 20, contention=True, slices=1) == pytest.approx(plain, rel=0.02)


def test_routing_seed_and_oversubscription_matter_where_hosts_are_under_several_leaves():
    given = {"contention": True, "slices": 1}
    adaptive = seconds(SMALL, "recursive-doubling", 128, 8 << 20, routing="adaptive", **given)
    for thin, worse in ((SMALL, 1.1), (THIN, 1.1)):
        hashed = [seconds(thin, "recursive-doubling", 128, 8 << 20, routing="ecmp", seed=s, **given) for s in (0, 1)]
        assert min(hashed) > worse * adaptive
    assert hashed[0] != hashed[1]
    assert hashed[1] == seconds(THIN, "recursive-doubling", 128, 8 << 20, routing="ecmp", seed=1, **given)
    wide, narrow = (seconds(s, "halving-doubling", 128, 8 << 20, routing="ecmp", **given) for s in (SMALL, THIN))
    assert narrow > 1.1 * wide


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("memphis-b200-cx8-300k", {"ranks": (2048,)}, "2048 ranks; accepted: at most 1024"),
        ("alps-gh200", {"ranks": (64,)}, "network.topology dragonfly"),
        ("mi300x-host", {"ranks": (8,)}, "mi300x-host has no network"),
        ("aws-p5-h100-efa", {"ranks": (64,)}, "32 NICs for 8 GPUs"),
        ("dgx-h100-cx7", {"ranks": (64,), "model": "library"}, "goes with --model replay or auto"),
    ],
)
def test_what_has_no_shared_links_is_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        simulate.checked(card.load(name), Options(sizes=(1024,), algorithms=("ring",), contention=True, **options))


def test_the_library_models_the_collectives_that_nccl_models():
    for collective in ("all_gather", "reduce_scatter", "broadcast", "reduce"):
        options = Options(ranks=(32,), sizes=(1 << 24,), algorithms=("auto",), model="library", collective=collective)
        found = evaluate(DGX, simulate.checked(DGX, options), Point("auto", 32, 1 << 24))
        assert found.level == "library" and found.band.low90 < found.seconds < found.band.high90
    with pytest.raises(UserError, match="there is none of alltoall"):
        simulate.checked(
            DGX, Options(ranks=(32,), sizes=(1 << 24,), algorithms=("all",), model="library", collective="alltoall")
        )
