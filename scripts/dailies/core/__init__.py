"""What every package uses: errors, files, typed JSON, text from outside, logs.

Start with ``errors`` (what a user can act on), ``files`` (atomic writes, digests) and ``typed`` (dataclasses as JSON).
"""
