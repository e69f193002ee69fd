"""ONNX, run by onnxruntime. It runs its own operators only, and reads weights in the file's folder only."""

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dailies.core.errors import LoadError
from dailies.models.programs.program import Program, shown
from dailies.models.programs.sizes import Side, fits

log = logging.getLogger(__name__)

NUMBERS = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(double)": torch.float64}

OLDEST = (1, 24)
"""The first version of onnxruntime that refuses weights outside of the model's folder."""

CPU = "CPUExecutionProvider", {}
CUDA = "CUDAExecutionProvider", {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
"""As it comes, CUDA's times all algorithms and takes the fastest, another one in another job, and rounds to TF32."""


def opened(path: Path) -> Program:
    """Load an ONNX file, and find which sizes of images it takes."""
    install = f"pip install 'onnxruntime>={'.'.join(map(str, OLDEST))}'"
    try:
        import onnxruntime
    except ImportError as error:
        raise LoadError(
            "onnx.not_installed", f"{shown(path.name)} is an ONNX program; to render it: {install}"
        ) from error
    if tuple(map(int, re.findall(r"\d+", onnxruntime.__version__)[:2])) < OLDEST:
        raise LoadError(
            "onnx.too_old",
            f"{shown(path.name)} is an ONNX program, and onnxruntime {onnxruntime.__version__} would let it read files "
            f"outside of its folder; to render it: {install}",
        )
    network = _Session(path)
    batch, channels, *sides = (size if isinstance(size, int) and size > 0 else None for size in network.shape)
    return Program(
        network=network.eval(),
        kind="onnx",
        channels=channels,
        batch=batch,
        **fits(*(Side() if side is None else Side(side, side) for side in sides)),
    )


class _Session(nn.Module):
    """An ONNX program run by onnxruntime, on the device that its input is on where the installation can."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._sessions: dict[str, Any] = {}
        session = self._session("cpu")
        inputs, outputs = session.get_inputs(), session.get_outputs()
        shape = inputs[0].shape if len(inputs) == 1 else []
        if len(shape) != 4 or inputs[0].type not in NUMBERS or (shape[3] in (1, 3, 4) and shape[1] not in (1, 3, 4)):
            asked = ", ".join(f"{shown(str(item.name))}: {item.type} {shown(str(item.shape))}" for item in inputs)
            raise LoadError(
                "program.takes_no_image",
                f"the program in {shown(path.name)} asks for {shown(asked, 200)}; expected one image of 4 dimensions, "
                "batch, channels, height and width, in floating point",
            )
        self.shape = shape
        self._input = inputs[0].name
        self._dtype = NUMBERS[inputs[0].type]
        self._outputs = [output.name for output in outputs]

    def _session(self, device: str) -> Any:
        if device not in self._sessions:
            self._sessions[device] = self._begun(device)
        return self._sessions[device]

    def _begun(self, device: str) -> Any:
        import onnxruntime

        on_cuda = device == "cuda" and CUDA[0] in onnxruntime.get_available_providers()
        if device == "cuda" and not on_cuda:
            log.warning("onnxruntime has no CUDA here, so the program runs on the CPU; pip install onnxruntime-gpu")
        if device != "cpu" and not on_cuda:
            return self._session("cpu")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        options.use_deterministic_compute = True
        # by its name, onnxruntime would also take a file of its own format
        options.add_session_config_entry("session.load_model_format", "ONNX")
        return onnxruntime.InferenceSession(str(self._path), options, providers=[CUDA, CPU] if on_cuda else [CPU])

    def forward(self, pixels: Tensor) -> Tensor | dict[str, Tensor]:
        """Return the program's output, or all that are tensors by their names."""
        array = pixels.detach().to("cpu", self._dtype).contiguous().numpy()
        results = self._session(pixels.device.type).run(self._outputs, {self._input: array})
        tensors = {
            name: torch.from_numpy(result).to(pixels.device)
            for name, result in zip(self._outputs, results, strict=True)
            if isinstance(result, np.ndarray) and result.dtype.kind in "fiub"
        }
        return tensors if len(results) > 1 else next(iter(tensors.values()))
