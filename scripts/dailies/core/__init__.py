"""What every package uses: errors, files, typed JSON, foreign text, logs.

Start with ``errors`` (what a user can act on), ``files`` (atomic writes, digests) and ``typed`` (dataclasses as JSON).
"""
