"""Render every model of an MLflow experiment over every frame of a sequence."""

__version__ = "0.1.0"
