"""Planning: settings, estimates of memory, time and disk, and the input functions of the rules.

Start with ``config.Settings`` (every key), ``validation.validated`` (checks what a user wrote) and ``inputs``.
"""
