"""Captions: names written into pictures, whatever characters they hold, without a font of the system's."""

import importlib.util
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from dailies.core.text import clean

GROUND, INK, QUIET = (36, 36, 36), (222, 222, 222), (166, 166, 166)
"""Neutral greys, as on the page, so that nothing tints what is judged."""

LACKING = "\u25a1"
"""What stands for a character that the font lacks."""


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Give a font of ``size`` pixels: DejaVu Sans of matplotlib, which mlflow brings along, else Pillow's own.

    The first writes Latin, Greek, Cyrillic and Arabic letters, the second little more than ASCII.
    """
    found = importlib.util.find_spec("matplotlib")  # its files are wanted, not its import of a second
    path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf" if found else None
    return ImageFont.truetype(str(path), size) if path and path.is_file() else ImageFont.load_default(size)


def written(text: str, size: int) -> str:
    """Make a text fit to write: one line, no control characters, a box for each character that the font lacks."""
    return "".join(char if _known(char, size) else LACKING if _known(LACKING, size) else "?" for char in clean(text))


def shortened(text: str, width: int, size: int) -> str:
    """Shorten a text in its middle until it is at most ``width`` pixels wide: names differ at both of their ends."""
    text = written(text[:2000], size)
    if font(size).getlength(text) <= width:
        return text
    low, high = 0, len(text)
    while low < high:  # the most characters that fit
        kept = (low + high + 1) // 2
        low, high = (kept, high) if font(size).getlength(_without_middle(text, kept)) <= width else (low, kept - 1)
    return _without_middle(text, low)


def strip(text: str, width: int, height: int, *, ink: tuple[int, int, int] = INK, ending: str = "") -> Image.Image:
    """Give a strip of ``width`` × ``height`` pixels with a text at its left and, quietly, another at its right."""
    image = Image.new("RGB", (width, height), GROUND)
    size, edge = max(8, round(height * 0.55)), height // 5
    draw = ImageDraw.Draw(image)
    right = shortened(ending, (width - 2 * edge) // 2, size)
    room = width - 2 * edge - (int(font(size).getlength(right)) + edge if right else 0)
    draw.text((edge, height // 2), shortened(text, room, size), fill=ink, font=font(size), anchor="lm")
    draw.text((width - edge, height // 2), right, fill=QUIET, font=font(size), anchor="rm")
    return image


def _without_middle(text: str, kept: int) -> str:
    return f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"


@cache
def _known(char: str, size: int) -> bool:
    if char.isascii():
        return True
    mask, nothing = font(size).getmask(char), font(size).getmask("\U0010ffff")
    return (mask.size, bytes(mask)) != (nothing.size, bytes(nothing))
