"""The floor under a step: the operations that must be done, and how fast this machine multiplies matrices.

Counted are matrix products, in closed form; an operation is a multiplication or an addition. What must be done: the
patches and every block once, in the last block only the token that is read and the keys and values that it sees, every
text token that differs between classes once and what precedes all of them once, and in the backward pass the
gradients that lead to what is learned, never those of frozen weights. Norms, activations, softmax, losses and moving
data count as nothing, so no implementation goes below it with the same library of matrix products.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from clip.tokenizer import encode
from tools.labs.bench.rows import PRM_DESCRIPTIONS, Row
from trainers.parts.deep_prompt import DeepTextPrompt
from trainers.parts.representation import Representation
from trainers.parts.visual_prompt import VisualPrompt


@dataclass(frozen=True)
class Operations:
    """forward, backward: counts."""

    forward: int = 0
    backward: int = 0

    def __add__(self, other: Operations) -> Operations:
        return Operations(self.forward + other.forward, self.backward + other.backward)

    def __mul__(self, times: int) -> Operations:
        return Operations(self.forward * times, self.backward * times)

    @property
    def total(self) -> int:
        return self.forward + self.backward


def product(m: int, k: int, n: int, gradients: int = 0) -> Operations:
    """(m, k) times (k, n), and the gradients of none, one or both of them."""
    return Operations(2 * m * k * n, 2 * m * k * n * gradients)


def mlp(tokens: int, W: int, hidden: int, gradients: int) -> Operations:
    """Output projection of the attention and the two layers of the MLP behind it."""
    return product(tokens, W, W, gradients) + product(tokens, W, hidden, gradients) * 2


def vision(patches: int, patch_size: int, W: int, hidden: int, depth: int, D: int, learned: int = 0, frozen: int = 0,
           replaced: int = 0) -> Operations:
    """One image through a vision transformer of `depth` >= 2 blocks, `learned` tokens entering the first.

    Args:
        learned: visual tokens n; 0 is a frozen tower, whose backward costs nothing.
        frozen: blocks before the first that they enter, of the depth; two or more come behind them.
        replaced: blocks whose outputs at these tokens the next block replaces, so that nobody needs them.
    """
    L, g = 1 + patches, int(learned > 0)
    below = (product(L, W, 3 * W) + product(L, W, L) + product(L, L, W) + mlp(L, W, hidden, 0)) * frozen
    L, depth = L + learned, depth - frozen
    attention = product(L, W, L, 2 * g) + product(L, L, W, 2 * g)
    rest = attention + mlp(L, W, hidden, g)
    first = product(learned, W, 3 * W, g) + product(1 + patches, W, 3 * W) + rest
    middle = product(L, W, 3 * W, g) + rest
    read = product(1, W, L, 2 * g) + product(1, L, W, 2 * g) + mlp(1, W, hidden, g)
    last = product(L, W, 2 * W, g) + product(1, W, W, g) + read
    dropped = product(learned, W, W, g) + product(learned, W, L, 2 * g) + product(learned, L, W, 2 * g) \
        + mlp(learned, W, hidden, g)
    if replaced:                                # in the first block, the queries that are left lead to nothing learned
        first = first + Operations(0, -product(1 + patches, W, L).forward)
    return product(patches, 3 * patch_size ** 2, W) + below + first + middle * (depth - 2) + last \
        + product(1, W, D, g) + dropped * -replaced


def framed(patches: int, touched: int, patch_size: int, W: int, hidden: int, depth: int, D: int) -> Operations:
    """One image of which some patches hold learned pixels: as `vision`, where these patches stand for learned tokens.

    Args:
        touched: patches with a learned pixel in them.
    """
    tower = vision(patches - touched, patch_size, W, hidden, depth, D, touched)
    return tower + product(touched, 3 * patch_size ** 2, W, 1)


def text(prefix: int, own: Sequence[int], W: int, hidden: int, depth: int, D: int, prefixes: int = 1) -> Operations:
    """All classes behind a learned prefix, through a text transformer of `depth` >= 2 blocks.

    Args:
        prefix: p, tokens that all classes share: start and context.
        own: C lengths, each class's tokens from its name to the end-of-text.
        prefixes: R, how many prefixes all classes stand behind (CoCoOp has one for every image).
    """
    S, C, R = sum(own), len(own), prefixes
    own_pairs = sum(s * s for s in own)
    of_prefix = (product(prefix, W, prefix, 2) + product(prefix, prefix, W, 2)) * R
    rest = mlp(R * (prefix + S), W, hidden, 1)
    first = product(R * prefix, W, 3 * W, 1) + product(S, W, 3 * W) + of_prefix + rest \
        + product(R * S, W, prefix, 1) + product(R * S, prefix, W, 2) \
        + product(1, W, own_pairs) + product(1, own_pairs, W, 1) * R
    middle = product(R * (prefix + S), W, 3 * W, 1) + of_prefix + rest \
        + (product(S, W, prefix, 2) + product(S, prefix, W, 2) + product(own_pairs, W, 1, 2) * 2) * R
    last = product(R * (prefix + S), W, 2 * W, 1) + product(R * C, W, W, 1) + mlp(R * C, W, hidden, 1) \
        + (product(C, W, prefix, 2) + product(C, prefix, W, 2) + product(S, W, 1, 2) * 2) * R
    return first + middle * (depth - 2) + last + product(R * C, W, D, 1)


def operations(row: Row, trainer) -> dict[str, Operations]:
    """{"image", "text", "logits"} of one step of a row.

    Args:
        trainer: the row's, for the sizes of its towers and prompts; not used by the product of DVP.
    """
    B, C = row.batch, row.classes
    if trainer is None:
        return {"logits": product(B, PRM_DESCRIPTIONS, C, 1)}
    model, clip = trainer.model, trainer.model.clip
    if model.brick("pixel") is not None:
        return _pixel_operations(row, model)
    visual, prompt = model.brick("visual"), model.brick("text")
    learned, first, replaced = _visual_tokens(visual)
    images = B * max(row.views, 1)
    image = image_operations(clip, learned, first=first, replaced=replaced) * images
    if hasattr(type(trainer), "teacher_text") and row.trains:         # whose image tower runs in every step
        image = image + image_operations(clip) * B
    D, learns_text = clip.embed_dim, prompt is not None and (row.trains or row.views > 0)
    logits = product(images, D, C, int(learned > 0) + int(learns_text) if row.trains or row.views else 0)
    if not learns_text:
        return {"image": image, "text": Operations(), "logits": logits}
    if isinstance(visual, Representation) or isinstance(model.brick("text_tuner"), DeepTextPrompt):
        return {"image": image, "text": _deep_text(model, D), "logits": logits}
    own = [len(encode(f"{name}.")) + 1 for name in trainer.classes.names]
    prompts = 1 if prompt.class_specific or hasattr(prompt, "drawn") else prompt.ctx[..., 0, 0].numel()
    tower = text(1 + prompt.n_ctx, own, clip.text_width, _hidden(clip), clip.text_depth, D,
                 B if model.is_conditional or row.views else prompts)
    if row.views:                               # once more with the words that were tuned, for the plain view
        tower, logits = tower + Operations(tower.forward), logits + product(B, D, C)
    if model.is_conditional:
        hidden = prompt.meta_net.linear1.out_features
        tower = tower + product(B, D, hidden, 1) + product(B, hidden, clip.text_width, 2)
    return {"image": image, "text": tower, "logits": logits}


def _deep_text(model, D: int) -> Operations:
    """Of learned tokens in deep blocks. What is below the first of them is the same in every step, made once before."""
    clip, visual, tokens, tuner = model.clip, model.brick("visual"), model.brick("text")(), model.brick("text_tuner")
    joins = isinstance(visual, Representation)
    p, own = tokens.prefix.shape[-2] + (len(visual.tokens) if joins else 0), (tokens.eot + 1).tolist()
    hidden, W = _hidden(clip), clip.text_width
    tower = text(p, own, W, hidden, clip.text_depth - (min(visual.layer_of) if joins else 0), D)
    n, times = (len(visual.tokens), len(visual.deeper) - 1) if joins else (tuner.n_tokens, len(tuner.tokens))
    dropped = product(n, W, W, 1) + product(n, W, p, 2) + product(n, p, W, 2) + mlp(n, W, hidden, 1)
    return tower + dropped * -times             # the next block replaces what a block makes of them


def _visual_tokens(visual) -> tuple[int, int, int]:
    """Learned tokens of an image, the first block that they enter, and how many blocks they leave to be replaced."""
    if visual is None:
        return 0, 0, 0
    if isinstance(visual, Representation):
        return len(visual.tokens), min(visual.layer_of), len(visual.deeper) - 1
    n = visual.n_tokens if isinstance(visual, VisualPrompt) else len(visual.tokens(0))
    return n, 0, visual.depth - 1


def _pixel_operations(row: Row, model) -> dict[str, Operations]:
    clip, pixel, B = model.clip, model.brick("pixel"), row.batch
    frames = list(pixel) if isinstance(pixel, nn.ModuleList) else [pixel]
    texts = row.classes if model.fixed_text is not None else model.head.prompt_of.numel()
    if clip.vision_width is None:
        image = image_operations(clip, learns_pixels=True)
    else:
        image = framed((clip.image_size // clip.patch_size) ** 2, touched_patches(frames[0], clip.patch_size),
                       clip.patch_size, clip.vision_width, _hidden(clip.visual), clip.depth, clip.embed_dim)
    return {"image": image * (B * len(frames)), "text": Operations(), "logits": product(B, clip.embed_dim, texts, 1)}


def touched_patches(frame, patch_size: int) -> int:
    """Patches of an image with a learned pixel in them."""
    learned = frame.on_canvas(torch.ones_like(frame.program))[:1]                             # (1, S, S)
    return int(F.max_pool2d(learned, patch_size).sum())


def image_operations(clip, learned: int = 0, learns_pixels: bool = False, first: int = 0,
                     replaced: int = 0) -> Operations:
    """One image through the image tower of a CLIP; that of a ResNet is counted on the tower itself.

    Args:
        learned: visual tokens. first, replaced: see `vision`. learns_pixels: the gradient reaches the image (a
            ResNet's; a ViT's is `framed`).
    """
    visual = clip.visual
    if clip.vision_width is None:
        from torch.utils.flop_counter import FlopCounterMode

        image = torch.zeros(1, 3, clip.image_size, clip.image_size, device=clip.logit_scale.device,
                            dtype=next(visual.parameters()).dtype, requires_grad=learns_pixels)
        with FlopCounterMode(display=False) as counter:
            features = visual(image)
            forward = counter.get_total_flops()
            if learns_pixels:
                features.sum().backward()
        return Operations(forward, counter.get_total_flops() - forward)
    return vision((clip.image_size // clip.patch_size) ** 2, clip.patch_size, clip.vision_width,
                  _hidden(visual), clip.depth, clip.embed_dim, learned, first, replaced)


def _hidden(tower) -> int:
    return tower.transformer.resblocks[0].mlp.c_fc.out_features


def matrix_rate(device: str, dtype: torch.dtype, multiply: Callable = F.linear, tokens: Sequence[int] = (),
                widths: Sequence[int] = (512, 768), repeats: int = 5) -> tuple[float, str]:
    """The best rate of the products that the towers are made of, in operations a second, and the shape that had it.

    Shapes are (tokens, W) times (W, 3W), (W, 4W) and (4W, W), with the thread count in force.

    Args:
        multiply: x (m, k), weight (n, k) -> (m, n).
        tokens: by default those of 4 and 8 images of ViT-B/16 on a CPU, of 32 and 128 on a GPU.
    """
    best, shape = 0.0, ""
    for m in tokens or ((788, 1576) if device == "cpu" else (6304, 25216)):
        for W in widths:
            for k, n in ((W, 3 * W), (W, 4 * W), (4 * W, W)):
                x, weight = (torch.randn(size, device=device, dtype=dtype) for size in ((m, k), (n, k)))
                least = min(_seconds(multiply, x, weight) for _ in range(repeats))
                if (rate := product(m, k, n).forward / least) > best:
                    best, shape = rate, f"({m}, {k}) x ({k}, {n})"
    return best, shape


def _seconds(multiply: Callable, x: torch.Tensor, weight: torch.Tensor) -> float:
    """Of one product; on a GPU the mean of ten in a row, so that starting them costs nothing."""
    if x.device.type == "cpu":
        begin = time.perf_counter()
        multiply(x, weight)
        return time.perf_counter() - begin
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(10):
        multiply(x, weight)
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e4
