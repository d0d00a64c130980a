"""Colours are tested as people see them who lack one of the three cones, by the matrices of Machado et al. (2009)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from picolm.report import theme

SEEN_BY = {
    "everyone": np.eye(3),
    "protanopes": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopes": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "tritanopes": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}
"""Linear RGB -> linear RGB at full severity."""


def linear(color: str) -> np.ndarray:
    channels = np.frombuffer(bytes.fromhex(color[1:]), dtype=np.uint8) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    matrix = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
    scaled = matrix @ np.clip(rgb, 0, 1) / np.array([0.95047, 1.0, 1.08883])
    f = np.where(scaled > 0.008856, np.cbrt(scaled), 7.787 * scaled + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def luminance(color: str) -> float:
    return float(np.array([0.2126, 0.7152, 0.0722]) @ linear(color))


def contrast(first: str, second: str) -> float:
    bright, dim = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("who", SEEN_BY)
@pytest.mark.parametrize("palette", [theme.SERIES_LIGHT, theme.SERIES_DARK], ids=["light", "dark"])
def test_the_first_four_series_stay_apart_for_everyone(who: str, palette: tuple[str, ...]):
    seen = [lab(SEEN_BY[who] @ linear(color)) for color in palette[:4]]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 12


@pytest.mark.parametrize("who", SEEN_BY)
@pytest.mark.parametrize("palette", [theme.SERIES_LIGHT, theme.SERIES_DARK], ids=["light", "dark"])
def test_all_series_can_be_told_apart(who: str, palette: tuple[str, ...]):
    seen = [lab(SEEN_BY[who] @ linear(color)) for color in palette]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 8


@pytest.mark.parametrize(
    ("palette", "colors"), [(theme.SERIES_LIGHT, theme.LIGHT), (theme.SERIES_DARK, theme.DARK)], ids=["light", "dark"]
)
def test_lines_and_text_stand_out_from_the_paper(palette: tuple[str, ...], colors: dict[str, str]):
    assert min(contrast(color, colors["paper"]) for color in palette) >= 3
    for role in ("ink", "soft", "faint", "accent", "floor"):
        assert contrast(colors[role], colors["paper"]) >= 4.5, role


@pytest.mark.parametrize("who", SEEN_BY)
def test_neighbouring_layers_of_a_dozen_differ_for_everyone(who: str):
    for dark in (False, True):
        seen = [lab(SEEN_BY[who] @ linear(color)) for color in theme.layer_colors(12, dark=dark)]
        assert min(np.linalg.norm(a - b) for a, b in itertools.pairwise(seen)) > 3
