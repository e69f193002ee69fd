"""The MLflow store: experiments, runs, models and artifacts, where they are, and how to reach them.

Start with ``tracking.open_store`` (queries), ``transfer.transfer`` (copies and verifies a file), ``registry``
(versions and aliases) and ``writer.open_writable_store``.
"""
