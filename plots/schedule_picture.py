"""A schedule as a picture: the ring turning step by step, the trees with their edges, and any schedule's messages.

The pictures are read off the schedule's own tables, so they show what the transports run. ``replay`` walks the tables
with a clock that ticks once a message: local steps take no time, and a rank's channel takes one message at a time.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from ..collectives.schedule import COPY, INPUT, NOP, OUTPUT, RECV, RECV_REDUCE, REDUCE, SCRATCH, SEND, Schedule
from . import style
from .curves import PlotError

CHUNK_COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.VERMILLION, style.SKY)
MOST_IN_TREE, MOST_IN_RING = 16, 6  # ranks (and, on the ring, chunks) that one picture can show


@dataclass(frozen=True)
class Message:
    """One message of a replay. tick: from 1, when it arrives; reduce: whether it is added to what is there.

    dst_offset, count: elements of the receiving buffer; channel: the channel of both ends.
    """

    tick: int
    sender: int
    receiver: int
    channel: int
    dst_offset: int
    count: int
    reduce: bool


def replay(schedule: Schedule) -> tuple[list[Message], list[np.ndarray]]:
    """(messages by tick, state after each tick from 0 on).

    A state is an integer array [ranks, count]: how many ranks' contributions the fullest copy of that element holds in
    any of that rank's buffers. Raises PlotError for a schedule that deadlocks.
    """
    p = schedule.ranks
    if p > MOST_IN_TREE:
        raise PlotError(f"{schedule.algorithm}: {p} ranks; a picture shows at most {MOST_IN_TREE}")
    memory = [_memory(schedule, rank) for rank in range(p)]
    queues = {
        (rank, int(channel)): deque(np.flatnonzero(table["channel"] == channel).tolist())
        for rank, table in enumerate(schedule.tables)
        for channel in np.unique(table["channel"])
    }
    now: dict[tuple[int, int], int] = defaultdict(int)  # (rank, channel): tick at which its last step finished
    complete: dict[tuple[int, int], int] = {}  # (rank, step): tick at which it was complete
    wire: dict[tuple[int, int, int], deque] = defaultdict(deque)  # (sender, receiver, channel): messages under way
    messages: list[Message] = []
    writes: list[tuple[int, int, int, np.ndarray]] = []  # (tick, rank, offset, contributions)

    moved = True
    while moved:
        moved = False
        for (rank, channel), queue in queues.items():
            while queue and _step(schedule, rank, channel, queue[0], memory, now, complete, wire, messages, writes):
                queue.popleft()
                moved = True
    if any(queues.values()):
        raise PlotError(f"{schedule.algorithm}: the schedule deadlocks, so there is nothing to draw")

    ticks = max((m.tick for m in messages), default=0)
    states = [np.ones((p, max(schedule.count, schedule.output_count)), int)]
    for tick in range(ticks + 1):
        state = states[-1].copy()
        for _, rank, offset, held in (w for w in writes if w[0] == tick):
            part = state[rank, offset : offset + len(held)]
            np.maximum(part, held[: len(part)], out=part)
        states.append(state)
    return sorted(messages, key=lambda m: (m.tick, m.sender, m.receiver)), states[1:]


def _memory(schedule: Schedule, rank: int) -> dict[int, np.ndarray]:
    """Each element as the set of ranks that are in it, one bit a rank."""
    own = np.full(schedule.input_count, 1 << rank, np.int64)
    output = own if schedule.in_place else np.zeros(schedule.output_count, np.int64)
    return {INPUT: own, OUTPUT: output, SCRATCH: np.zeros(schedule.scratch, np.int64)}


def _step(schedule, rank, channel, index, memory, now, complete, wire, messages, writes) -> bool:
    """Run one step if it can run yet; whether it did."""
    s = schedule.tables[rank][index]
    op, peer, count, after = int(s["op"]), int(s["peer"]), int(s["count"]), int(s["after"])
    if after >= 0 and (rank, after) not in complete:
        return False
    tick = max(now[rank, channel], complete.get((rank, after), 0))
    src = memory[rank][int(s["src_buffer"])][int(s["src_offset"]) : int(s["src_offset"]) + count]
    dst = memory[rank][int(s["dst_buffer"])][int(s["dst_offset"]) : int(s["dst_offset"]) + count]
    if op == SEND:
        wire[rank, peer, channel].append((tick, src.copy(), index))
    elif op in (RECV, RECV_REDUCE):
        under_way = wire[peer, rank, channel]
        if not under_way:
            return False
        sent, data, sender_step = under_way.popleft()
        tick = max(tick, sent) + 1
        complete[peer, sender_step] = tick
        dst[:] = src | data if op == RECV_REDUCE else data
        messages.append(Message(tick, peer, rank, channel, int(s["dst_offset"]), count, op == RECV_REDUCE))
    elif op in (REDUCE, COPY):
        dst[:] = src | dst if op == REDUCE else src
    elif op != NOP:
        raise PlotError(f"rank {rank}, step {index}: unknown op {op}")
    if op != SEND:
        complete[rank, index] = tick
    if op in (RECV, RECV_REDUCE, REDUCE, COPY) and int(s["dst_buffer"]) != SCRATCH:
        held = np.array([int(v).bit_count() for v in dst], int)
        writes.append((tick, rank, int(s["dst_offset"]), held))
    now[rank, channel] = tick
    return True


def ring_picture(schedule: Schedule) -> Figure:
    """One panel a step: the ranks on a circle, the chunks they hold, the chunks that travel.

    A cell is one element of the message, so ask for a schedule whose count is its number of chunks. The number in a
    cell says how many ranks' contributions it holds; a framed cell holds all of them.
    Raises PlotError for more than 6 ranks or elements, or for a schedule without messages.
    """
    for what, number in (("ranks", schedule.ranks), ("elements", schedule.count)):
        if number > MOST_IN_RING:
            raise PlotError(f"{schedule.algorithm}: {number} {what}; a ring's picture shows at most {MOST_IN_RING}")
    messages, states = replay(schedule)
    if not messages:
        raise PlotError(f"{schedule.algorithm}: no messages to draw for {schedule.ranks} rank(s)")
    ticks = len(states) - 1
    columns = ticks // 2 if ticks % 2 == 0 and ticks <= 10 else min(ticks, 4)
    rows = -(-ticks // columns)
    side, tall, head = 2.7, 2.45, 0.6  # inches of a panel, of the heading
    with matplotlib.rc_context(style.RC):
        fig = Figure(figsize=(max(6.2, side * columns + 0.2), tall * rows + head), facecolor="white")
        width, height = fig.get_size_inches()
        fig.text(
            0.2 / width,
            1 - 0.2 / height,
            f"Ring all-reduce, {schedule.ranks} ranks: {ticks} steps",
            fontsize=12,
            fontweight="bold",
            va="center",
        )
        note = "A cell is one chunk; its number counts the ranks whose data is in it; a framed cell is finished."
        fig.text(0.2 / width, 1 - 0.42 / height, note, fontsize=8.5, color=style.MUTED, va="center")
        for tick in range(1, ticks + 1):
            row, column = divmod(tick - 1, columns)
            ax = fig.add_axes(
                (
                    (0.1 + side * column) / width,
                    1 - (head + tall * (row + 1)) / height,
                    side / width,
                    tall / height,
                )
            )
            _ring_panel(ax, schedule, tick, [m for m in messages if m.tick == tick], states[tick])
    return fig


def _ring_panel(ax: Axes, schedule: Schedule, tick: int, moving: list[Message], state: np.ndarray) -> None:
    p, cells = schedule.ranks, schedule.count
    ax.set(xlim=(-1.45, 1.45), ylim=(-1.31, 1.31), aspect="equal", label=f"step {tick}")
    ax.axis("off")
    kind = "reduce-scatter" if all(m.reduce for m in moving) else "all-gather"
    ax.text(0, 0.08, f"step {tick}", ha="center", va="center", fontsize=10.5, fontweight="bold")
    ax.text(0, -0.13, kind, ha="center", va="center", fontsize=8.5, color=style.MUTED)
    angles = np.pi / 2 + np.pi / p - 2 * np.pi * np.arange(p) / p  # clockwise; rank 0 left of the top
    radius = 1.2 if p == 4 else 0.92
    x, y = radius * np.cos(angles), radius * np.sin(angles)
    cell = min(0.2, 1.3 / cells / max(1, p / 4))
    for rank in range(p):
        left, low = x[rank] - cell * cells / 2, y[rank] - cell / 2
        for i in range(cells):
            held, colour = int(state[rank, i]), CHUNK_COLOURS[i % len(CHUNK_COLOURS)]
            ax.add_patch(
                Rectangle(
                    (left + i * cell, low),
                    cell,
                    cell,
                    facecolor=matplotlib.colors.to_rgba(colour, 0.06 + 0.79 * ((held - 1) / max(1, p - 1)) ** 1.3),
                    edgecolor=style.INK if held == p else style.RULE,
                    linewidth=1.2 if held == p else 0.7,
                    zorder=4 if held == p else 3,
                )
            )
            ax.text(
                left + (i + 0.5) * cell,
                low + cell / 2,
                str(held),
                ha="center",
                va="center_baseline",
                fontsize=7,
                zorder=5,
            )
        above = y[rank] >= 0
        ax.text(x[rank], y[rank] + (0.19 if above else -0.2), f"rank {rank}", ha="center", va="center", fontsize=8)
    for m in moving:
        _ring_arrow(ax, (x[m.sender], y[m.sender]), (x[m.receiver], y[m.receiver]), cell, cells, m)


def _ring_arrow(ax: Axes, start, end, cell: float, cells: int, m: Message) -> None:
    """From the edge of one rank's box to the edge of the other's, in the chunk's colour, named by the chunk."""
    colour = CHUNK_COLOURS[m.dst_offset % len(CHUNK_COLOURS)]
    start, end = np.array(start), np.array(end)
    way = (end - start) / np.linalg.norm(end - start)
    # The box is wide and flat: leave it by its side when going sideways, by its top or bottom else.
    half = np.array([cell * cells / 2 + 0.06, cell / 2 + 0.3])
    leave = min(half[i] / abs(way[i]) for i in (0, 1) if abs(way[i]) > 1e-9)
    a, b = start + way * leave, end - way * leave
    ax.add_patch(
        FancyArrowPatch(a, b, arrowstyle="-|>", mutation_scale=11, color=colour, linewidth=2.2, shrinkA=0, shrinkB=0)
    )
    normal = np.array([-way[1], way[0]])
    at = (a + b) / 2 + normal * (0.14 if abs(way[0]) > 0.5 else 0.2)
    span = f"{m.dst_offset}" if m.count == 1 else f"{m.dst_offset}…{m.dst_offset + m.count - 1}"
    name = f"chunk {span}" if abs(way[0]) > 0.5 else f"chunk\n{span}"
    ax.text(*at, name, ha="center", va="center", fontsize=7.5, color=colour)


def trees(schedule: Schedule) -> list[dict[int, int]]:
    """The distinct trees of a schedule as {child: parent}, read from who adds what it gets from whom."""
    messages, _ = replay(schedule)
    edges: dict[int, dict[int, int]] = defaultdict(dict)
    for m in messages:
        if m.reduce:
            edges[m.channel][m.sender] = m.receiver
    found: list[dict[int, int]] = []
    for channel in sorted(edges):
        if edges[channel] not in found:
            found.append(edges[channel])
    return found


def tree_picture(schedule: Schedule) -> Figure:
    """One panel a tree: ranks from left to right, the root on top; inner nodes filled, leaves hollow.

    Raises PlotError where the reductions do not form trees over all ranks.
    """
    found = trees(schedule)
    p = schedule.ranks
    depths = [_depths(tree, p, schedule.algorithm) for tree in found]
    if not found:
        raise PlotError(f"{schedule.algorithm}: no reductions to draw for {p} rank(s)")
    deepest = max(max(d) for d in depths)
    panel_width, head, foot = max(3.4, 0.52 * p), 0.58, 0.1
    panel_height = 0.66 * (deepest + 1.5)
    with matplotlib.rc_context(style.RC):
        width, height = max(6.2, panel_width * len(found) + 0.3), panel_height + head + foot
        fig = Figure(figsize=(width, height), facecolor="white")
        title = "Double binary tree" if len(found) == 2 else "Tree" if len(found) == 1 else "Trees"
        fig.text(0.2 / width, 1 - 0.2 / height, f"{title}, {p} ranks", fontsize=12, fontweight="bold", va="center")
        note = "Sums go up to the root, results come back down the same edges. Filled: inner node. Hollow: leaf."
        fig.text(0.2 / width, 1 - 0.42 / height, note, fontsize=8.5, color=style.MUTED, va="center")
        for i, (tree, depth) in enumerate(zip(found, depths)):
            ax = fig.add_axes(
                ((0.15 + panel_width * i) / width, foot / height, panel_width / width, panel_height / height)
            )
            share = (
                "" if len(found) == 1 else f"tree {i + 1}" + (", one half of the message" if len(found) == 2 else "")
            )
            _tree_panel(
                ax, tree, depth, (style.BLUE, style.VERMILLION, style.GREEN, style.PURPLE)[i % 4], share, deepest
            )
    return fig


def _tree_panel(ax: Axes, tree: dict[int, int], depth: list[int], colour: str, label: str, deepest: int) -> None:
    p = len(depth)
    ax.set(xlim=(-0.7, p - 0.3), ylim=(-deepest - 0.55, 0.95), label=label)
    ax.axis("off")
    inner = set(tree.values())
    for rank in range(p):
        ax.plot([rank, rank], [-depth[rank], -deepest - 0.5], color=style.RULE, linewidth=0.7, zorder=1)
    for child, parent in sorted(tree.items()):
        ax.add_patch(
            FancyArrowPatch(
                (child, -depth[child]),
                (parent, -depth[parent]),
                arrowstyle="<|-|>",
                mutation_scale=8,
                color=colour,
                linewidth=1.5,
                shrinkA=10.5,
                shrinkB=10.5,
                zorder=2,
            )
        )
    for rank in range(p):
        filled = rank in inner
        ax.plot(
            rank, -depth[rank], marker="o", markersize=19, markerfacecolor=colour if filled else "white",
            markeredgecolor=colour, markeredgewidth=1.5, zorder=3,
        )  # fmt: skip
        ax.text(
            rank, -depth[rank], str(rank), ha="center", va="center_baseline", fontsize=9, zorder=4,
            color="white" if filled else style.INK, fontweight="bold" if filled else "normal",
        )  # fmt: skip
    ax.text(-0.35, 0.72, label, fontsize=9, fontweight="bold", color=colour, va="center")


def _depths(tree: dict[int, int], ranks: int, algorithm: str) -> list[int]:
    """Edges from each rank up to the root."""
    depths = []
    for rank in range(ranks):
        depth, at = 0, rank
        while at in tree and depth <= ranks:
            at, depth = tree[at], depth + 1
        depths.append(depth)
    if max(depths) > ranks or depths.count(0) != 1:
        raise PlotError(f"{algorithm}: its reductions are not one tree a channel, so there is no tree to draw")
    return depths


def message_picture(schedule: Schedule) -> Figure:
    """Any schedule: time goes to the right, a line is a rank, an arrow a message, in the colour of what it carries: partial sums to
    be added, or data. The wider, the more elements.

    Raises PlotError for more than 16 ranks, or for a schedule without messages.
    """
    messages, _ = replay(schedule)
    if not messages:
        raise PlotError(f"{schedule.name}: no messages to draw for {schedule.ranks} rank(s)")
    ticks, most = max(m.tick for m in messages), max(m.count for m in messages)
    p = schedule.ranks
    with matplotlib.rc_context(style.RC):
        fig = Figure(figsize=(min(24.0, 2.2 + 0.55 * ticks), 1.3 + 0.34 * p), facecolor="white", layout="constrained")
        ax = fig.subplots()
        fig.suptitle(
            f"{schedule.collective.title}, {schedule.algorithm}, {p} ranks: {len(messages)} messages in {ticks} steps",
            fontsize=12, fontweight="bold", x=0.01, ha="left",
        )  # fmt: skip
        for rank in range(p):
            ax.axhline(rank, color=style.RULE, linewidth=0.8, zorder=1)
        for m in messages:
            colour = style.ORANGE if m.reduce else style.BLUE
            width = 0.8 + 1.8 * (m.count / most) ** 0.5
            arrow = FancyArrowPatch(
                (m.tick - 1, m.sender), (m.tick, m.receiver), arrowstyle="-|>", mutation_scale=9, color=colour,
                linewidth=width, shrinkA=0, shrinkB=0, zorder=3,
            )  # fmt: skip
            ax.add_patch(arrow)
        for label, colour in (("added", style.ORANGE), ("stored", style.BLUE)):
            if any(m.reduce == (label == "added") for m in messages):
                ax.plot([], [], color=colour, linewidth=2, label=f"what arrives is {label}")
        ax.set(xlim=(-0.1, ticks + 0.1), ylim=(p - 0.5, -0.5), xlabel="step")
        ax.set_yticks(range(p), [f"rank {r}" for r in range(p)])
        ax.legend(
            loc="upper left", bbox_to_anchor=(0, 1.0 + 0.5 / p), ncols=2, frameon=False, fontsize=8, borderaxespad=0
        )
        for side in ("top", "right", "left"):
            ax.spines[side].set_visible(False)
    return fig
