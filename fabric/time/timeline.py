"""A replay's trace as Chrome trace JSON, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

Each rank is a process. Its first thread is the rank's walk (waits, reductions, copies, overheads); each port has a thread for
what it sends and one for what it receives. An arrow joins the two ends of a message. Times are in microseconds, as the
format wants (Trace Event Format, Google): complete events "X", flows "s" and "f", names "M".
"""

from __future__ import annotations

import json

import numpy as np

from .replay import MESSAGE_FIELDS, SPAN_FIELDS, SPAN_RECV, SPAN_SEND, Trace

KIND_NAMES = ("send", "recv", "wait", "reduce", "copy", "overhead")  # by SPAN_SEND ... SPAN_OVERHEAD
MICROSECOND = 1e6  # picoseconds

SPAN = np.dtype([(f, "U8" if f == "kind" else np.int64) for f in SPAN_FIELDS])
MESSAGE = np.dtype([(f, np.int64) for f in MESSAGE_FIELDS])


def spans(trace: Trace) -> np.ndarray:
    """The spans as a structured array of SPAN, sorted by rank, port (-1: the walk), kind and start."""
    columns = dict(zip(SPAN_FIELDS, trace.spans.T))
    order = np.lexsort((columns["start"], columns["kind"] * (columns["port"] >= 0), columns["port"], columns["rank"]))
    out = np.zeros(len(order), SPAN)
    for field, values in columns.items():
        out[field] = np.array(KIND_NAMES)[values[order]] if field == "kind" else values[order]
    return out


def messages(trace: Trace) -> np.ndarray:
    """The messages as a structured array of MESSAGE, sorted by start."""
    out = np.zeros(len(trace.messages), MESSAGE)
    for field, values in zip(MESSAGE_FIELDS, trace.messages.T):
        out[field] = values
    return np.sort(out, order=["start", "sender", "receiver", "channel", "arrival"])


def chrome_events(trace: Trace, *, name: str = "", port_names: tuple[str, ...] = ()) -> dict:
    """The document as a dict: traceEvents, displayTimeUnit, otherData."""

    def thread(kind, port):
        return 0 if port < 0 else 1 + 2 * port + (kind == SPAN_RECV)

    events = []
    threads = set()
    ends = {}  # (rank, peer, channel, start or end) of a port's span -> its thread and start
    for row in trace.spans.tolist():
        rank, channel, kind, start, end, peer, nbytes, port = row
        tid = thread(kind, port)
        threads.add((rank, tid))
        if kind in (SPAN_SEND, SPAN_RECV):
            ends[kind, rank, peer, channel, start if kind == SPAN_SEND else end] = tid, start
        args = {"channel": channel, "bytes": nbytes}
        if peer >= 0:
            args["peer"] = peer
        title = KIND_NAMES[kind]
        if kind == SPAN_SEND:
            title = f"send to {peer}"
        elif kind == SPAN_RECV:
            title = f"receive from {peer}"
        events.append({
            "name": title, "cat": KIND_NAMES[kind], "ph": "X", "pid": rank, "tid": tid,
            "ts": start / MICROSECOND, "dur": (end - start) / MICROSECOND, "args": args,
        })  # fmt: skip
    for number, row in enumerate(trace.messages.tolist()):
        sender, receiver, channel, start, arrival, _ = row
        out = ends.get((SPAN_SEND, sender, receiver, channel, start))
        into = ends.get((SPAN_RECV, receiver, sender, channel, arrival))
        if out is None or into is None:
            continue  # without a byte's cost there is no span to join
        flow = {"name": "message", "cat": "message", "id": number}
        events.append({**flow, "ph": "s", "pid": sender, "tid": out[0], "ts": out[1] / MICROSECOND})
        events.append({**flow, "ph": "f", "bp": "e", "pid": receiver, "tid": into[0], "ts": into[1] / MICROSECOND})
    events.sort(key=lambda e: e["ts"])

    names = []
    for rank in sorted({rank for rank, _ in threads}):
        names.append(_named("process_name", rank, 0, f"rank {rank}"))
        names.append({"name": "process_sort_index", "ph": "M", "pid": rank, "tid": 0, "args": {"sort_index": rank}})
    for rank, tid in sorted(threads):
        port, into = divmod(tid - 1, 2)
        words = port_names[port] if port < len(port_names) else f"port {port}"
        title = "rank" if tid == 0 else f"{words} {'in' if into else 'out'}"
        names.append(_named("thread_name", rank, tid, title))
    return {"traceEvents": names + events, "displayTimeUnit": "ns", "otherData": {"name": name} if name else {}}


def chrome_trace(trace: Trace, *, name: str = "", port_names: tuple[str, ...] = ()) -> str:
    """The document as JSON text. name: of the run, kept in it; port_names: of a rank's ports 0, 1, ..."""
    return json.dumps(chrome_events(trace, name=name, port_names=port_names), separators=(",", ":"))


def _named(what, pid, tid, title):
    return {"name": what, "ph": "M", "pid": pid, "tid": tid, "args": {"name": title}}
