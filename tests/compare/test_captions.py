"""Captions: any name can be drawn, at any size."""

import importlib.util

import numpy as np
import pytest
from dailies.compare import captions
from dailies.compare.captions import MISSING_GLYPH, draw, font, printable, shortened
from PIL import ImageFont


@pytest.fixture
def without_matplotlib(monkeypatch):
    """Pillow's default font is the only one."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for cached in (captions.font, captions._has_glyph):
        cached.cache_clear()
    yield
    for cached in (captions.font, captions._has_glyph):
        cached.cache_clear()


def test_names_keep_their_accents_and_alphabets():
    for name in ("señal_café", "Größe", "Яндекс", "Ωμέγα"):
        assert printable(name, 16) == name


def test_a_character_that_the_font_lacks_is_a_box():
    assert printable("模型_v2", 16) == f"{MISSING_GLYPH}{MISSING_GLYPH}_v2"


def test_without_dejavu_every_name_can_still_be_drawn(without_matplotlib):
    assert font(16).getname() == ImageFont.load_default(16).getname()
    assert printable("unet_é", 16) == "unet_?"
    assert np.asarray(draw("unet_模型", 200, 28)).std() > 5


@pytest.mark.parametrize("name", ["a\nb\tc", "a\x1b[31mb\x07 c", "\u202ea b c\u2066"])
def test_control_characters_are_not_drawn(name):
    assert printable(name, 16).isprintable()
    assert "\n" not in printable(name, 16)


def test_a_long_name_is_shortened_in_its_middle():
    name = "unet_" + "x" * 5000 + "_loss0.0234"

    short = shortened(name, 200, 16)

    assert font(16).getlength(short) <= 200
    assert short.startswith("unet_xx")
    assert len(short) > 12
    assert shortened("unet_" + "x" * 50 + "_loss0.0234", 200, 16).endswith("0.0234")
    assert shortened("unet", 200, 16) == "unet"


@pytest.mark.parametrize("name", ["x" * 100_000, "\u0301" * 500, "\U0001f600" * 300, "", "W" * 40])
@pytest.mark.parametrize("size", [(480, 28), (40, 28), (1, 1)])
def test_a_caption_has_the_requested_size_whatever_its_text(name, size):
    assert draw(name, *size, right=name).size == size


def test_the_text_on_the_right_leaves_room_for_the_name():
    alone, beside = np.asarray(draw("unet", 300, 28)), np.asarray(draw("unet", 300, 28, right="8 of 16 bits"))

    np.testing.assert_array_equal(alone[:, :100], beside[:, :100])
    assert (beside[:, 200:] != captions.BACKGROUND).any()
