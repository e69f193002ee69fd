"""Transfers: frames on their way to a device, and code values on their way from it."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Download:
    """Code values of a frame on their way from a device."""

    values: Tensor
    finite: Tensor
    """Whether all of the network's output was."""
    arrived: "torch.cuda.Event | None" = None
    """Until then both tensors may hold anything; None: they are there."""

    def array(self, dtype: np.dtype) -> np.ndarray | None:
        """Wait for the values and give them, None where the output was not finite."""
        if self.arrived:
            self.arrived.synchronize()
        return self.values.numpy().astype(dtype, copy=False) if bool(self.finite) else None


class Transfers:
    """Moves frames to a device and code values from it: on CUDA through pinned memory, beside the network's work.

    Each direction has a stream of its own there.
    """

    def __init__(self, device: torch.device) -> None:
        self._up, self._down = (torch.cuda.Stream(device) if device.type == "cuda" else None for _ in range(2))

    def upload(self, frame: np.ndarray, home: torch.device) -> Tensor:
        """Bring a frame to where whole frames are, the device or the CPU; what follows there waits for it."""
        if home.type != "cuda":
            return torch.tensor(frame, device=home)
        # torch.tensor refuses to pin what comes from numpy
        pinned = torch.empty(frame.shape, dtype=getattr(torch, frame.dtype.name), pin_memory=True)
        np.copyto(pinned.numpy(), frame)
        with torch.cuda.stream(self._up):
            pixels = pinned.to(home, non_blocking=True)
        working = torch.cuda.current_stream(home)
        working.wait_stream(self._up)
        pixels.record_stream(working)
        return pixels

    def download(self, values: Tensor, finite: Tensor) -> Download:
        """Begin to bring code values to the CPU, when what was asked for before is done."""
        if values.device.type != "cuda":
            return Download(values.cpu(), finite)
        self._down.wait_stream(torch.cuda.current_stream(values.device))
        hosts = [torch.empty(each.shape, dtype=each.dtype, pin_memory=True) for each in (values, finite)]
        with torch.cuda.stream(self._down):
            for host, each in zip(hosts, (values, finite), strict=True):
                host.copy_(each, non_blocking=True)
                each.record_stream(self._down)
            # who waits sleeps: as CUDA comes, a thread for each frame on its way would spin, beside those that decode
            arrived = torch.cuda.Event(blocking=True)
            arrived.record()
        return Download(*hosts, arrived)
