"""Store: what MLflow holds, where it is, and how to reach it. No frames, no torch.

Start with ``tracking.open_store`` (queries), ``registry`` (versions and aliases) and ``writer.open_ledger`` (the same
store, opened for writing).
"""
