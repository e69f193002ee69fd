"""A training script for older MLflows: with the folder of one in PYTHONPATH, it logs to a server as that one does.

Its arguments are the server and the folder of the checkpoints; it prints the ids of its runs by name.
"""

import json
import sys
from pathlib import Path

import mlflow
import mlflow.pytorch
import torch

server, checkpoints = sys.argv[1:]
mlflow.set_tracking_uri(server)
mlflow.set_experiment("exp")
client = mlflow.MlflowClient()
client.create_registered_model("net")
runs = {}
for path in sorted(Path(checkpoints).glob("*.pth")):
    with mlflow.start_run(run_name=path.stem) as run:
        mlflow.log_param("model.architecture", "unet")
        mlflow.log_metric("train/loss", 0.25)
        mlflow.log_artifact(str(path), "checkpoints")
    runs[path.stem] = run.info.run_id
    client.create_model_version("net", f"runs:/{run.info.run_id}/checkpoints", run_id=run.info.run_id)
client.set_registered_model_alias("net", "champion", "1")
with mlflow.start_run(run_name="flavour") as run:
    mlflow.pytorch.log_model(torch.nn.Identity(), "model", pip_requirements=["torch"])
runs["flavour"] = run.info.run_id
print(json.dumps(runs))
