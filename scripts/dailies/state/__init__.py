"""State: what lies below ``output_dir``, and what follows from it for the next invocation.

Start with ``layout.Layout`` (every path), ``records`` (every JSON file), ``manifest`` (which frames are written, from
what), ``due_shards.is_due``, ``weights_folder.fill`` (downloads) and ``collect`` (metadata.json, batch_summary.json).
"""
