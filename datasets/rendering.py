"""Procedural images from signed distance fields: the drawing under the `shapes` sets and the pretraining of `tiny`.

Everything is drawn for a whole batch at once with numpy, from a `RandomState` that the caller owns: the global random
streams are never touched, so few-shot draws stay those of CoOp. Images are (N, S, S, 3) float in [0, 1].
"""

import functools

import numpy as np
from PIL import Image, ImageDraw

FIELD = 64  # pixels per side of a stored distance field
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "crescent")
COLOURS = {
    "red": (0.86, 0.12, 0.12),
    "orange": (0.98, 0.55, 0.08),
    "yellow": (0.95, 0.88, 0.15),
    "green": (0.12, 0.62, 0.22),
    "blue": (0.14, 0.28, 0.85),
    "purple": (0.55, 0.16, 0.68),
}
TEXTURES = ("plain", "striped", "dotted", "checkered")
GREYS = {"white": 0.95, "grey": 0.5, "black": 0.05}
BACKGROUNDS = (*GREYS, *COLOURS)
SHIFTS = ("none", "noise", "clutter", "sketch", "recoloured", "lowcontrast")


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """Distance to the outline of a square mask, positive inside, on a FIELD x FIELD grid.

    Args:
        mask: (M, M) bool, M a multiple of FIELD.
    Returns:
        (FIELD, FIELD) float32, in units of half the side: the canvas spans [-1, 1].
    """
    from scipy.ndimage import distance_transform_edt  # here, because most runs draw nothing

    side = len(mask)
    distance = distance_transform_edt(mask) - distance_transform_edt(~mask)  # (M, M) pixels
    step = side // FIELD
    return (distance.reshape(FIELD, step, FIELD, step).mean((1, 3)) * (2.0 / side)).astype(np.float32)


def _polygon(points: list[tuple[float, float]], side: int) -> np.ndarray:
    canvas = Image.new("1", (side, side))
    ImageDraw.Draw(canvas).polygon([((x + 1) * side / 2, (y + 1) * side / 2) for x, y in points], fill=1)
    return np.array(canvas)


def _outline(shape: str, side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side] * (2.0 / side) - 1 + 1.0 / side
    radius = np.hypot(x, y)
    if shape == "circle":
        return radius < 0.8
    if shape == "square":
        return np.maximum(abs(x), abs(y)) < 0.7
    if shape == "ring":
        return (radius < 0.85) & (radius > 0.48)
    if shape == "cross":
        return (np.minimum(abs(x), abs(y)) < 0.26) & (np.maximum(abs(x), abs(y)) < 0.85)
    if shape == "crescent":
        return (radius < 0.85) & (np.hypot(x - 0.42, y) > 0.68)
    if shape == "heart":
        u, v = 1.25 * x, 0.12 - 1.2 * y
        return (u**2 + v**2 - 0.75) ** 3 < 1.3 * u**2 * v**3
    if shape == "triangle":
        return _polygon([(0, -0.85), (0.85, 0.68), (-0.85, 0.68)], side)
    angles = np.arange(10) * np.pi / 5 - np.pi / 2
    radii = np.where(np.arange(10) % 2, 0.38, 0.92)
    return _polygon(list(zip(radii * np.cos(angles), radii * np.sin(angles) + 0.06, strict=True)), side)


@functools.cache
def shape_fields() -> np.ndarray:
    """Distance fields of SHAPES, (8, FIELD, FIELD)."""
    return np.stack([signed_distance(_outline(shape, 4 * FIELD)) for shape in SHAPES])


def affine_grid(
    rng: np.random.RandomState,
    n: int,
    size: int,
    scale: tuple[np.ndarray, np.ndarray],
    rotation: float,
    shear: float,
    shift: float,
    elastic: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Where each output pixel looks in the distance field, as x and y, each (N, S, S) with the canvas in [-1, 1].

    Args:
        scale: width and height factor of each image, (N,) each; 1 keeps the stored size.
        rotation, shear, shift: standard deviations in radians, in units of slant, and in half sides.
        elastic: standard deviation of a smooth displacement, in half sides.
    """
    line = (np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1
    draw = rng.standard_normal((4, n, 1, 1)).astype(np.float32)
    x = line[None, None, :] - shift * draw[2]
    y = line[None, :, None] - shift * draw[3]  # broadcast to (N, S, S)
    cos, sin = np.cos(rotation * draw[0]), np.sin(rotation * draw[0])
    u, v = cos * x + sin * y, cos * y - sin * x
    u = (u + shear * draw[1] * v) / scale[0].reshape(n, 1, 1).astype(np.float32)
    v = v / scale[1].reshape(n, 1, 1).astype(np.float32)
    if elastic:
        u, v = u + elastic * smooth_noise(rng, n, size, 4), v + elastic * smooth_noise(rng, n, size, 4)
    return u, v


@functools.cache
def resize_matrix(source: int, target: int) -> np.ndarray:
    """Pillow's bicubic resize of one axis as a (target, source) matrix: out = matrix @ in."""
    identity = Image.fromarray(np.eye(source, dtype=np.float32))
    return np.array(identity.resize((source, target), Image.Resampling.BICUBIC))


def resize(fields: np.ndarray, target: int) -> np.ndarray:
    """Bicubic resize of (N, S, S) fields to (N, target, target), as Pillow does it (antialiased when shrinking)."""
    matrix = resize_matrix(fields.shape[-1], target)
    return matrix @ fields @ matrix.T


def smooth_noise(rng: np.random.RandomState, n: int, size: int, cells: int) -> np.ndarray:
    """A random smooth field of about unit variance, (N, S, S), with `cells` bumps per side."""
    return resize(rng.standard_normal((n, cells, cells)).astype(np.float32), size)


def sample_fields(fields: np.ndarray, index: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Bilinear look-up of `fields[index]` at (u, v) in [-1, 1]; outside the canvas it is the border's value.

    Args:
        fields: (K, FIELD, FIELD); index: (N,) int; u, v: (N, S, S).
    Returns:
        (N, S, S) float32.
    """
    flat = fields.reshape(-1)
    px = np.clip((u + 1) * (FIELD / 2) - 0.5, 0, FIELD - 1.001)
    py = np.clip((v + 1) * (FIELD / 2) - 0.5, 0, FIELD - 1.001)
    ix, iy = px.astype(np.int32), py.astype(np.int32)
    fx, fy = px - ix, py - iy
    corner = index.reshape(-1, 1, 1).astype(np.int32) * (FIELD * FIELD) + iy * FIELD + ix
    top = flat[corner] * (1 - fx) + flat[corner + 1] * fx
    bottom = flat[corner + FIELD] * (1 - fx) + flat[corner + FIELD + 1] * fx
    return top * (1 - fy) + bottom * fy


def coverage(distance: np.ndarray, softness: float) -> np.ndarray:
    """Share of each pixel that is inside: 0..1, changing over `softness` (in half sides) around the outline."""
    return np.clip(0.5 + distance / softness, 0, 1)


def _pattern(rng: np.random.RandomState, texture: np.ndarray, size: int) -> np.ndarray:
    """Where the second colour goes, (N, S, S) in [0, 1]; zero for `plain`."""
    n = len(texture)
    line = (np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1
    angle, period = rng.uniform(0, np.pi, n), rng.uniform(0.34, 0.5, n)
    phase = rng.uniform(0, 1, (2, n, 1, 1))
    cos, sin = (f(angle).reshape(n, 1, 1) for f in (np.cos, np.sin))
    period = period.reshape(n, 1, 1)
    p = (cos * line[None, None, :] + sin * line[None, :, None]) / period + phase[0]
    q = (cos * line[None, :, None] - sin * line[None, None, :]) / period + phase[1]
    p, q = np.cos(2 * np.pi * p), np.cos(2 * np.pi * q)
    soft = 16.0 / size
    kinds = [
        np.zeros_like(p),
        np.clip(0.5 + p / soft, 0, 1),
        np.clip(0.5 + (p + q - 0.55) / soft, 0, 1),
        np.clip(0.5 + p * q / soft, 0, 1),
    ]
    return np.choose(texture.reshape(n, 1, 1), kinds)


def _paint(image: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """`colour` (N, 1, 1, 3) or an image laid over `image` where `mask` (N, S, S) is 1."""
    return image + mask[..., None] * (colour - image)


def _backdrop(rng: np.random.RandomState, background: np.ndarray, size: int) -> np.ndarray:
    n = len(background)
    table = np.array([(grey,) * 3 for grey in GREYS.values()] + list(COLOURS.values()), np.float32)
    colour = table[background] + rng.uniform(-0.06, 0.06, (n, 1)) + rng.uniform(-0.03, 0.03, (n, 3))
    slope = rng.uniform(-0.06, 0.06, (2, n, 1, 1))
    line = np.linspace(-1, 1, size)
    ramp = slope[0] * line[None, None, :] + slope[1] * line[None, :, None]
    return (colour[:, None, None, :] + ramp[..., None]).astype(np.float32)


def _clutter(rng: np.random.RandomState, image: np.ndarray, pieces: int) -> np.ndarray:
    n, size = image.shape[:2]
    for _ in range(pieces):
        scale = rng.uniform(0.12, 0.24, n)
        u, v = affine_grid(rng, n, size, (scale, scale), 1.0, 0.0, 0.0)
        angle, radius = rng.uniform(0, 2 * np.pi, n), rng.uniform(0.6, 1.0, n)
        centre = (radius / scale * np.stack([np.cos(angle), np.sin(angle)])).reshape(2, n, 1, 1)
        distance = sample_fields(shape_fields(), rng.randint(len(SHAPES), size=n), u - centre[0], v - centre[1])
        image = _paint(image, coverage(distance, 0.2), rng.uniform(0, 1, (n, 1, 1, 3)))
    return image


def render_shapes(
    rng: np.random.RandomState,
    shape: np.ndarray,
    colour: np.ndarray,
    texture: np.ndarray,
    background: np.ndarray,
    size: int = 64,
    shift: str = "none",
    noise: float = 0.02,
) -> np.ndarray:
    """One coloured, textured shape per image.

    Args:
        shape, colour, texture, background: (N,) int, indices into SHAPES, COLOURS, TEXTURES, BACKGROUNDS.
        size: side in pixels.
        shift: one of SHIFTS. `recoloured` expects the caller to have drawn unusual backgrounds: nothing else changes.
        noise: standard deviation of the pixel noise that every image has.
    Returns:
        (N, S, S, 3) float32 in [0, 1].
    """
    n = len(shape)
    scale = rng.uniform(0.55, 0.95, n)
    stretch = rng.uniform(0.9, 1.1, n)
    u, v = affine_grid(rng, n, size, (scale * stretch, scale / stretch), 0.25, 0.06, 0.1)
    distance = sample_fields(shape_fields(), shape, u, v) * scale.reshape(n, 1, 1)
    ink = np.array(list(COLOURS.values()), np.float32)[colour] + rng.uniform(-0.06, 0.06, (n, 3))
    second = np.where(rng.uniform(size=(n, 1)) < 0.5, ink * 0.35, ink * 0.3 + 0.7)  # a darker or a paler tone
    pattern = _pattern(rng, texture, size)
    image = _backdrop(rng, background, size)
    inside = coverage(distance, 3.0 / size)
    if shift == "sketch":
        image = np.full_like(image, 0.96)
        line = coverage(0.05 - abs(distance), 3.0 / size)
        hatch = inside * np.where(texture.reshape(n, 1, 1) > 0, pattern, 0.0) * 0.8
        image = _paint(image, np.maximum(line, hatch), ink[:, None, None, :])
    else:
        if shift == "clutter":
            image = _clutter(rng, image, 6)
        fill = _paint(np.broadcast_to(ink[:, None, None, :], image.shape), pattern, second[:, None, None, :])
        image = _paint(image, inside, fill)
    if shift == "lowcontrast":
        image = 0.5 + 0.4 * (image - 0.5)
    noise = np.float32(0.16 if shift == "noise" else noise)
    image = image + noise * rng.standard_normal(image.shape).astype(np.float32)
    return np.clip(image, 0, 1).astype(np.float32)
