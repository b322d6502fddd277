"""CLIP with prompts: images and class prompts in, logits and features out."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clip import FrozenCLIP, InputError


@dataclass
class Output:
    """Attributes: logits (B, C), image_features (B, D) and text_features (C, D), both unit norm.

    text_features is None for a classifier without text. With v visual prompts, image_features are (v, B, D). With m
    descriptions per class, text_features are (C, m, D) and `scores` (B, C, m) are what the logits come from.
    """

    logits: Tensor
    image_features: Tensor
    text_features: Tensor | None
    scores: Tensor | None = None

    def detach(self) -> Output:
        return Output(*(value if value is None else value.detach() for value in
                        (self.logits, self.image_features, self.text_features, self.scores)))


class PromptLearner(nn.ModuleDict):
    """The learned bricks, saved under the names that the method's authors gave to their parameters.

    Whatever else a checkpoint holds (fixed words such as `token_prefix`, a whole frozen CLIP) is left aside on loading.

    Args:
        bricks: modules by name, e.g. {"text": TextPrompt, "visual": VisualPrompt}.
        saved_as: their parameters' names in a checkpoint, e.g. {"text.ctx": "ctx"}; several names mean one for every
            row of the parameter. A parameter without an entry keeps its own name.
    """

    def __init__(self, bricks: dict[str, nn.Module], saved_as: Mapping[str, str | Sequence[str]] | None = None):
        super().__init__(bricks)
        self.saved_as = dict(saved_as or {})
        self.register_state_dict_post_hook(_to_saved_names)
        self.register_load_state_dict_pre_hook(_from_saved_names)


def _to_saved_names(module: PromptLearner, state: dict, prefix: str, _metadata) -> None:
    for own, saved in module.saved_as.items():
        value = state.pop(prefix + own)
        rows = [(saved, value)] if isinstance(saved, str) else zip(saved, value, strict=True)
        state.update({prefix + name: row for name, row in rows})


def _from_saved_names(module: PromptLearner, state: dict, prefix: str, *_) -> None:
    whole = f"{prefix}prompt_learner."                      # of a file that holds the authors' whole model
    for name in [name for name in state if name.startswith(whole)]:
        state.setdefault(prefix + name.removeprefix(whole), state.pop(name))
    for own, saved in module.saved_as.items():
        if isinstance(saved, str) and prefix + saved in state:
            state[prefix + own] = state.pop(prefix + saved)
        elif not isinstance(saved, str) and all(prefix + name in state for name in saved):
            state[prefix + own] = torch.stack([state.pop(prefix + name) for name in saved])
    own_names = {prefix + name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    for name in [name for name in state if name.startswith(prefix) and name not in own_names]:
        del state[name]


class PromptedCLIP(nn.Module):
    """Frozen towers and what is learned around them.

    Args:
        clip: the towers; no gradient reaches their weights.
        text: a `TextPrompt`, or None with a `bank`.
        visual: a `VisualPrompt`, or None.
        pixel: a `PixelPrompt`, `FramePrompt` or `PixelPrompts`, or None. Where it works in pixel space, images are
            normalised here, after it.
        bank: instead of a text prompt, a fixed classifier: (C, D) unit-norm text features, or a `DescriptionBank`.
        saved_as: names of the learned parameters in a checkpoint, see `PromptLearner`.
    Attributes:
        prompt_learner: the learned bricks by name ("text", "visual", "pixel", and "bank" where it holds descriptions),
            and nothing frozen: what is optimised and saved.
    """

    def __init__(self, clip: FrozenCLIP, *, text: nn.Module | None = None, visual: nn.Module | None = None,
                 pixel: nn.Module | None = None, bank: Tensor | nn.Module | None = None,
                 saved_as: Mapping[str, str | Sequence[str]] | None = None):
        super().__init__()
        if (text is None) == (bank is None):
            raise InputError("PromptedCLIP classifies with either a text prompt or a fixed bank; give exactly one.")
        self.clip = clip
        described = bank if isinstance(bank, nn.Module) else None
        bricks = dict(text=text, visual=visual, pixel=pixel, bank=described)
        self.prompt_learner = PromptLearner({k: brick for k, brick in bricks.items() if brick is not None}, saved_as)
        self.register_buffer("bank", bank if described is None else None, persistent=False)
        for name, values in (("mean", clip.mean), ("std", clip.std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)
        self._cached: tuple[tuple, Tensor] | None = None

    def text_features(self) -> Tensor:
        """(C, D), unit norm. Without gradients they are computed once and kept until the prompt changes."""
        if self.bank is not None:
            return self.bank
        prompt = self.prompt_learner["text"]
        if torch.is_grad_enabled():
            return self.clip.encode_text(prompt())
        state = tuple((p.data_ptr(), p._version) for p in prompt.parameters())
        if self._cached is None or self._cached[0] != state:
            with torch.inference_mode(False), torch.no_grad():       # kept, so it may meet a gradient later
                self._cached = state, self.clip.encode_text(prompt())
        return self._cached[1]

    def image_features(self, images: Tensor) -> Tensor:
        """(B, D), unit norm; (v, B, D) with v pixel prompts, whose v * B images pass the tower as one batch."""
        bricks = self.prompt_learner
        if "pixel" in bricks:
            images = bricks["pixel"](images)                                      # (B, 3, S, S) or (v, B, 3, S, S)
            if bricks["pixel"].in_pixel_space:
                images = (images - self.mean) / self.std
        features = self.clip.encode_image(images.flatten(0, -4), bricks["visual"] if "visual" in bricks else None)
        return features.unflatten(0, images.shape[:-3])

    def forward(self, images: Tensor) -> Output:
        """Images (B, 3, H, W) to logits in units of CLIP's scale; not yet normalised for a prompt in pixel space."""
        image_features = self.image_features(images)                              # (B, D) or (v, B, D)
        if "bank" in self.prompt_learner:
            bank = self.prompt_learner["bank"]
            with torch.autocast(images.device.type, enabled=False):
                logits, scores = bank(image_features, self.clip.scale)            # (B, C), (B, C, m)
            return Output(logits, image_features, bank.features, scores)
        text_features = self.text_features()                                      # (C, D)
        with torch.autocast(images.device.type, enabled=False):                   # cosines and losses in float32
            logits = self.clip.scale * image_features @ text_features.t()         # (B, C)
        return Output(logits, image_features, text_features)
