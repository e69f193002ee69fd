"""Publishing to MLflow: promote the chosen model, and write evaluations of all models back.

Start with ``promotion.promote`` and ``evaluation.write_back``.
"""
