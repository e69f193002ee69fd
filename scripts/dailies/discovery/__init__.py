"""Discovery: find the models in MLflow, and download their files.

Start with ``take_snapshot.take_snapshot`` (asks MLflow once and keeps its answers), ``discover.discover`` (finds the
models in them) and ``download.download`` (downloads the first file of a model that holds a network).
"""
