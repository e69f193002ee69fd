"""Render: one model over one shard of frames.

Start with ``job.render``; ``pipeline`` moves frames through ``engine.Engine``, which owns device, precision and memory.
"""
