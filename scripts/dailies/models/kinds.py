"""Kinds: which files may hold a model, by their names."""

import re

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
"""The kinds of models that a run may hold, by the endings of their files, in the order in which they are preferred.

Among the kinds before MLflow's the name weighs more than the kind: see ``roles.rank``. docs/models.md shows this table.
"""

WEIGHTS = tuple(ending for endings, _ in ORDER[:-1] for ending in endings)
"""Endings of files that hold a network's weights or a whole network."""

AFTER_MLFLOW = (".onnx",)
"""Endings of files that are taken only where a run holds no MLflow model."""

BY_CONTENT = len(ORDER) - 1
"""The kind of files whose ending is none of ``WEIGHTS``."""

MLMODEL = "MLmodel"

LARGEST_CONFIG = 2**20
"""The file beside weights that says what their network is built from, and the bytes of the largest that is taken."""

INDEX = re.compile(r"\.(safetensors|bin|pt|pth|ckpt)\.index(\.\w+)?\.json$", re.IGNORECASE)
"""How the name of the file ends that says in which of its parts a model's weights are."""

PART = re.compile(r"-(\d{3,})-of-(\d{3,})(?=\.)", re.IGNORECASE)
"""What tells the parts of a model from each other: ``model-00001-of-00002.safetensors``."""

OWN = re.compile(r"data/model\.(pth|pt|pt2)|model\.onnx|python_model\.pkl")
"""Files of an MLflow model, below its folder, that its flavours load themselves."""
