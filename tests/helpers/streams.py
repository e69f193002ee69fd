"""A simulated CUDA device: its streams run their work late, in any order that their events allow.

Memory that is no longer referenced is overwritten as soon as torch could have reused it: device memory when the stream
that allocated it and those recorded on it have finished with it, pinned memory when its copies have finished.
"""

import random
import weakref
from collections import deque
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

CUDA = torch.device("cuda", 0)


class Stream:
    """A queue of work; each item returns whether it is done."""

    def __init__(self, simulated):
        self.work = deque()
        self._simulated = simulated
        simulated.streams.append(self)

    def do(self, function):
        def piece():
            function()
            return True

        self.work.append(piece)
        self._simulated.advance()

    def wait_stream(self, other):
        event = Event(self._simulated)
        event.record(other)
        self.work.append(lambda: event.is_over)


class Event:
    def __init__(self, simulated):
        self.is_over = False
        self._simulated = simulated

    def record(self, stream=None):
        (stream or self._simulated.current).do(self._happen)

    def _happen(self):
        self.is_over = True

    def synchronize(self):
        self._simulated.waits += 1
        while not self.is_over:
            self._simulated.step()


class Simulated(TorchFunctionMode):
    """The device: calls of torch inside its context run on it."""

    def __init__(self, monkeypatch, seed):
        super().__init__()
        self.waits = 0
        """How often a thread has waited for the device."""
        self.streams = []
        self._random = random.Random(seed)
        self._memory, self._uses, self._pinned = {}, {}, set()
        """By address: the memory, and the streams that have to finish with it before it is reused."""
        self.current = Stream(self)
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(self))
        monkeypatch.setattr(torch.cuda, "Event", lambda blocking: Event(self))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.current)
        monkeypatch.setattr(torch.cuda, "stream", self._entered)
        monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: self._uses[tensor.data_ptr()].add(stream))

    @contextmanager
    def _entered(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    def advance(self):
        """Run some of the queued work, or none."""
        while self._random.random() < 0.6 and any(stream.work for stream in self.streams):
            self.step()

    def step(self):
        for stream in self._random.sample(self.streams, len(self.streams)):
            if stream.work and stream.work[0]():
                stream.work.popleft()
                return

    def finish(self):
        """Run all of the queued work."""
        while any(stream.work for stream in self.streams):
            self.step()

    def calculated(self, function, tensor):
        """Queue ``function`` of a tensor on the current stream and return the tensor that will hold the result."""
        source = self._memory[tensor.data_ptr()]
        shown = np.asarray(function(source))
        answer = self._allocated(shown.shape, shown.dtype)
        into = self._memory[answer.data_ptr()]
        self.current.do(lambda: np.copyto(into, function(source)))
        return answer

    def _allocated(self, shape, dtype, *, pinned=False):
        memory = np.full(shape, 77, dtype)
        held = memory.view()
        address = held.ctypes.data
        self._memory[address], self._uses[address] = memory, set() if pinned else {self.current}
        if pinned:
            self._pinned.add(address)
        weakref.finalize(held, self._free, address)
        return torch.from_numpy(held)

    def _free(self, address):
        other = Stream(self)
        for stream in self._uses[address]:
            other.wait_stream(stream)
        other.do(lambda: self._memory[address].fill(77))

    def _copied(self, into, source, *, non_blocking=False):
        arrays = [self._memory.get(each.data_ptr(), each.numpy()) for each in (into, source)]
        self.current.do(lambda: np.copyto(*arrays))
        pinned = self._pinned & {into.data_ptr(), source.data_ptr()}
        for address in pinned:
            self._uses[address].add(self.current)
        if not (pinned and non_blocking):
            event = Event(self)
            event.record()
            event.synchronize()
        return into

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        match function:
            case torch.empty if kwargs.get("pin_memory"):
                return self._allocated(args[0], np.dtype(str(kwargs["dtype"]).removeprefix("torch.")), pinned=True)
            case Tensor.to if args[1].type == "cuda":
                return self._copied(self._allocated(args[0].shape, args[0].numpy().dtype), args[0], **kwargs)
            case Tensor.copy_:
                return self._copied(*args, **kwargs)
            case Tensor.device.__get__ if args[0].data_ptr() in self._uses.keys() - self._pinned:
                return CUDA
        return function(*args, **kwargs)
