"""Measure: how good the frames of a model are, and which model leads.

Start with ``metrics`` (one entry per metric), ``per_frame.measure`` (the job) and ``leaderboard.tabulate``
(the tables).
"""
