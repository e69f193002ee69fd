"""ONNX, run by onnxruntime, which runs only its own operators and reads weights only from the file's folder."""

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dailies.core.errors import LoadError
from dailies.core.text import shown
from dailies.models.programs.program import Program
from dailies.models.programs.sizes import Side, sizes_of

log = logging.getLogger(__name__)

DTYPES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(double)": torch.float64}
"""The data types of inputs that can be fed, by onnxruntime's names."""

OLDEST = (1, 24)
"""The first version of onnxruntime that refuses weights outside of the model's folder."""

Provider = tuple[str, dict[str, str]]

CPU: Provider = ("CPUExecutionProvider", {})
CUDA: Provider = ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"})
"""By default, onnxruntime uses whichever algorithm it measures to be fastest, so jobs differ, and rounds to TF32."""


def load_onnx(path: Path) -> Program:
    """Load an ONNX file, and read the sizes that it declares.

    Raises:
        LoadError: onnxruntime is missing or too old, or the program does not take exactly one image.
    """
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
    height, width = (Side() if side is None else Side.exactly(side) for side in sides)
    return Program(network.eval(), "onnx", sizes_of(height, width), channels, batch)


class _Session(nn.Module):
    """An ONNX program, run on the device of its input if the installed onnxruntime supports that, else on the CPU."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._sessions: dict[str, Any] = {}
        session = self._session("cpu")
        inputs, outputs = session.get_inputs(), session.get_outputs()
        shape = inputs[0].shape if len(inputs) == 1 else []
        if len(shape) != 4 or inputs[0].type not in DTYPES or (shape[3] in (1, 3, 4) and shape[1] not in (1, 3, 4)):
            needed = ", ".join(f"{each.name}: {each.type} {each.shape}" for each in inputs)
            raise LoadError(
                "program.takes_no_image",
                f"the program in {shown(path.name)} needs {shown(needed)}; expected one image of 4 dimensions "
                "(batch, channels, height, width) in floating point",
            )
        self.shape = shape
        """Batch, channels, height and width of the input; a name or None where the program takes any number."""
        self._input = inputs[0].name
        self._dtype = DTYPES[inputs[0].type]
        self._outputs = [output.name for output in outputs]

    def forward(self, pixels: Tensor) -> Tensor | dict[str, Tensor]:
        """Return the program's output, or, if it has several, those that are tensors by name."""
        array = pixels.detach().to("cpu", self._dtype).contiguous().numpy()
        results = self._session(pixels.device.type).run(self._outputs, {self._input: array})
        tensors = {
            name: torch.from_numpy(result).to(pixels.device)
            for name, result in zip(self._outputs, results, strict=True)
            if isinstance(result, np.ndarray) and result.dtype.kind in "fiub"
        }
        return tensors if len(results) > 1 else next(iter(tensors.values()))

    def _session(self, device: str) -> Any:
        if device not in self._sessions:
            self._sessions[device] = self._new_session(device)
        return self._sessions[device]

    def _new_session(self, device: str) -> Any:
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
        # without this, the file's name could make onnxruntime read its own format
        options.add_session_config_entry("session.load_model_format", "ONNX")
        return onnxruntime.InferenceSession(str(self._path), options, providers=[CUDA, CPU] if on_cuda else [CPU])
