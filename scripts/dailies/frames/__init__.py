"""Frames: sequences of images and what is known of them. No torch.

Start with ``scan.scan`` (a folder or a video becomes a ``sequence.Sequence``), ``image`` (bytes to pixels and back) and
``reference`` (pairs ground truth with the sequence).
"""
