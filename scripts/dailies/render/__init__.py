"""Render: one model over one shard of frames.

Start with ``job.render``. It loads the model (``loading``) and passes frames through ``pipeline`` to ``engine.Engine``.
"""
