"""Learned pixels around an image: a padding frame in pixel space, and a frame that is added to the normalised image.

Source: padding and sigmoid as in AttrVR (Cai et al., ICLR 2025) and DVP (Cai et al., ICML 2025), methods/vp.py
PaddingVR; the added frame is VP's (Bahng et al., 2022) as in AttrVR's WatermarkingVR. Both start from zero.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import InputError

SQUASHES: dict[str, Callable[[Tensor], Tensor]] = {"sigmoid": torch.sigmoid, "none": lambda values: values}


class _Frame(nn.Module):
    """F learned pixels around a square of `inner` in one of `size`; the square itself is neither learned nor stored.

    Loads an authors' checkpoint as well, which has the whole (3, S, S) canvas as `program` and its `mask` as well.

    Attributes:
        program: (3, F), zero at first; pixels of the frame in reading order.
        before, after: width of the frame in pixels, left and above, right and below; `before` takes an odd pixel.
    """

    def __init__(self, size: int, inner: int):
        super().__init__()
        if not 0 <= inner < size:
            raise InputError(f"A frame surrounds an image that is smaller than the canvas, got an image of {inner} "
                             f"pixels on a canvas of {size}.")
        self.size, self.inner = size, inner
        self.before, self.after = (size - inner + 1) // 2, (size - inner) // 2
        outside = torch.ones(size, size, dtype=torch.bool)
        outside[self.before:size - self.after, self.before:size - self.after] = False
        self.register_buffer("places", outside.flatten().nonzero().flatten(), persistent=False)    # (F,)
        self.program = nn.Parameter(torch.zeros(3, len(self.places)))
        self.register_load_state_dict_pre_hook(_from_whole_canvas)

    def on_canvas(self, values: Tensor) -> Tensor:
        """(3, F) -> (3, S, S), zero in the inner square."""
        canvas = values.new_zeros(3, self.size * self.size)
        return canvas.index_copy(1, self.places, values).view(3, self.size, self.size)


def _from_whole_canvas(module: _Frame, state: dict, prefix: str, *_) -> None:
    state.pop(prefix + "mask", None)
    program = state.get(prefix + "program")
    if program is not None and program.shape == (3, module.size, module.size):
        state[prefix + "program"] = program.flatten(1)[:, module.places.to(program.device)]


class PixelPrompt(_Frame):
    """The image in the middle of a larger canvas, whose border is learned in pixel space.

    Args:
        size: side of the canvas, the tower's image size.
        inner: side of the image.
        squash: what keeps the border's values in range: "sigmoid" (0.5, a grey, at first) or "none".
    Attributes:
        in_pixel_space: images are normalised after this prompt.
    """

    in_pixel_space = True

    def __init__(self, size: int = 224, inner: int = 192, squash: str = "sigmoid"):
        super().__init__(size, inner)
        if squash not in SQUASHES:
            raise InputError(f"A pixel prompt must be squashed by one of {', '.join(SQUASHES)}, got {squash!r}.")
        self.squash = SQUASHES[squash]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, inner, inner) -> (B, 3, S, S), both in [0, 1]."""
        return self.pad(images) + self.border()

    def pad(self, images: Tensor) -> Tensor:
        """(B, 3, inner, inner) -> (B, 3, S, S), zero around the image."""
        if images.shape[-2:] != (self.inner, self.inner):
            raise InputError(f"This pixel prompt surrounds images of {self.inner} x {self.inner} pixels and got "
                             f"{images.shape[-2]} x {images.shape[-1]}. Set INPUT.SIZE ({self.inner}, {self.inner}).")
        return F.pad(images, (self.before, self.after, self.before, self.after))

    def border(self) -> Tensor:
        """(3, S, S) in [0, 1], zero where the image goes."""
        return self.on_canvas(self.squash(self.program))


class UnitGradientPrompt(PixelPrompt):
    """A border without bounds whose gradient is divided by the norm of the whole canvas's, the image's place included.

    Source: EVP (Wu et al., TMLR 2024), main.py train_with_prompt: g / (||g|| + 1e-10), masked afterwards.
    """

    def __init__(self, size: int = 224, inner: int = 164):
        super().__init__(size, inner, squash="none")

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, inner, inner) in [0, 1] -> (B, 3, S, S), of which the border may leave that range."""
        border = self.border()
        if border.requires_grad:
            border.register_hook(lambda gradient: gradient / (gradient.norm() + 1e-10))
        return self.pad(images) + border


class FramePrompt(_Frame):
    """A frame of `width` pixels that is added to the normalised image; unbounded.

    Args:
        size: side of the image. width: of the frame, at most half of it, which covers the whole image.
    """

    in_pixel_space = False

    def __init__(self, size: int = 224, width: int = 30):
        if not 1 <= width <= size // 2:
            raise InputError(f"A frame on an image of {size} pixels must be 1 to {size // 2} pixels wide, got {width}.")
        super().__init__(size, size - 2 * width)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S), normalised, -> (B, 3, S, S)."""
        return images + self.border()

    def border(self) -> Tensor:
        """(3, S, S), what is added: in units of the normalised image, zero inside the frame."""
        return self.on_canvas(self.program)


class PixelPrompts(nn.ModuleList):
    """v padding prompts of one size, each of which gives its own view of the same images."""

    in_pixel_space = True

    def __init__(self, v: int, size: int = 224, inner: int = 192):
        if v < 1:
            raise InputError(f"At least 1 pixel prompt is needed, got {v}.")
        super().__init__(PixelPrompt(size, inner) for _ in range(v))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, inner, inner) -> (v, B, 3, S, S), both in [0, 1]; the images are padded once for all v."""
        borders = torch.stack([prompt.border() for prompt in self])               # (v, 3, S, S)
        return self[0].pad(images) + borders[:, None]                             # (v, B, 3, S, S)
