"""The kinds of files that may hold a model, by their names."""

import re
from typing import Any

ORDER = (
    ((".pth", ".pt", ".ckpt"), "checkpoint, or TorchScript"),
    ((".safetensors",), "safetensors"),
    ((".pt2",), "torch.export program"),
    ((), "MLflow model, flavour pytorch or onnx: logged models, the newest first, then folders; then files in them"),
    ((".onnx",), "ONNX"),
    (
        (".pth.tar", ".bin", ".pkl", ".model", ".weights", "…"),
        "any of these, also with another ending or with none, as its content says",
    ),
)
"""The kinds of models that a run may hold, by the endings of their files, in order of preference.

Among the kinds before MLflow's, the name takes precedence over the kind: see ``file_roles.rank``. docs/models.md shows
this table.
"""

WEIGHTS = tuple(ending for endings, _ in ORDER[:-1] for ending in endings)
"""Endings of files that hold the weights of a network or a whole network."""

AFTER_MLFLOW = (".onnx",)
"""Endings of files that are used only if a run holds no MLflow model."""

BY_CONTENT = len(ORDER) - 1
"""The kind of files whose ending is not in ``WEIGHTS``."""

MLMODEL = "MLmodel"
"""The file that describes an MLflow model, in the model's folder."""

CONFIG_FILE = "config.json"
"""The file beside weights that holds the configuration of their network."""

LARGEST_CONFIG = 2**20
"""The largest ``CONFIG_FILE`` that is downloaded, in bytes."""

INDEX = re.compile(r"\.(safetensors|bin|pt|pth|ckpt)\.index(\.\w+)?\.json$", re.IGNORECASE)
"""The end of the name of an index, which maps the weights of a model to the files that hold them."""

PART = re.compile(r"-(\d{3,})-of-(\d{3,})(?=\.)", re.IGNORECASE)
"""The number of a part in the name of a model that is split: ``model-00001-of-00002.safetensors``."""

OWN = re.compile(r"data/model\.(pth|pt|pt2)|model\.onnx|python_model\.pkl")
"""Files below the folder of an MLflow model that its flavours load themselves."""


def indexed_files(index: Any) -> list[str]:
    """Return the sorted names of the files that the JSON of an index maps weights to.

    Raises:
        ValueError: it has no ``weight_map`` with file names.
    """
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    names = weight_map.values() if isinstance(weight_map, dict) else ()
    if not (files := {name for name in names if isinstance(name, str)}):
        raise ValueError("it has no weight_map of names to files")
    return sorted(files)
