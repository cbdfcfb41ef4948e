"""World sizes that are no power of two, for algorithms that pair ranks by flipping bits.

With q the largest power of two up to p and e = p - q ranks too many, the first 2e ranks form pairs: the even one hands its
input to the odd one, sits out, and is given the result in the end. The q ranks that take part are numbered anew::

    p = 6, q = 4, e = 2     rank   0 -> 1    2 -> 3    4    5
                            place       0         1    2    3

(Thakur, Rabenseifner and Gropp 2005, on all-reduce.)
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fold:
    """One rank's part. place: its number among the `size` that take part, None if it sits out; partner: the other of
    its pair, or None."""

    size: int
    extra: int
    place: int | None
    partner: int | None

    def rank_at(self, place: int) -> int:
        return 2 * place + 1 if place < self.extra else place + self.extra

    @property
    def rounds(self) -> int:
        return self.size.bit_length() - 1


def fold(rank: int, ranks: int) -> Fold:
    size = 1 << (ranks.bit_length() - 1)
    extra = ranks - size
    if rank >= 2 * extra:
        return Fold(size, extra, rank - extra, None)
    if rank % 2:
        return Fold(size, extra, rank // 2, rank - 1)
    return Fold(size, extra, None, rank + 1)
