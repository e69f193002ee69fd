"""Measure how good the frames of each model are, and which model is the best.

Start with ``metrics`` (the table of metrics), ``per_frame.measure`` (the job of one shard), ``leaderboard.tabulate``
(the tables) and ``verdict`` (the verdict and its words).
"""
