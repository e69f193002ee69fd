"""Models: from a downloaded file to a network. No MLflow.

Start with ``load.load_model``, which tries, in this order, the user's own loaders, programs and checkpoints;
``checkpoints`` reads files, ``weights`` finds what fits a network, ``signature`` says how a network is fed.
"""
