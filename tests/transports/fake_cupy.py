"""A module `cupy` with the calls that our transports make, on this machine's memory; kernels are walk.cu by g++, and the CPU
backend's. `install(folder)` puts it into sys.modules and in the way of cupy_compile. Work is done when it is launched, but
inside a capture only when the graph is. What a real CuPy would refuse is asserted: device, stream and argument types.

Time is the stand-in's own: `now` is the host's clock, which each call moves on by `host_seconds`; every launch takes a device
WORK_SECONDS, in the order of its stream; a gate holds its stream until its word is set, or its limit is over."""

import ctypes
import itertools
import mmap
import os
import sys
import types
import weakref
from pathlib import Path

import numpy as np
import shim_device
from busbw.kernels import cuda_source, cupy_compile

DEVICES = 2
PROCESSORS, BLOCKS_A_PROCESSOR = 4, 2
WORK_SECONDS = 1e-3
NOT_READY = 600
NAMES = itertools.count()  # of memory, in this process


class CUDARuntimeError(RuntimeError):
    pass


class Fake:
    def __init__(self, folder, *, cooperative=True):
        self.folder, self.current, self.stream = str(folder), 0, None
        self.kernels, self.log, self.alive = {}, [], 0
        self.cooperative = cooperative
        self.mapped, self.walled = {}, False
        self.now, self.host_seconds, self.broken, self.opened = 0.0, 0.0, None, {}
        self.cupy = types.ModuleType("cupy")
        self.cupy.__version__ = "14.2.0"
        self.cupy.cuda = cuda = types.ModuleType("cupy.cuda")
        fake = self

        class Device:
            def __init__(self, device_id=None):
                self.id = fake.current if device_id is None else device_id
                self.attributes = {"CooperativeLaunch": int(fake.cooperative), "MultiProcessorCount": PROCESSORS}
                self.compute_capability, self.pci_bus_id = "90", f"0000:0{self.id}:00.0"
                self.before = []

            def use(self):
                fake.current = self.id

            def __enter__(self):
                self.before.append(fake.current)
                fake.current = self.id

            def __exit__(self, *_):
                fake.current = self.before.pop()

        class Stream:
            def __init__(self, null=False, non_blocking=False):
                assert non_blocking
                self.device, self.ptr, self.captured, self.before = fake.current, id(self), None, []
                self.free_at, self.waiting = (
                    0.0,
                    [],
                )  # when the device is done with it; (what, enqueued at) not yet begun

            def __enter__(self):
                self.before.append(fake.stream)
                fake.stream = self
                return self

            def __exit__(self, *_):
                fake.stream = self.before.pop()

            def begin_capture(self):
                assert fake.stream is self and self.captured is None
                self.captured = []

            def end_capture(self):
                graph, self.captured = Graph(self.captured), None
                return graph

            def synchronize(self):
                assert self.captured is None
                fake.healthy()

            def wait_event(self, event):
                assert event.recorded

            def enqueue(self, what):
                """what: seconds of work, an event, or a gate's (word, turn, limit)."""
                self.waiting.append((what, fake.tick()))
                self.settle()

            def settle(self):
                while self.waiting:
                    what, enqueued = self.waiting[0]
                    begins = max(self.free_at, enqueued)
                    if isinstance(what, tuple):
                        word, turn, limit = what
                        opened = ctypes.c_int64.from_address(word).value >= turn
                        if not opened and fake.now < begins + limit:
                            return
                        # Who sees the open gate first says when that was, for all.
                        self.free_at = (
                            max(begins, fake.opened.setdefault((word, turn), fake.now)) if opened else begins + limit
                        )
                    elif isinstance(what, float):
                        self.free_at = begins + what
                    else:
                        self.free_at = what.at = begins
                    self.waiting.pop(0)

        class Graph:
            def __init__(self, work):
                self.work, self.uploaded = work, False

            def upload(self, stream):
                self.uploaded = True

            def launch(self, stream):
                assert self.uploaded
                fake.log.append("graph")
                stream.enqueue(WORK_SECONDS)
                for one in self.work:
                    one()

        class Event:
            def __init__(self, block=False, disable_timing=False):
                self.device, self.timed, self.stream, self.at, self.ptr = (
                    fake.current,
                    not disable_timing,
                    None,
                    None,
                    id(self),
                )
                events[self.ptr] = self

            def record(self, stream):
                assert stream.device == self.device == fake.current
                self.stream, self.at = stream, None
                stream.enqueue(self)

            def synchronize(self):
                fake.healthy()
                self.stream.settle()
                assert self.at is not None, "for ever"
                fake.now = max(fake.now, self.at)

            def query(self):
                fake.healthy()
                self.stream.settle()
                return 0 if self.at is not None and self.at <= fake.now else NOT_READY

            @property
            def recorded(self):
                return self.stream is not None

        events = weakref.WeakValueDictionary()

        def query(address):
            # A broken device answers with its error, and the call does not raise: cudaEventQuery of CuPy.
            if fake.broken:
                return fake.broken
            fake.tick(WORK_SECONDS)  # the host waits
            return events[address].query()

        def check_status(status):
            if status:
                raise CUDARuntimeError(f"cudaError {status}")

        class Memory:
            def __init__(self, size, flags=0):
                if size > 1 << 32:
                    raise CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")
                self.size = size
                self.ptr = fake.map(f"{os.getpid()}-{next(NAMES)}", size, fresh=True)
                fake.alive += 1

            def __del__(self):
                if hasattr(self, "ptr"):
                    fake.unmap(self.ptr)
                    fake.alive -= 1

        class MemoryPointer:
            def __init__(self, mem, offset):
                self.mem, self.ptr = mem, mem.ptr + offset

            def memset_async(self, value, size, stream):
                fake.known(stream.ptr)
                ctypes.memset(self.ptr, value, size)

        def copy(dst, src, nbytes, kind, stream):
            fake.known(stream)
            assert kind in (1, 2, 4)
            ctypes.memmove(dst, src, nbytes)

        def memset(address, value, nbytes, stream):
            fake.known(stream)
            ctypes.memset(address, value, nbytes)

        streams = self.streams = {}

        class Registered(Stream):
            def __init__(self, *arguments, **options):
                super().__init__(*arguments, **options)
                streams[self.ptr] = self

        def elapsed(start, end):
            assert start.timed and end.timed and start.query() == end.query() == 0
            return 1e3 * (end.at - start.at)

        cuda.Device, cuda.Stream, cuda.Event, cuda.Graph = Device, Registered, Event, Graph
        cuda.Memory, cuda.MemoryPointer, cuda.PinnedMemory = Memory, MemoryPointer, Memory
        cuda.get_elapsed_time = elapsed
        cuda.runtime = types.SimpleNamespace(
            is_hip=False, CUDARuntimeError=CUDARuntimeError, memcpyHostToDevice=1, memcpyDeviceToHost=2, memcpyDefault=4,
            memcpyAsync=copy, memsetAsync=memset, getDeviceCount=lambda: DEVICES, getDevice=lambda: fake.current,
            getDeviceProperties=lambda i: {"name": b"fake GPU", "l2CacheSize": 4096}, memGetInfo=lambda: (1 << 33, 1 << 34),
            driverGetVersion=lambda: 13000, runtimeGetVersion=lambda: 13000, deviceCanAccessPeer=lambda i, j: 1,
            deviceEnablePeerAccess=self.enable_peer, eventQuery=query, check_status=check_status, hostAllocPortable=1,
            hostAllocMapped=2, ipcGetMemHandle=self.ipc_get, ipcOpenMemHandle=self.ipc_open, ipcCloseMemHandle=self.ipc_close,
        )  # fmt: skip
        cuda.driver = types.SimpleNamespace(
            occupancyMaxActiveBlocksPerMultiprocessor=lambda f, t, s: BLOCKS_A_PROCESSOR if self.kernels[f] else 0,
            launchCooperativeKernel=self.cooperative_launch,
        )
        self.peers = set()

    def map(self, name, size=None, fresh=False):
        """The address of memory that other processes can map by its name, as a GPU's is by a handle."""
        path = Path(self.folder) / f"memory-{name}"
        if fresh:
            path.write_bytes(b"")
            os.truncate(path, size + 256)
        with path.open("r+b") as file:
            block = mmap.mmap(file.fileno(), 0)
        address = ctypes.addressof(ctypes.c_char.from_buffer(block))
        if fresh:
            ctypes.memset(address, 0xA5, size)
        self.mapped[address] = name, fresh, block
        return address

    def unmap(self, address):
        name, fresh, _ = self.mapped.pop(address)
        if fresh:
            (Path(self.folder) / f"memory-{name}").unlink()

    def ipc_get(self, address):
        self.healthy()
        name, fresh, _ = self.mapped[address]  # the start of an allocation, as CUDA wants it
        assert fresh
        return name.encode().ljust(64, b"\0")

    def ipc_open(self, handle):
        name = handle.rstrip(b"\0").decode()
        assert name.partition("-")[0] != str(os.getpid()), "CUDA opens no handle in the process that made it"
        if self.walled:
            raise CUDARuntimeError(
                "cudaErrorPeerAccessUnsupported: peer access is not supported between these two devices"
            )
        return self.map(name)

    def ipc_close(self, address):
        assert not self.mapped[address][1]
        self.unmap(address)

    def tick(self, seconds=None):
        """The host's time of a call; when it was made."""
        made = self.now
        self.now += self.host_seconds if seconds is None else seconds
        return made

    def healthy(self):
        if self.broken:
            raise CUDARuntimeError(f"cudaError {self.broken}")

    def enable_peer(self, other):
        if (self.current, other) in self.peers:
            raise CUDARuntimeError("cudaErrorPeerAccessAlreadyEnabled: peer access is already enabled")
        self.peers.add((self.current, other))

    def known(self, address):
        assert self.streams[address].device == self.current, "a stream of another device"
        assert self.streams[address].captured is None, "not allowed in a capture"
        self.healthy()

    def load(self, source, options):
        """Stands for cupy_compile.load."""
        defined = dict(o[2:].split("=") for o in options if o.startswith("-D") and "=" in o)
        dtype = defined.get("BUSBW_DTYPE")
        walk = "run_rows" in source
        fake = self

        class Function:
            def __init__(self, name):
                self.name, self.device, self.ptr = name, fake.current, id(self)
                final = defined.get("BUSBW_FINAL_OP")
                op = {"AvgFinal": "avg"}.get(final, (final or "").lower())
                self.library = (dtype, op) if walk else None
                fake.kernels[self.ptr] = self

            def __call__(self, grid, block, arguments):
                assert self.device == fake.current == fake.stream.device
                assert isinstance(grid, tuple) and grid[0] > 0
                assert all(isinstance(x, (np.int64, np.uint64)) for x in arguments)
                fake.healthy()
                values = [int(np.int64(x)) for x in arguments]
                if self.name == "gate":
                    assert grid == block == (1,)
                    fake.opened.pop((values[0], values[1]), None)
                    fake.stream.enqueue((values[0], values[1], values[2] * 1e-9))
                    return
                assert block == (cuda_source.THREADS,)
                work = lambda: self.work(grid, values)  # noqa: E731
                if fake.stream.captured is not None:
                    fake.stream.captured.append(work)
                else:
                    work()
                    fake.stream.enqueue(WORK_SECONDS)

            def work(self, grid, values):
                fake.log.append(self.name)
                if self.name == "run_rows":
                    library = shim_device.library(fake.folder, *self.library)
                    library.run_step(
                        min(grid[0], 4), shim_device.THREADS, ctypes.c_void_p(values[0]), ctypes.c_longlong(grid[1])
                    )
                else:
                    shim_device.ShimDevice(fake.folder).launch(self.name, dtype, values, 1)

        return types.SimpleNamespace(get_function=Function)

    def cooperative_launch(self, f, gx, gy, gz, bx, by, bz, shared, stream, parameters):
        self.known(stream)
        kernel = self.kernels[f]
        assert kernel.name == "walk" and kernel.device == self.current
        assert (gy, gz, by, bz, shared) == (1, 1, 1, 1, 0) and bx == cuda_source.THREADS
        assert gx <= PROCESSORS * BLOCKS_A_PROCESSOR
        pointers = (ctypes.c_void_p * 12).from_address(parameters)
        values = (ctypes.c_longlong * 12)(*[ctypes.c_longlong.from_address(p).value for p in pointers])
        self.log.append("walk")
        shim_device.library(self.folder, *kernel.library).run_walk(gx, shim_device.THREADS, values)
        self.streams[stream].enqueue(WORK_SECONDS)


def install(folder, patch=None, **options):
    """Returns the Fake. patch: pytest's monkeypatch, or None to leave it in place for good."""
    fake = Fake(folder, **options)
    for name, module in (("cupy", fake.cupy), ("cupy.cuda", fake.cupy.cuda)):
        patch.setitem(sys.modules, name, module) if patch else sys.modules.__setitem__(name, module)
    patch.setattr(cupy_compile, "load", fake.load) if patch else setattr(cupy_compile, "load", fake.load)
    return fake
