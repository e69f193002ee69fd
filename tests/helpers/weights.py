"""Checkpoints whose output is known."""

import math


def grey_checkpoint(level: float, **changes) -> dict:
    """Return the checkpoint of a U-Net with zero weights: every pixel of its output is tanh(level)."""
    import torch
    from dailies.models.architectures.catalog import ARCHITECTURES

    config = {"in_channels": 3, "out_channels": 3, "base_channels": 1}
    state = {name: torch.zeros_like(value) for name, value in ARCHITECTURES["unet"](**config).state_dict().items()}
    state["outc.bias"].fill_(level)
    checkpoint = {
        "model_state_dict": state,
        "model_config": config,
        "architecture": "unet",
        "epoch": 10,
        "train_loss": 0.5,
    }
    return checkpoint | changes


def grey(level: float) -> int:
    """Return the code value that ``grey_checkpoint(level)`` renders."""
    return round((math.tanh(level) + 1) / 2 * 255)


def textured_checkpoint(seed: int) -> dict:
    """Return the checkpoint of a U-Net with random weights: every pixel of its output depends on the frame."""
    import torch
    from dailies.models.architectures.catalog import ARCHITECTURES

    torch.manual_seed(seed)
    config = {"in_channels": 3, "out_channels": 3, "base_channels": 16}
    return grey_checkpoint(0.0, model_config=config, model_state_dict=ARCHITECTURES["unet"](**config).state_dict())


LOADING = {
    "default_architecture": None,
    "model_factory": None,
    "python_path": [],
    "signatures": {},
    "architecture_from": ["model.architecture"],
    "code": None,
}
