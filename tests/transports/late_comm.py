"""An mpi4py communicator that reads what it sends as late as MPI allows: when a request is asked for the n-th time.

The other extreme to late_gpu.LateGpu. A real library reads at once what is small, so a source that is overwritten while its
Isend is under way goes unnoticed until a message is large, or the receiver late.
"""

import random


class LateRequest:
    """An Isend not begun: whoever asks about any request of the communicator brings all of them on."""

    def __init__(self, comm, begin, asks: int):
        self.comm, self.begin, self.asks = comm, begin, asks
        self.request = None

    def Test(self) -> bool:
        self.comm.progress()
        return self.request is not None and self.request.Test()


class LateComm:
    """Everything is `comm`'s own but Isend."""

    def __init__(self, comm, seed: int):
        self._comm = comm
        self._random = random.Random(seed)
        self._waiting: list[LateRequest] = []

    def __getattr__(self, name):
        return getattr(self._comm, name)

    def Isend(self, memory, peer, tag):
        request = LateRequest(self, lambda: self._comm.Isend(memory, peer, tag), self._random.randrange(2, 8))
        self._waiting.append(request)
        return request

    def progress(self) -> None:
        """Begin, in order, the sends that have waited long enough: messages to one peer do not overtake one another."""
        for request in self._waiting:
            request.asks -= 1
        while self._waiting and self._waiting[0].asks <= 0:
            first = self._waiting.pop(0)
            first.request = first.begin()
