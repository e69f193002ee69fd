"""DPX files of every kind in SMPTE ST 268-1, written without a library."""

import struct

import numpy as np

SAMPLES = {0: 1, 1: 1, 4: 1, 6: 1, 7: 1, 8: 1, 50: 3, 51: 4, 52: 4, 100: 2, 101: 3, 102: 3, 103: 4, 151: 3}
"""Descriptor -> samples per pixel."""


def dpx(codes, *, descriptor=50, bits=8, packing=0, order=">", continuous=False, padding=0, **more):
    """Return a file of codes ``(height, width, samples)``; ``continuous`` rows start where the previous row ends."""
    height, width = codes.shape[:2]
    rows = [codes.ravel()] if continuous else [row.ravel() for row in codes]
    body = b"".join(_row(row, descriptor, bits, packing, order) + b"\xaa" * padding for row in rows)
    return _header(width, height, descriptor, bits, packing, order, padding, **more) + body


def _header(
    width,
    height,
    descriptor,
    bits,
    packing,
    order,
    padding,
    colour=2,
    limits=(0, 0),
    creator=b"",
    device=b"",
    encoding=0,
    elements=1,
    sign=0,
    start=2048,
    image_start=2048,
):
    header = bytearray(start)
    struct.pack_into(f"{order}II8s", header, 0, 0x53445058, start, b"V1.0")
    header[160 : 160 + len(creator)] = creator
    struct.pack_into(f"{order}I", header, 660, 0xFFFFFFFF)
    struct.pack_into(f"{order}HHII", header, 768, 0, elements, width, height)
    struct.pack_into(f"{order}IIfIf", header, 780, sign, limits[0], 0, limits[1], 0)
    header[800:804] = bytes([descriptor, colour, colour, bits])
    struct.pack_into(f"{order}HHIII", header, 804, packing, encoding, image_start, padding, 0)
    header[1556 : 1556 + len(device)] = device
    return bytes(header)


def _row(samples, descriptor, bits, packing, order):
    """Return a row, padded to whole words of 4 bytes."""
    samples = samples.astype(np.uint64)
    if bits == 8:
        data = samples.astype(np.uint8).tobytes()
    elif bits in {32, 64}:
        data = samples.astype(f"{order}f{bits // 8}").tobytes()
    elif bits == 16:
        data = samples.astype(f"{order}u2").tobytes()
    elif packing == 0:
        number = sum(int(sample) << (index * bits) for index, sample in enumerate(samples))
        words = [number >> (32 * index) & 0xFFFFFFFF for index in range(-(-len(samples) * bits // 32))]
        data = struct.pack(f"{order}{len(words)}I", *words)
    elif bits == 10:
        padded = np.concatenate([samples, np.zeros(-len(samples) % 3, np.uint64)])
        lowest = 2 if packing == 1 else 0
        shifts = (lowest, lowest + 10, lowest + 20) if SAMPLES[descriptor] == 1 else (lowest + 20, lowest + 10, lowest)
        data = sum(padded[index::3] << np.uint64(shift) for index, shift in enumerate(shifts))
        data = data.astype(f"{order}u4").tobytes()
    else:
        data = (samples << np.uint64(4 if packing == 1 else 0)).astype(f"{order}u2").tobytes()
    return data + bytes(-len(data) % 4)
