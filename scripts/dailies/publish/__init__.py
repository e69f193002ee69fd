"""Publish: the chosen model, and what was measured, go back to MLflow.

Start with ``promotion.promote`` and ``evaluation.write_back``.
"""
