"""Programs: files that hold a network as code, not only as weights.

``load.program_kind`` tells what a file is, and ``load.load_program`` loads it. There are three kinds, one module each:
TorchScript, torch.export and ONNX.
"""
