"""An independent reference for shared links: packets of one MTU through output-queued switches, event by event.

It shares no code with the replay: every message is cut into packets, every link has a queue of packets, first come, first
served; a packet is stored before it is forwarded. With `pause` switches are lossless by back-pressure (PFC, IEEE 802.1Qbb): when
more than `pause` bytes that came over a link wait in the switch behind it, that link stops until half of them have left; what
waits behind the pause waits too, whoever it is for. Without, queues are as long as they need to be.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit


class Sent(NamedTuple):
    """finish: int64 [messages] ps, last byte at the receiver; waiting: int64 [links], the most bytes that came over a link and
    waited in the switch behind it."""

    finish: np.ndarray
    waiting: np.ndarray


def send(byte_ps, latency_ps: int, nbytes, ways, after, *, mtu: int = 4096, pause: int = 0) -> Sent:
    """Send messages over links.

    byte_ps: [links]; latency_ps: of a whole way, cut into as many parts as it has links; nbytes: [messages]; ways: a list of links
    for each message, from the sender's port to the receiver's; after: the message that must have arrived before, -1 for none.
    """
    nbytes, after = np.asarray(nbytes, np.int64), np.asarray(after, np.int64)
    starts = np.concatenate([[0], np.cumsum([len(w) for w in ways])]).astype(np.int64)
    hops = np.array([link for w in ways for link in w], np.int64)
    return Sent(*_send(np.asarray(byte_ps, np.float64), latency_ps, nbytes, starts, hops, after, mtu, pause))


@njit(cache=True)
def _push(heap, size, when, what):
    i = size
    while i > 0:
        up = (i - 1) // 2
        if heap[up, 0] <= when:
            break
        heap[i, 0], heap[i, 1] = heap[up, 0], heap[up, 1]
        i = up
    heap[i, 0], heap[i, 1] = when, what
    return size + 1


@njit(cache=True)
def _pop(heap, size):
    when, what = heap[0, 0], heap[0, 1]
    size -= 1
    last0, last1 = heap[size, 0], heap[size, 1]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1, 0] < heap[child, 0]:
            child += 1
        if heap[child, 0] >= last0:
            break
        heap[i, 0], heap[i, 1] = heap[child, 0], heap[child, 1]
        i = child
    heap[i, 0], heap[i, 1] = last0, last1
    return when, what, size


@njit(cache=True)
def _send(byte_ps, latency, nbytes, starts, hops, after, mtu, pause):
    messages, links = len(nbytes), len(byte_ps)
    packets = 0
    for m in range(messages):
        packets += (nbytes[m] + mtu - 1) // mtu
    of = np.empty(packets, np.int64)  # its message
    size = np.empty(packets, np.int64)
    place = np.zeros(packets, np.int64)  # which link of its way it waits for or is on
    behind = np.full(packets, -1, np.int64)  # the next in the same queue
    head, tail = np.full(links, -1, np.int64), np.full(links, -1, np.int64)
    busy, stopped = np.zeros(links, np.bool_), np.zeros(links, np.bool_)
    waiting, most = np.zeros(links, np.int64), np.zeros(links, np.int64)
    left = np.empty(messages, np.int64)
    finish = np.full(messages, -1, np.int64)
    first = np.full(messages, -1, np.int64)  # dependants as a list
    follower = np.full(messages, -1, np.int64)
    n = 0
    begin = np.empty(messages, np.int64)
    for m in range(messages):
        begin[m] = n
        left[m] = (nbytes[m] + mtu - 1) // mtu
        for k in range(left[m]):
            of[n], size[n] = m, min(mtu, nbytes[m] - k * mtu)
            n += 1
        if after[m] >= 0:
            follower[m] = first[after[m]]
            first[after[m]] = m
    heap = np.empty((packets + 2 * links + messages + 16, 2), np.int64)
    events = 0
    # What an event is about: a packet that arrives (3 p), a link that is free (3 l + 1), a message that may start (3 m + 2).
    for m in range(messages):
        if after[m] < 0:
            events = _push(heap, events, 0, 3 * m + 2)
    while events > 0:
        now, what, events = _pop(heap, events)
        kind, i = what % 3, what // 3
        touched = -1
        other = -1
        if kind == 2:
            link = hops[starts[i]]
            for p in range(begin[i], begin[i] + left[i]):
                if head[link] < 0:
                    head[link] = p
                else:
                    behind[tail[link]] = p
                tail[link] = p
            touched = link
        elif kind == 1:
            busy[i] = False
            p = head[i]
            head[i] = behind[p]
            behind[p] = -1
            came = place[p] - 1
            m = of[p]
            if came >= 0:  # it has left the switch
                over = hops[starts[m] + came]
                waiting[over] -= size[p]
                if stopped[over] and waiting[over] <= pause // 2:
                    stopped[over] = False
                    other = over
            events = _push(heap, events, now + latency // (starts[m + 1] - starts[m]), 3 * p)
            touched = i
        else:
            m = of[i]
            over = hops[starts[m] + place[i]]
            place[i] += 1
            if starts[m] + place[i] == starts[m + 1]:
                left[m] -= 1
                if left[m] == 0:
                    finish[m] = now
                    follow = first[m]
                    while follow >= 0:
                        events = _push(heap, events, now, 3 * follow + 2)
                        follow = follower[follow]
            else:
                waiting[over] += size[i]
                most[over] = max(most[over], waiting[over])
                if pause > 0 and waiting[over] > pause:
                    stopped[over] = True
                link = hops[starts[m] + place[i]]
                if head[link] < 0:
                    head[link] = i
                else:
                    behind[tail[link]] = i
                tail[link] = i
                touched = link
        for link in (touched, other):
            if link >= 0 and not busy[link] and not stopped[link] and head[link] >= 0:
                busy[link] = True
                p = head[link]
                events = _push(heap, events, now + np.int64(size[p] * byte_ps[link] + 0.5), 3 * link + 1)
    return finish, most
