"""Discovery: find the models in MLflow, and download their files.

Start with ``plan.plan`` (asks MLflow once and keeps a snapshot), ``discover.discover`` (finds the models in it) and
``download.download`` (fetches the first file of a model that holds a network).
"""
