"""LogGOPS: LogGOPSim's own published finishing times, its closed form, and a slow simulator with a plain heap."""

import heapq

import numpy as np
import pytest
from busbw.collectives import build
from busbw.errors import UserError
from busbw.fabric.time.loggops import ANY, GOAL_CALC, GOAL_RECV, GOAL_SEND, LogGOPS, RingGoal, goal, simulate
from busbw.fabric.time.replay import StuckError
from busbw.interchange.goal import from_schedule
from hypothesis import given, settings
from hypothesis import strategies as st

NANOSECONDS = LogGOPS(L=2500, o=1500, g=1000, G=6, O=0, S=65535)
PICOSECONDS = LogGOPS(L=700_000, o=200_000, g=5_000, G=10)


def make(ranks):
    """A Goal from lists of (kind, size, peer, tag[, cpu[, nic]]) and (before, after[, at start]) of each rank."""
    starts, rows, edges = [0], [], []
    for operations, needs in ranks:
        edges += [(b + len(rows), a + len(rows), *rest, 0)[:3] for b, a, *rest in needs]
        rows += [(*row, 0, 0)[:6] for row in operations]
        starts.append(len(rows))
    columns = np.array(rows, np.int64).reshape(-1, 6).T
    return goal(starts, *columns, *np.array(edges, np.int64).reshape(-1, 3).T)


def ring(p, nbytes):
    """As facts about LogGOPSim's figures state it: send s to the right needs receive s-1 from the left."""
    m, steps = nbytes // p, range(2 * (p - 1))
    ranks = []
    for r in range(p):
        operations = [row for s in steps for row in ((GOAL_SEND, m, (r + 1) % p, s), (GOAL_RECV, m, (r - 1) % p, s))]
        ranks.append((operations, [(2 * s - 1, 2 * s) for s in steps if s]))
    return make(ranks)


def binomial(p, nbytes):
    """Reduce to rank 0 along a binomial tree, then broadcast down it, whole messages."""
    ranks = []
    for r in range(p):
        low = r & -r if r else p
        below = [r + (1 << j) for j in range(p.bit_length()) if 1 << j < low and r + (1 << j) < p]
        operations = [(GOAL_RECV, nbytes, c, 0) for c in below]
        have = list(range(len(below)))
        needs = []
        if r:
            up = len(below)
            operations += [(GOAL_SEND, nbytes, r - low, 0), (GOAL_RECV, nbytes, r - low, 1)]
            needs += [(i, up) for i in have] + [(up, up + 1)]
            have = [up + 1]
        for c in reversed(below):
            needs += [(i, len(operations)) for i in have]
            operations.append((GOAL_SEND, nbytes, c, 1))
        ranks.append((operations, needs))
    return make(ranks)


@pytest.mark.parametrize("p, ns", [(64, 13_078_548), (256, 15_335_700), (1024, 23_811_348)])
def test_ring_of_a_mebibyte_ends_when_loggopsim_says(p, ns):
    assert simulate(RingGoal(p, 1 << 20), NANOSECONDS).time == ns
    if p <= 64:
        assert simulate(ring(p, 1 << 20), NANOSECONDS).time == ns


@pytest.mark.parametrize("p, ns", [(1024, 7_974_200), (1 << 14, None)])
def test_binomial_tree_at_the_rendezvous_threshold_ends_when_loggopsim_says(p, ns):
    got = simulate(binomial(p, 65_536), NANOSECONDS)
    # Our own schedule, written as GOAL, is the same tree.
    ours = simulate(from_schedule(build("binomial", p, 65_536 // 4, in_place=True), 4), NANOSECONDS)
    assert got.time == ours.time
    assert ns is None or got.time == ns
    assert got.messages == 2 * (p - 1)


@pytest.mark.parametrize("p", [2, 3, 8, 64, 300])
def test_an_eager_ring_has_loggopsims_closed_form(p):
    nbytes = p * 12_345 + 1
    L, o, _, G, *_ = PICOSECONDS
    want = 2 * (p - 1) * (L + 2 * o + (nbytes // p - 1) * G)
    assert simulate(RingGoal(p, nbytes), PICOSECONDS).finish.tolist() == [want] * p
    if p <= 64:
        schedule = from_schedule(build("ring", p, nbytes // p * p), 1)
        assert simulate(schedule, PICOSECONDS).finish.tolist() == [want] * p


def reference(ranks, letters):
    """The rules in loggops.py's first lines, with one heap of (time, age). Returns finishing times or None if stuck."""
    L, o, g, G, O, S = letters  # noqa: E741
    p = len(ranks)
    operations = [[(*row, 0, 0)[:6] for row in rank[0]] for rank in ranks]
    lacking = [[0] * len(rank) for rank in operations]
    then = {}
    for r, (_, needs) in enumerate(ranks):
        for b, a, *start in needs:
            lacking[r][a] += 1
            then.setdefault((r, b, bool(start and start[0])), []).append(a)
    cpu, out, into = ({} for _ in range(3))
    heap, age, done = [], 0, 0
    posted, unexpected = [[] for _ in range(p)], [[] for _ in range(p)]

    def put(time, what, r, i):
        nonlocal age
        heapq.heappush(heap, (time, age, what, r, i))
        age += 1

    def free(r, i, start, into):
        for a in then.get((r, i, start), ()):
            lacking[r][a] -= 1
            if not lacking[r][a]:
                into.setdefault(r, []).append(a)

    def issue(new, at_zero=False):
        for r in sorted(new):
            for i in sorted(new[r], key=lambda i: operations[r][i][0]):
                kind, _, _, _, c, n = operations[r][i]
                time = max(cpu.get((r, c), 0), out.get((r, n), 0) if kind == GOAL_SEND else 0)
                put(0 if at_zero else time, "op", r, i)

    issue({r: [i for i, n in enumerate(lacking[r]) if n == 0] for r in range(p)}, at_zero=True)
    while heap:
        time, born, what, r, i = heapq.heappop(heap)
        kind, size, peer, tag, c, n = operations[r][i]
        x = max(size - 1, 0)
        new = {}

        def again(time, entry=(born, what, r, i)):
            heapq.heappush(heap, (time, *entry))

        def release(r, i, time=time, c=c, n=n, new=new):
            nonlocal done
            cpu[r, c] = max(cpu.get((r, c), 0), time)
            out[r, n] = max(out.get((r, n), 0), time)
            free(r, i, False, new)
            done += 1

        if what == "message":
            ready = max(cpu.get((peer, c), 0), into.get((peer, n), 0))
            if ready > time:
                again(ready)
                continue
            cpu[peer, c] = time + o + x * max(O, G)
            into[peer, n] = time + g + x * G
            for at, j in enumerate(posted[peer]):
                if operations[peer][j][2] in (ANY, r) and operations[peer][j][3] in (ANY, tag):
                    del posted[peer][at]
                    if size > S:
                        release(r, i)
                    free(peer, j, False, new)
                    done += 1
                    break
            else:
                unexpected[peer].append((r, i))
        elif kind == GOAL_RECV:
            free(r, i, True, new)
            for at, (s, j) in enumerate(unexpected[r]):
                if peer in (ANY, s) and tag in (ANY, operations[s][j][3]):
                    del unexpected[r][at]
                    if size > S:
                        release(s, j)
                    free(r, i, False, new)
                    done += 1
                    break
            else:
                posted[r].append(i)
        else:
            ready = max(cpu.get((r, c), 0), out.get((r, n), 0) if kind == GOAL_SEND else 0)
            if ready > time:
                again(ready)
                continue
            cpu[r, c] = time + (size if kind == GOAL_CALC else o + x * O)
            free(r, i, True, new)
            if kind == GOAL_SEND:
                out[r, n] = time + g + x * G
                put(time + o + L, "message", r, i)
            if kind == GOAL_CALC or size <= S:
                free(r, i, False, new)
                done += 1
        issue(new)
    if done < sum(map(len, operations)) or any(unexpected):
        return None
    return [max((cpu.get((r, c), 0) for c in range(256)), default=0) for r in range(p)]


@st.composite
def goals(draw):
    """Random messages and calculations of few ranks, acyclic within a rank, with ties in abundance; some get stuck."""
    p = draw(st.integers(1, 5))
    ranks = [([], []) for _ in range(p)]
    one_cpu = draw(st.booleans())
    where = st.just(0) if one_cpu else st.integers(0, 1)
    for _ in range(draw(st.integers(0, 14))):
        a, b = draw(st.integers(0, p - 1)), draw(st.integers(0, p - 1))
        size = draw(st.integers(1, 4))
        if draw(st.integers(0, 3)) == 0:
            ranks[a][0].append((GOAL_CALC, size * 3, -1, 0, draw(where)))
        else:
            tag = draw(st.integers(0, 2))
            ranks[a][0].append((GOAL_SEND, size, b, tag, draw(where), draw(where)))
            any_source, any_tag = draw(st.integers(0, 5)) == 0, draw(st.integers(0, 5)) == 0
            row = (GOAL_RECV, size, ANY if any_source else a, ANY if any_tag else tag, draw(where), draw(where))
            ranks[b][0].append(row)
    for operations, needs in ranks:
        for after in range(1, len(operations)):
            for before in draw(st.lists(st.integers(0, after - 1), max_size=2)):
                needs.append((before, after, draw(st.booleans())))
    small = st.integers(0, 4)
    letters = LogGOPS(draw(small), draw(small), draw(small), draw(small), draw(small), draw(st.integers(0, 5)))
    return ranks, letters


@settings(max_examples=500, deadline=None)
@given(goals())
def test_any_goal_ends_as_the_rules_say(case):
    ranks, letters = case
    want = reference(ranks, letters)
    if want is None:
        with pytest.raises(StuckError):
            simulate(make(ranks), letters)
    else:
        assert simulate(make(ranks), letters).finish.tolist() == want


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 12), st.integers(1, 5000), st.lists(st.integers(0, 9), min_size=5, max_size=5), st.integers(0, 600)
)
def test_the_ring_that_is_not_written_out_is_the_ring_that_is(p, m, letters, threshold):
    parameters = LogGOPS(*letters, threshold)
    got = simulate(RingGoal(p, p * m), parameters)
    assert got.finish.tolist() == simulate(ring(p, p * m), parameters).finish.tolist()
    assert got.messages == 2 * p * (p - 1)


def test_many_messages_at_once_need_more_room_than_at_first():
    # 3,000 sends to one rank are released by one operation.
    n = 3000
    fan = ([(GOAL_CALC, 5, -1, 0)] + [(GOAL_SEND, 1, 1, k) for k in range(n)], [(0, k + 1) for k in range(n)])
    sink = ([(GOAL_RECV, 1, 0, k) for k in range(n)], [])
    got = simulate(make([fan, sink]), LogGOPS(L=7, o=2, g=3, G=0))
    assert got.finish.tolist() == [5 + 3 * (n - 1) + 2, 5 + 3 * (n - 1) + 2 + 7 + 2]


def test_what_never_ends_is_an_error():
    cycle = make([([(GOAL_CALC, 1, -1, 0), (GOAL_CALC, 1, -1, 0)], [(0, 1), (1, 0)])])
    with pytest.raises(StuckError, match="2 of 2 operations never run; the first is of rank 0"):
        simulate(cycle, NANOSECONDS)
    with pytest.raises(StuckError, match="1 of 1 operations never run; the first is of rank 1"):
        simulate(make([([], []), ([(GOAL_RECV, 1, 0, 0)], [])]), NANOSECONDS)
    with pytest.raises(StuckError, match="from rank 0 to rank 1 with tag 4 is never received"):
        simulate(make([([(GOAL_SEND, 1, 1, 4)], []), ([], [])]), NANOSECONDS)


def test_bad_input_is_an_error():
    for rank, what in [
        (([(GOAL_SEND, 1, 3, 0)], []), "does not exist"),
        (([(GOAL_SEND, 1, ANY, 0)], []), "does not exist"),
        (([(GOAL_CALC, -1, -1, 0)], []), "negative"),
        (([(7, 1, 0, 0)], []), "neither"),
        (([(GOAL_CALC, 1, -1, 0, 256)], []), "0 ... 255"),
        (([(GOAL_CALC, 1, -1, 0)], [(0, 1)]), "does not exist"),
    ]:
        with pytest.raises(UserError, match=what):
            make([rank])
    with pytest.raises(UserError, match="two ranks"):
        make([([(GOAL_CALC, 1, -1, 0)], [(0, 1)]), ([(GOAL_CALC, 1, -1, 0)], [])])
    with pytest.raises(ValueError, match="L is -1"):
        simulate(RingGoal(2, 2), LogGOPS(-1, 0, 0, 0))
    with pytest.raises(ValueError, match="overflows"):
        simulate(make([([(GOAL_CALC, 1 << 60, -1, 0)], [])]), PICOSECONDS)
    with pytest.raises(ValueError, match="a byte for each"):
        RingGoal(8, 7)
