"""A Hypothesis strategy for PNG files of every kind in the specification, valid and damaged."""

import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import strategies as st

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@dataclass(frozen=True)
class PngFile:
    """A file and its kind."""

    data: bytes
    colour: int
    depth: int
    interlaced: bool
    transparent: bool

    @property
    def ordinary(self) -> bool:
        return self.colour in {0, 2, 6} and self.depth >= 8 and not self.interlaced and not self.transparent


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def lines(random, width, height, bits):
    """Return filtered rows of random bytes, which are valid for any filter."""
    if not width or not height:
        return b""
    return b"".join(bytes([random.randrange(5)]) + random.randbytes((width * bits + 7) // 8) for _ in range(height))


@st.composite
def png_files(draw, *, damaged=False):
    """Draw a file of at most 20×12 pixels; a damaged one has damaged pixels but correct chunk checksums."""
    colour = draw(st.sampled_from(sorted(CHANNELS)))
    depth, interlaced = draw(st.sampled_from(DEPTHS[colour])), draw(st.booleans())
    width, height, random = draw(st.integers(1, 20)), draw(st.integers(1, 12)), draw(st.randoms(use_true_random=False))
    bits = CHANNELS[colour] * depth
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // right), -(-(height - y) // down)) for x, y, right, down in passes]
    deflated = bytearray(zlib.compress(b"".join(lines(random, *size, bits) for size in sizes), draw(st.integers(0, 9))))
    if damaged:
        if draw(st.booleans()):
            deflated[draw(st.integers(0, len(deflated) - 1))] ^= 1 << draw(st.integers(0, 7))
        else:
            del deflated[draw(st.integers(0, len(deflated) - 1)) :]
    values = 3 if colour in {2, 6} else 1
    highest = 2**depth - 1
    maybe = {
        b"gAMA": struct.pack(">I", draw(st.sampled_from([45455, 100_000]))),
        b"sBIT": bytes([draw(st.integers(1, min(depth, 8)))] * (3 if colour == 3 else CHANNELS[colour])),
        b"sRGB": b"\0",
        b"cICP": bytes([9, 16, 0, 1]),
        b"pHYs": struct.pack(">IIB", 2, 1, 0),
        b"tEXt": b"Comment\0take 3",
        b"bKGD": b"" if colour == 3 else struct.pack(f">{values}H", *[draw(st.integers(0, highest))] * values),
    }
    chosen = [name for name in maybe if maybe[name] and draw(st.integers(0, 3)) == 0]
    transparent = colour in {0, 2, 3} and draw(st.integers(0, 3)) == 0
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    file += b"".join(chunk(name, maybe[name]) for name in chosen if name != b"bKGD")
    if colour == 3:
        file += chunk(b"PLTE", random.randbytes(3 * 2**depth))
    if transparent:
        keys = [random.randint(0, highest) for _ in range(values)]
        file += chunk(b"tRNS", random.randbytes(1 + highest) if colour == 3 else struct.pack(f">{values}H", *keys))
    file += chunk(b"bKGD", maybe[b"bKGD"]) if b"bKGD" in chosen else b""
    cuts = [0, *sorted(draw(st.lists(st.integers(0, len(deflated)), max_size=3))), len(deflated)]
    file += b"".join(chunk(b"IDAT", bytes(deflated[a:b])) for a, b in pairwise(cuts))
    return PngFile(file + chunk(b"IEND", b""), colour, depth, interlaced, transparent)
