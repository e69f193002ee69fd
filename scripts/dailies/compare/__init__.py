"""Compare: what people look at to choose a model.

Start with ``page.build`` (the comparison page), ``contact_sheet`` and ``side_by_side``; ``layers``
gathers the pictures.
"""
