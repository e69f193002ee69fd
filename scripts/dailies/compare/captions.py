"""Captions: names drawn into pictures, whatever characters they contain, without a system font."""

import importlib.util
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from dailies.core.text import clean

Colour = tuple[int, int, int]

BACKGROUND: Colour = (36, 36, 36)
"""A neutral grey, as on the page, so that nothing tints the pictures."""

TEXT: Colour = (222, 222, 222)
MUTED: Colour = (166, 166, 166)

MISSING_GLYPH = "\u25a1"
"""Replaces a character that the font lacks."""

LONGEST = 2000
"""Characters of a text that are considered; more would not fit any picture."""


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return a font of ``size`` pixels: the DejaVu Sans that matplotlib ships, else Pillow's default font.

    DejaVu Sans covers Latin, Greek, Cyrillic and Arabic; Pillow's font little more than ASCII.
    """
    found = importlib.util.find_spec("matplotlib")  # importing matplotlib would take a second
    path = Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf" if found and found.origin else None
    return ImageFont.truetype(str(path), size) if path and path.is_file() else ImageFont.load_default(size)


def printable(text: str, size: int) -> str:
    """Return a text on one line, without control characters, and with a box for each character the font lacks."""
    box = MISSING_GLYPH if _has_glyph(MISSING_GLYPH, size) else "?"
    return "".join(char if _has_glyph(char, size) else box for char in clean(text))


def shortened(text: str, width: int, size: int) -> str:
    """Return a printable text that is at most ``width`` pixels wide; a longer one loses its middle.

    Names of models differ both at the start and at the end.
    """
    text = printable(text[:LONGEST], size)
    if font(size).getlength(text) <= width:
        return text
    low, high = 0, len(text)
    while low < high:  # a binary search for the most characters that fit
        count = (low + high + 1) // 2
        low, high = (count, high) if font(size).getlength(_without_middle(text, count)) <= width else (low, count - 1)
    return _without_middle(text, low)


def draw(text: str, width: int, height: int, *, colour: Colour = TEXT, more: str = "", right: str = "") -> Image.Image:
    """Return a picture of ``width`` × ``height`` pixels with a text, a muted one after it, and another on the right."""
    image = Image.new("RGB", (width, height), BACKGROUND)
    size, edge = max(8, round(height * 0.55)), height // 5
    canvas, letters = ImageDraw.Draw(image), font(size)
    right = shortened(right, (width - 2 * edge) // 2, size)
    room = width - 2 * edge - (int(letters.getlength(right)) + edge if right else 0)
    gap = size if more else 0
    # name and params of a model share the room; each has what the other leaves
    wanted = letters.getlength(printable(more[:LONGEST], size)) + gap
    text = shortened(text, max(room // 2, round(room - wanted)), size) if more else shortened(text, room, size)
    start = edge + int(letters.getlength(text)) + gap
    canvas.text((edge, height // 2), text, fill=colour, font=letters, anchor="lm")
    if more:
        rest = shortened(more, max(0, room + edge - start), size)
        canvas.text((start, height // 2), rest, fill=MUTED, font=letters, anchor="lm")
    canvas.text((width - edge, height // 2), right, fill=MUTED, font=letters, anchor="rm")
    return image


def _without_middle(text: str, count: int) -> str:
    """Return the first and last characters of a text, ``count`` in all, around an ellipsis."""
    return f"{text[: (count + 1) // 2]}…{text[len(text) - count // 2 :]}"


@cache
def _has_glyph(char: str, size: int) -> bool:
    """Return whether the font draws a character differently from one that no font has."""
    if char.isascii():
        return True
    mask, absent = font(size).getmask(char), font(size).getmask("\U0010ffff")
    return (mask.size, bytes(mask)) != (absent.size, bytes(absent))
