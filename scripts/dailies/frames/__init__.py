"""Image sequences: scanning them, decoding and encoding frames, and pairing them with a reference. No torch.

The entry points are ``scan.scan`` (turns a folder or a video into a ``sequence.Sequence``), ``image`` (bytes to pixels
and back) and ``reference`` (pairs ground truth with the sequence).
"""
