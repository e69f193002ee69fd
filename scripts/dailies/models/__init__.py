"""Models: turn a downloaded file into a network. Nothing here knows MLflow's servers or frames.

Start with ``load.load_model``, which tries, in this order, the user's own loaders, programs and checkpoints.
``checkpoints`` reads files, ``factories`` build networks, ``weights`` finds the tensors that fit a network, and
``signature`` describes its input and output. ``file_kinds``, ``file_roles`` and ``signature``
import no torch.
"""
