"""The order of posts of the persistent walk, searched over the rows of real programs by an adversary. Needs no compiler.

Blocks take the steps that walk.cu takes, one at a time in any order: wait for a flag, arrive after a call, post, wait for the
other blocks of the rank. The adversary holds back a call's post for as long as anything else can move, or until another block
has posted to the same word and nobody has looked yet. Whatever it does, flags must only grow and every rank must finish. With
the posts as they once were, by block 0 for rows without a call, it must find a flag that goes back and a deadlock, or the
search would prove nothing.
"""

import random

import pytest
import shim_device
from busbw.collectives import ALGORITHMS
from busbw.transports import device
from busbw.transports.device import DeviceSession
from busbw.transports.program import EPOCH_SHIFT, FN, POST, POST2, POST2_K, POST_K, WAIT, WAIT_K
from busbw.transports.session import Job

BLOCKS = 2
EPOCHS = 4
FIRST, ARRIVE, PUBLISH, GATHER = range(4)  # what a block does next in its row


def rows_of(algorithm, ranks, *, count=1 << 13, slices=1, in_place=False):
    """[rank][parity] -> rows as tuples of ints."""
    gpu = shim_device.ShimDevice(".", resident=BLOCKS * ranks)
    s = DeviceSession([gpu], ranks, 4 * count, 8 * count, way="walk", flush=False)
    s.prepare(Job(algorithm, count, "float32", "sum", in_place, slices=slices))
    return [
        [[tuple(map(int, row)) for row in p.code[parity]] for parity in (0, 1)] for _, p in sorted(s.programs.items())
    ]


class Walk:
    """All blocks of all ranks. last_posts: the block that finishes a call last goes on posting (walk.cu), else block 0 does."""

    def __init__(self, rows, last_posts):
        self.rows, self.last_posts = rows, last_posts
        self.flags, self.went_back = {}, False
        self.arrived = [0] * len(rows)
        self.blocks = [[rank, block, 0, FIRST, block == 0, 0] for rank in range(len(rows)) for block in range(BLOCKS)]

    def row(self, state):
        rank, _, turn, _, _, _ = state
        epoch, i = divmod(turn, len(self.rows[rank][0]))
        return (epoch + 1) << EPOCH_SHIFT, self.rows[rank][(epoch + 1) & 1][i]

    def ended(self, state):
        return state[2] == EPOCHS * len(self.rows[state[0]][0])

    def held(self, state):
        """Whether its next step is the post of a call: what the adversary delays."""
        return state[3] == PUBLISH and bool(self.row(state)[1][FN])

    def late_post_to(self, rank, word):
        """A block of the rank that is held before a post to that word, or None."""
        late = (state for state in self.blocks if state[0] == rank and not self.ended(state) and self.held(state))
        return next((state for state in late if word in (self.row(state)[1][POST], self.row(state)[1][POST2])), None)

    def step(self, state):
        """Take the block's next step if it can. False: it must wait."""
        rank, block, _, phase, posts, meeting = state
        stamp, row = self.row(state)
        if phase == FIRST:
            if row[WAIT] and self.flags.get(row[WAIT], 0) < stamp + row[WAIT_K]:
                return False
            state[3] = ARRIVE if row[FN] else PUBLISH if posts else GATHER
        elif phase == ARRIVE:
            state[5] = meeting + BLOCKS
            self.arrived[rank] += 1
            state[4] = self.arrived[rank] == state[5]
            state[3] = PUBLISH if state[4] else GATHER
        elif phase == PUBLISH:
            for word, k in ((POST, POST_K), (POST2, POST2_K)):
                if row[word]:
                    self.went_back |= self.flags.get(row[word], 0) > stamp + row[k]
                    self.flags[row[word]] = stamp + row[k]
            state[3] = GATHER
            for word in (row[POST], row[POST2]):
                if word and (late := self.late_post_to(rank, word)):
                    self.step(late)
        else:
            if self.arrived[rank] < meeting:
                return False
            if not self.last_posts:
                state[4] = block == 0
            state[2], state[3] = state[2] + 1, FIRST
        return True

    def run(self, rng):
        """Whether all ranks finish."""
        going = [state for state in self.blocks if not self.ended(state)]
        while going:
            moved = False
            for state in rng.sample(going, len(going)):
                for _ in range(rng.randrange(1, 12)):
                    if self.ended(state) or self.held(state) or not self.step(state):
                        break
                    moved = True
            if not moved:
                late = [state for state in going if self.held(state)]
                if not late:
                    return False
                self.step(rng.choice(late))
            going = [state for state in going if not self.ended(state)]
        return True


def search(rows, last_posts, seeds):
    """(a flag went back, a rank did not finish) in any of the runs."""
    back = stuck = False
    for seed in range(seeds):
        walk = Walk(rows, last_posts)
        stuck |= not walk.run(random.Random(seed))
        back |= walk.went_back
    return back, stuck


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(device, "BYTES_A_BLOCK", (1024,))


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_flags_only_grow_and_every_rank_finishes(algorithm):
    for ranks in (2, 3, 4, 5, 8):
        for slices, in_place in ((1, False), (2, True)):
            assert search(rows_of(algorithm, ranks, slices=slices, in_place=in_place), True, 3) == (False, False)


def test_the_search_finds_the_deadlock_of_posts_by_block_0():
    found = [
        search(rows_of(algorithm, ranks), False, 20) for algorithm, ranks in (("halving-doubling", 4), ("tree", 5))
    ]
    assert any(back for back, _ in found)
    assert any(stuck for _, stuck in found)
