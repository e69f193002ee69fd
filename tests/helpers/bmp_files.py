"""BMP files of every variant of the BMP test suite, written without a library, and the expected pixels.

https://entropymine.com/jason/bmpsuite/
"""

import struct

import numpy as np

HEIGHT, WIDTH = 6, 9

RGB565, RGB555 = ((11, 5), (5, 6), (0, 5)), ((10, 5), (5, 5), (0, 5))
"""First bit and number of bits of red, green and blue."""


def random(seed=0):
    return np.random.default_rng(seed)


def info(bits, compression=0, *, size=40, height=HEIGHT, colours=0, length=0, masks=()):
    """Return a header of ``size`` bytes, of Windows or of OS/2, and the masks that may follow it."""
    if size == 12:
        return struct.pack("<IHHHH", 12, WIDTH, height, 1, bits)
    if size == 16:
        return struct.pack("<IIIHH", 16, WIDTH, height, 1, bits)
    head = struct.pack("<IiiHHIIiiII", size, WIDTH, height, 1, bits, compression, length, 2835, 2835, colours, 0)
    head += struct.pack(f"<{len(masks)}I", *masks)
    return head + bytes(max(0, size - len(head)))


def bmp(header, pixels, palette=b"", gap=0):
    start = 14 + len(header) + len(palette) + gap
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + palette + bytes(gap) + pixels


def palette_of(colours, *, entry=4):
    return b"".join(bytes([*colour[::-1].tolist(), *bytes(entry - 3)]) for colour in colours)


def packed(values, bits, *, top_down=False):
    """Return rows padded to whole words; indices fill bytes from the upper bits, pixels are little-endian."""
    rows = []
    for row in values if top_down else values[::-1]:
        if bits < 8:
            text = "".join(f"{value:0{bits}b}" for value in row)
            data = int(text + "0" * (-len(text) % 8), 2).to_bytes(-(-len(text) // 8), "big")
        else:
            data = b"".join(int(value).to_bytes(bits // 8, "little") for value in row)
        rows.append(data + bytes(-len(data) % 4))
    return b"".join(rows)


def with_palette(bits, *, size=40, count=None, top_down=False, gap=0, used=None):
    """Return a file with a palette of ``count`` colours, of which ``used`` occur, and its pixels."""
    count = count or 1 << bits
    colours = random().integers(0, 256, (count, 3), dtype=np.uint8)
    indices = random(1).integers(0, min(used or count, 1 << bits), (HEIGHT, WIDTH))
    header = info(bits, size=size, height=-HEIGHT if top_down else HEIGHT, colours=count if count != 1 << bits else 0)
    data = packed(indices, bits, top_down=top_down)
    shown = np.zeros((256, 3), np.uint8)
    shown[: min(count, 256)] = colours[:256]
    return bmp(header, data, palette_of(colours, entry=3 if size == 12 else 4), gap), shown[indices]


def with_fields(bits, fields, *, size=40, compression=3, colours=0):
    """Return a file whose pixels are bit fields, given as (first bit, bits) per channel, and their codes."""
    codes = np.dstack([random(start).integers(0, 1 << count, (HEIGHT, WIDTH)) for start, count in fields])
    codes[0, 0], codes[0, 1] = 0, [(1 << count) - 1 for _, count in fields]
    values = sum(codes[:, :, index].astype(object) << start for index, (start, _) in enumerate(fields))
    masks = [(1 << count) - 1 << start for start, count in fields] if compression else []
    if compression == 6 or size >= 56:
        masks += [0] * (4 - len(masks))
    header = info(bits, compression, size=size, masks=masks if compression else (), colours=colours)
    return bmp(header, packed(values, bits), bytes(4 * colours)), codes


def with_runs(indices, runs, *, bits=8, top_down=False, count=None):
    """Return a file of run lengths, and its pixels."""
    colours = random().integers(0, 256, (count or 1 << bits, 3), dtype=np.uint8)
    height = -HEIGHT if top_down else HEIGHT
    header = info(bits, 1 if bits == 8 else 2, height=height, colours=count or 0, length=len(runs))
    shown = np.zeros((256, 3), np.uint8)
    shown[: len(colours)] = colours
    return bmp(header, runs, palette_of(colours)), shown[indices]


def encoded(row, bits):
    """Return a row as runs of equal indices."""
    runs, place = b"", 0
    while place < len(row):
        end = place
        while end < len(row) and row[end] == row[place]:
            end += 1
        runs += bytes([end - place, int(row[place]) * (1 if bits == 8 else 17)])
        place = end
    return runs


def literal(row, bits):
    """Return at least 3 indices as an uncompressed run."""
    if bits == 8:
        return bytes([0, len(row), *row.tolist()]) + bytes(len(row) % 2)
    padded = [*row.tolist(), *bytes(-len(row) % 4)]
    return bytes([0, len(row)]) + bytes(high * 16 + low for high, low in zip(padded[::2], padded[1::2], strict=True))


END_OF_LINE, END = b"\0\0", b"\0\1"
