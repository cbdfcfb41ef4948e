"""How fast flows are routed, and what ECMP leaves of a fat tree next to spraying.

    python benchmarks/routing.py

Prints a table: pattern, tree, routing, mean and slowest rate as a part of a port's, and the time of one routing (best of 5).
"""

from __future__ import annotations

import time

import numpy as np
from busbw.fabric.cards import card
from busbw.fabric.physics.build import build
from busbw.fabric.physics.routing import FatTree, hashed_max_load, hashed_mean, permutation_flows, ring_flows, route

TREES = {
    "2 tiers, 2,048 ports": FatTree(ports=32, leaves=64, pods=1, middles=32),
    "3 tiers, 8,192 ports": FatTree(ports=16, leaves=16, pods=32, middles=16, tops=16),
    "3 tiers, 65,536 ports": FatTree(ports=32, leaves=32, pods=64, middles=32, tops=32),
}
SEEDS = 5


def main() -> None:
    print(f"{'tree':24}{'pattern':14}{'routing':14}{'mean':>8}{'slowest':>9}{'ms':>9}")
    for name, tree in TREES.items():
        patterns = {
            "next leaf": ring_flows(tree.ends, tree.ports),
            "permutation": permutation_flows(tree.ends, 1),
        }
        for pattern, flows in patterns.items():
            for routing, paths in (("ecmp", 1), ("ecmp", 4), ("ecmp", 16), ("static", 1), ("adaptive", 1)):
                route(tree, *flows, routing)  # compiles
                seconds, got = [], []
                for seed in range(SEEDS):
                    start = time.perf_counter()
                    got.append(route(tree, *flows, routing, seed=seed, paths=paths))
                    seconds.append(time.perf_counter() - start)
                mean, slowest = np.mean([g.mean for g in got]), np.mean([g.slowest for g in got])
                label = routing if paths == 1 else f"{routing}, {paths} paths"
                print(f"{name:24}{pattern:14}{label:14}{mean:8.3f}{slowest:9.3f}{1e3 * min(seconds):9.2f}")
    for ports in (16, 32, 64):
        mean, most = hashed_mean(ports, ports), hashed_max_load(ports, ports)
        print(f"closed form, {ports} flows over {ports} uplinks: mean {mean:.3f}, fullest {most:.2f} flows")
    for name, more in (("memphis-b200-cx8-300k", {}), ("memphis-b200-cx8-300k", {"routing": "ecmp"})):
        system = card.load(name)
        build(system, **more)
        start = time.perf_counter()
        net = build(system, **more)
        print(f"build {name} {more or ''}: {net.ranks} ranks in {1e3 * (time.perf_counter() - start):.0f} ms")


if __name__ == "__main__":
    main()
