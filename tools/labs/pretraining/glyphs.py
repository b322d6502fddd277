"""Digits and letters from matplotlib's bundled fonts, bent, thickened, blurred and faded a whole batch at once."""

import functools
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datasets.rendering import FIELD, affine_grid, coverage, resize, sample_fields, signed_distance, smooth_noise

DIGITS = "0123456789"
# Letters that a blurred digit could pass for (o, l, s, z, b, q, g) are left out: half of their captions would be wrong.
LETTERS = "acefhkmnprtuvwxy"
LOOKS = ("plain", "pixelated", "blurry", "noisy")
FONTS = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
    *("cmr10", "cmss10", "cmtt10", "cmb10"),
)


def _draw(character: str, font: ImageFont.FreeTypeFont) -> np.ndarray:
    side = 4 * FIELD
    canvas = Image.new("L", (3 * side, 3 * side))
    ImageDraw.Draw(canvas).text((side, side), character, font=font, fill=255)
    glyph = canvas.crop(canvas.getbbox())
    factor = 0.8 * side / max(glyph.size)
    glyph = glyph.resize([max(1, round(length * factor)) for length in glyph.size], Image.Resampling.BILINEAR)
    framed = Image.new("L", (side, side))
    framed.paste(glyph, ((side - glyph.width) // 2, (side - glyph.height) // 2))
    return np.array(framed) > 127


@functools.cache
def glyph_fields() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All glyphs as distance fields, in a fixed order.

    Returns:
        fields (K, FIELD, FIELD), half stroke widths (K,) in half sides, and the class of each glyph (K,):
        0-9 the digits, 10 + i the letter LETTERS[i] in either case.
    """
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    characters = [(c, i) for i, c in enumerate(DIGITS)]
    characters += [(c, len(DIGITS) + i) for i, low in enumerate(LETTERS) for c in (low, low.upper())]
    fields, classes = [], []
    for name in FONTS:
        font = ImageFont.truetype(str(folder / f"{name}.ttf"), 4 * FIELD)
        for character, label in characters:
            fields.append(signed_distance(_draw(character, font)))
            classes.append(label)
    stroke = np.array([2 * field[field > 0].mean() for field in fields], np.float32)
    return np.stack(fields), stroke, np.array(classes)


@functools.cache
def _rows_by_class() -> list[np.ndarray]:
    classes = glyph_fields()[2]
    return [np.flatnonzero(classes == label) for label in range(classes.max() + 1)]


def render_glyphs(rng: np.random.RandomState, label: np.ndarray, look: np.ndarray, difficulty: float,
                  size: int = 32) -> np.ndarray:
    """One digit or letter per image.

    Args:
        label: (N,) int, 0-9 digits, then LETTERS.
        look: (N,) int, index into LOOKS.
        difficulty: 0..1; larger bends, blurs and fades more.
    Returns:
        (N, S, S, 3) float32 in [0, 1].
    """
    n = len(label)
    fields, stroke, _ = glyph_fields()
    rows = _rows_by_class()
    index = np.array([rows[c][rng.randint(len(rows[c]))] for c in label])
    pixelated = look == LOOKS.index("pixelated")
    height = np.where(pixelated, rng.uniform(1.0, 1.25, n), rng.uniform(0.75, 1.2, n))
    width = height * np.exp(rng.standard_normal(n) * (0.08 + 0.17 * difficulty))
    u, v = affine_grid(rng, n, size, (width, height), 0.05 + 0.13 * difficulty, 0.05 + 0.2 * difficulty, 0.05,
                       0.02 + 0.06 * difficulty)
    half_width = rng.uniform(0.06, 0.17, n).astype(np.float32)
    # A stroke is thinned by at most 40 %, or the hairlines of serif fonts would break.
    grow = np.maximum(half_width - stroke[index], -0.4 * stroke[index])
    distance = sample_fields(fields, index, u, v) + grow.reshape(n, 1, 1)
    ink = coverage(distance, 3.0 / size)
    ink = np.where(pixelated.reshape(n, 1, 1), _pixelate(ink), ink)
    soft = resize(resize(ink, size // 3), size)
    ink = np.where((look == LOOKS.index("blurry")).reshape(n, 1, 1), soft, ink)
    return _tint(rng, ink, pixelated, look == LOOKS.index("noisy"), difficulty)


def _pixelate(ink: np.ndarray) -> np.ndarray:
    """The low-resolution look: counts of dark pixels in 4 x 4 blocks (17 levels), enlarged again."""
    n, size = ink.shape[:2]
    blocks = (ink > 0.5).reshape(n, size // 4, 4, size // 4, 4).mean((2, 4), dtype=np.float32)
    return np.clip(resize(blocks, size), 0, 1)


def _tint(rng: np.random.RandomState, ink: np.ndarray, pixelated: np.ndarray, noisy: np.ndarray,
          difficulty: float) -> np.ndarray:
    n, size = ink.shape[:2]
    contrast = rng.uniform(1 - 0.65 * difficulty, 1, (n, 1))
    low = rng.uniform(0, 1, (n, 1)) * (1 - contrast)
    high = low + contrast
    light_ink = rng.uniform(size=(n, 1)) < np.where(pixelated, 0.8, 0.5)[:, None]
    plain = rng.uniform(size=(n, 1)) < np.where(pixelated, 0.5, 0.15)[:, None]  # exactly white on black
    low, high = np.where(plain, 0.0, low), np.where(plain, 1.0, high)
    tint = rng.uniform(-0.25, 0.25, (2, n, 3)) * (rng.uniform(size=(n, 1)) < 0.4) * ~plain
    back = np.where(light_ink, low, high) + tint[0]
    front = np.where(light_ink, high, low) + tint[1]
    image = back[:, None, None, :] + ink[..., None] * (front - back)[:, None, None, :]
    sigma = np.where(noisy, rng.uniform(0.08, 0.2, n), 0.03 * (rng.uniform(size=n) < 0.5))
    sigma = np.where(plain[:, 0], 0.5 * sigma, sigma)
    noise = rng.standard_normal(image.shape).astype(np.float32) * sigma.reshape(n, 1, 1, 1)
    shade = smooth_noise(rng, n, size, 3)[..., None] * (0.06 * difficulty * ~plain).reshape(n, 1, 1, 1)
    return np.clip(image + noise + shade, 0, 1).astype(np.float32)
