"""Cores for ranks, on machines made up as folders: sockets, hardware threads, several last-level caches, cpusets, quotas."""

from itertools import pairwise

import pytest
from busbw.transports import affinity
from hypothesis import given, settings
from hypothesis import strategies as st


def machine(root, sockets=1, caches=1, cores=2, threads=1):
    """/sys/devices/system/cpu of a machine: caches a socket, cores a cache. As Linux on x86 numbers them, all first hardware
    threads come before the second ones."""
    total = sockets * caches * cores
    for core in range(total):
        mine = [core + t * total for t in range(threads)]
        cache = core // cores
        behind = [c + t * total for c in range(cache * cores, (cache + 1) * cores) for t in range(threads)]
        for cpu in mine:
            folder = root / f"cpu{cpu}"
            for name, text in {
                "topology/physical_package_id": core // (caches * cores),
                "topology/core_cpus_list": ",".join(map(str, mine)),
                "cache/index0/level": 1,
                "cache/index0/shared_cpu_list": cpu,
                "cache/index3/level": 3,
                "cache/index3/shared_cpu_list": ",".join(map(str, behind)),
            }.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(f"{text}\n")
    return affinity.places(range(total * threads), root)


def test_places_are_read_as_linux_writes_them(tmp_path):
    where = machine(tmp_path, sockets=2, caches=2, cores=2, threads=2)
    assert where[5] == affinity.Place(socket=1, cache=4, core=5)
    assert where[13] == affinity.Place(socket=1, cache=4, core=5)
    (tmp_path / "cpu0/cache/index3/shared_cpu_list").write_text("0-3,8\n")
    assert affinity.places([0], tmp_path)[0].cache == 0


def test_where_the_system_tells_nothing_every_cpu_is_a_core_of_its_own(tmp_path):
    where = affinity.places([0, 1, 2], tmp_path)
    assert affinity.choose(where, 3) == [0, 1, 2]


def test_ranks_spread_over_sockets_then_caches_and_neighbours_stay_together(tmp_path):
    where = machine(tmp_path, sockets=2, caches=2, cores=2, threads=2)
    assert affinity.choose(where, 2) == [0, 4]
    assert affinity.choose(where, 4) == [0, 2, 4, 6]
    assert affinity.choose(where, 8) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert sorted(affinity.choose(where, 16)) == list(range(16))
    assert affinity.choose(where, 17) is None


def test_a_cpuset_leaves_what_it_leaves(tmp_path):
    where = machine(tmp_path, sockets=2, caches=1, cores=4, threads=2)
    left = {
        cpu: where[cpu] for cpu in (1, 2, 3, 4, 9, 12)
    }  # three cores of socket 0, one of socket 1, two of them twice
    assert affinity.choose(left, 2) == [1, 4]
    assert affinity.choose(left, 4) == [1, 2, 3, 4]  # no second thread while a core is free
    assert sorted(affinity.choose(left, 6)) == sorted(left)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.data())
def test_every_choice_is_of_distinct_cpus_in_even_shares(tmp_path_factory, sockets, caches, cores, threads, data):
    where = machine(tmp_path_factory.mktemp("cpu"), sockets, caches, cores, threads)
    ranks = data.draw(st.integers(1, len(where)))
    chosen = affinity.choose(where, ranks)
    assert len(set(chosen)) == ranks
    for group in ("socket", "cache"):
        of = [getattr(where[cpu], group) for cpu in chosen]
        counts = [of.count(g) for g in {getattr(p, group) for p in where.values()}]
        assert max(counts) - min(counts) <= 1
    threads_used = [where[cpu].core for cpu in chosen]
    if ranks <= len({p.core for p in where.values()}):
        assert len(set(threads_used)) == ranks
    crossings = sum(where[a].socket != where[b].socket for a, b in pairwise([*chosen, chosen[0]]))
    assert crossings <= 2


def test_free_ranks_get_a_core_each_and_bound_ones_keep_theirs(tmp_path):
    where = machine(tmp_path, sockets=2, caches=1, cores=2, threads=2)
    everything = list(where)
    assert affinity.assign([everything] * 4, where) == [0, 1, 2, 3]
    assert affinity.assign([[0, 4], [1, 5]], where) == [None, None]  # both threads of one core: the launcher chose
    assert affinity.assign([[1], everything], where) == [None, 0]
    by_socket = [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert affinity.assign([by_socket[0], by_socket[1], by_socket[0], by_socket[1]], where) == [0, 2, 1, 3]
    assert affinity.assign([everything, [0, 1, 4, 5]], where) == [1, 0]


def test_nobody_is_bound_where_not_everybody_fits(tmp_path):
    where = machine(tmp_path, cores=2)
    assert affinity.assign([[0, 1]] * 3, where) is None
    assert affinity.assign([[0], [1], [0, 1]], where) is None


def test_ranks_bound_to_one_core_are_found_even_on_its_two_threads(tmp_path):
    where = machine(tmp_path, cores=2, threads=2)
    assert affinity.meetings([[0], [2], [1, 3]], where) == [(0, [0, 1])]
    assert affinity.meetings([[0], [1]], where) == []
    assert affinity.meetings([[0, 1], [0, 1]], where) == []


@pytest.mark.parametrize(
    "own, files, expected",
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "400000 100000\n"}, 4.0),
        ("0::/a/b\n", {"a/b/cpu.max": "200000 100000\n", "a/cpu.max": "400000 100000\n"}, 2.0),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        (
            "4:cpu,cpuacct:/docker/x\n1:name=systemd:/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            0.5,
        ),
        ("2:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, None),
        ("2:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "300000\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, 3.0),
        ("rubbish", {}, None),
    ],
)
def test_quotas_of_both_versions_of_control_groups(tmp_path, own, files, expected):
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(text)
    assert affinity.quota(tmp_path / "own", tmp_path / "fs") == expected


def test_a_quota_leaves_room_for_fewer_ranks_than_cores(monkeypatch):
    monkeypatch.setattr(affinity, "usable", lambda: list(range(8)))
    for allowed, ranks in ((None, 8), (3.5, 3), (0.5, 1), (64.0, 8)):
        monkeypatch.setattr(affinity, "quota", lambda allowed=allowed: allowed)
        assert affinity.room() == ranks
