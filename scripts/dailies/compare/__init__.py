"""Build what people look at to choose a model.

Start with ``page.build`` (the comparison page), ``contact_sheet.build`` and ``side_by_side.build`` (the video).
``layers`` gathers the pictures that all three show.
"""
