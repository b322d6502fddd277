"""PromptedModel: frozen towers, what is learned around them, and the head that turns features into logits."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import FrozenCLIP, InputError
from trainers.parts.heads import CosineHead


@dataclass
class Output:
    """What a `PromptedModel` says of B images.

    Attributes:
        logits: (B, C), scaled as the head scales them (by CLIP's factor on cosines, where there is one).
        image_features: unit norm: (B, D); (v, B, D) for v views of each image; (B, L, D) for all of its tokens, or
            some of them.
        text_features: unit norm: (C, D); (P, C, D) for P prompts or (C, m, D) for m descriptions or tokens of each;
            (B, C, D) where they depend on the image; None without text.
        aux: what else the head found, by name, e.g. "scores" (B, C, m) of descriptions, or "plan" of a transport.
    """

    logits: Tensor
    image_features: Tensor
    text_features: Tensor | None
    aux: dict[str, Tensor] = field(default_factory=dict)

    def detach(self) -> Output:
        return Output(*(value if value is None else value.detach() for value in
                        (self.logits, self.image_features, self.text_features)),
                      {name: value.detach() for name, value in self.aux.items()})


class Stream(Protocol):
    """What a model learns from a stream of test images; no part of its checkpoints."""

    def reset(self) -> None:
        """As before the first image."""
        ...

    def state_dict(self) -> dict:
        """All that later answers depend on: plain data and tensors."""
        ...

    def load_state_dict(self, state: dict) -> None: ...


SavedAs = Mapping[str, str | Sequence[str] | Mapping[str, int]]


class PromptLearner(nn.ModuleDict):
    """The learned bricks, saved under the names that the method's authors gave to their parameters.

    Whatever else a checkpoint holds (fixed words such as `token_prefix`, a whole frozen CLIP) is left aside on loading.

    Args:
        bricks: modules by name, e.g. {"text": TextPrompt, "visual": VisualPrompt}.
        saved_as: their parameters' names in a checkpoint, e.g. {"text.ctx": "ctx"}; several names mean one for every
            row of the parameter, and names with numbers one for so many rows. A parameter without an entry keeps its
            own name.
    """

    def __init__(self, bricks: dict[str, nn.Module], saved_as: SavedAs | None = None):
        super().__init__(bricks)
        self.saved_as = dict(saved_as or {})
        self.register_state_dict_post_hook(_to_saved_names)
        self.register_load_state_dict_pre_hook(_from_saved_names)

    def groups(self, rates: Mapping[str, float], lr: float) -> list[dict] | None:
        """Groups of parameters for an optimiser, with the bricks that `rates` names at that factor times `lr`.

        None where all learn at one rate.
        """
        by_rate: dict[float, list[nn.Parameter]] = {}
        for name, brick in self.items():
            by_rate.setdefault(rates.get(name, 1.0), []).extend(brick.parameters())
        found = [{"params": params, "lr": rate * lr} for rate, params in by_rate.items() if params]
        return found if len(found) > 1 else None


def _to_saved_names(module: PromptLearner, state: dict, prefix: str, _metadata) -> None:
    for own, saved in module.saved_as.items():
        value = state.pop(prefix + own)
        if isinstance(saved, Mapping):
            value = value.split([*saved.values()])
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
            join = torch.cat if isinstance(saved, Mapping) else torch.stack
            state[prefix + own] = join([state.pop(prefix + name) for name in saved])
    own_names = {prefix + name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    for name in [name for name in state if name.startswith(prefix) and name not in own_names]:
        del state[name]


def all_names(saved_as: SavedAs) -> set[str]:
    """Of a checkpoint, each once."""
    return {name for saved in saved_as.values() for name in ([saved] if isinstance(saved, str) else saved)}


class PromptedModel(nn.Module):
    """Images to an `Output`.

    Args:
        clip: the towers.
        text: what the classes are compared by: (C, D) fixed unit-norm features; a brick that gives their `TextTokens`,
            from the images' features (B, D) if it says `conditional`, or several, each of B prefixes; or None, where
            the head knows the classes.
        head: image features, text features and `clip` to logits (B, C), or to logits and a dict of more; see
            `trainers.parts.heads`. Default: cosines.
        visual, text_tuner: tuners of the image and the text tower; bricks.
        pixel: a brick that changes the images before the tower. Where it works in pixel space, images are normalised
            here, after it.
        takes_pixels: images come in [0, 1] and are normalised here in any case, before a brick that does not work in
            pixel space.
        tower: released weights of `clip`, see `FrozenCLIP.trainable`.
        want: what is read from the image tower, see `FrozenCLIP.encode_image`. text_want: from the text tower.
        saved_as: names of the learned parameters in a checkpoint, see `PromptLearner`.
        stream: what is learned from the images that are tested, see `Stream`.
    Attributes:
        prompt_learner: the bricks under the names of these arguments, and nothing frozen: what is optimised and saved.
    """

    def __init__(self, clip: FrozenCLIP, *, text: Tensor | nn.Module | None = None, head: nn.Module | None = None,
                 visual: nn.Module | None = None, text_tuner: nn.Module | None = None, pixel: nn.Module | None = None,
                 tower: nn.ParameterDict | None = None, want="pooled", text_want="pooled",
                 saved_as: SavedAs | None = None, stream: Stream | None = None, takes_pixels: bool = False):
        super().__init__()
        head = head or CosineHead()
        if text is None and not getattr(head, "knows_classes", False):
            raise InputError(f"{type(head).__name__} compares images with texts; give text features or a text prompt.")
        if visual is not None:
            clip.require_tokens("A visual prompt")
        self.clip, self.want, self.text_want, self.stream = clip, want, text_want, stream
        self.takes_pixels = takes_pixels or getattr(pixel, "in_pixel_space", False)
        bricks = {"text": text, "visual": visual, "text_tuner": text_tuner, "pixel": pixel, "tower": tower,
                  getattr(head, "saved_name", "head"): head}
        self.prompt_learner = PromptLearner({k: v for k, v in bricks.items() if isinstance(v, nn.Module)}, saved_as)
        self._head = getattr(head, "saved_name", "head")
        self.register_buffer("fixed_text", text if isinstance(text, Tensor) else None, persistent=False)
        for name, values in (("mean", clip.mean), ("std", clip.std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)
        self._cached: tuple[tuple, Tensor] | None = None

    def brick(self, name: str) -> nn.Module | None:
        """By the name of its argument; None where there is none."""
        return self.prompt_learner[name] if name in self.prompt_learner else None

    @property
    def head(self) -> nn.Module:
        return self.prompt_learner[self._head]

    def replace_head(self, head: nn.Module, saved_as: Mapping[str, str]) -> None:
        """Another head, and how its parameters are called in a checkpoint, for methods on top of this one."""
        del self.prompt_learner[self._head]
        self._head = getattr(head, "saved_name", "head")
        self.prompt_learner[self._head] = head
        self.prompt_learner.saved_as |= saved_as

    @property
    def unit_norm(self) -> bool:
        """Whether the head takes normalised features."""
        return getattr(self.head, "unit_norm", True)

    @property
    def joint(self) -> bool:
        """Whether the head takes image features after the projection."""
        return getattr(self.head, "joint", True)

    @property
    def is_conditional(self) -> bool:
        """Whether every image has text features of its own."""
        return getattr(self.brick("text"), "conditional", False)

    def text_features(self, image_features: Tensor | None = None) -> Tensor | None:
        """See `Output`. In evaluation, where nothing of them learns, they are computed once and kept until anything
        learned changes.

        Args:
            image_features: (B, D), for a conditional text brick.
        """
        features = self.text_for_head(image_features)
        return features if self.unit_norm or features is None else F.normalize(features, dim=-1)

    def text_for_head(self, image_features: Tensor | None = None) -> Tensor | None:
        """Text features, normalised or as the tower gives them."""
        if self.fixed_text is not None or "text" not in self.prompt_learner:
            return self.fixed_text
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in self.prompt_learner.parameters())
        if learns or self.prompt_learner.training or self.is_conditional:
            return self._encode_text(image_features)
        # Whatever is learned may act on the text side, and so may weights of the towers that were exchanged.
        parameters = (*self.prompt_learner.parameters(), *self.clip.parameters())
        state = tuple((p.data_ptr(), p._version) for p in parameters)
        if self._cached is None or self._cached[0] != state:
            with torch.inference_mode(False), torch.no_grad():       # kept, so it may meet a gradient later
                self._cached = state, self._encode_text(None)
        return self._cached[1]

    @property
    def asks_what_was_seen(self) -> bool:
        """Whether its head answers classes that training saw otherwise than new ones."""
        return hasattr(self.head, "seen")

    def saw(self, seen: Sequence[bool] | None) -> None:
        """Which of the C classes training saw, for a head that asks: its `seen` (C,) bool; None where nobody says."""
        if self.asks_what_was_seen:
            self.head.seen = None if seen is None else torch.tensor(list(seen), device=self.mean.device)

    def _encode_text(self, image_features: Tensor | None) -> Tensor:
        text = self.prompt_learner["text"]
        tokens = text(image_features) if self.is_conditional else text()
        found = [self.clip.encode_text(own, self.brick("text_tuner"), want=self.text_want, unit_norm=self.unit_norm)
                 for own in (tokens if isinstance(tokens, list) else [tokens])]
        return torch.cat(found) if len(found) > 1 else found[0]

    def image_features(self, images: Tensor, unit_norm: bool = True) -> Tensor:
        """See `Output`; v views of B images pass the tower as one batch of v * B.

        Clips of T frames (B, T, 3, H, W) give the mean over their frames of features as the tower gives them, or all
        of them, (B, T, D), to a head that `takes_frames`.
        """
        if images.dim() == 5:
            return self._clip_features(images, unit_norm)
        pixel = self.brick("pixel") or nn.Identity()
        first = getattr(pixel, "in_pixel_space", False)
        images = pixel(images) if first else images                               # (B, 3, S, S) or (v, B, 3, S, S)
        images = (images - self.mean) / self.std if self.takes_pixels else images
        images = images if first else pixel(images)
        features = self.clip.encode_image(images.flatten(0, -4), self.brick("visual"), want=self.want,
                                          joint=self.joint, unit_norm=unit_norm)
        views = getattr(self.brick("visual"), "views", None)                      # a tuner may let images pass v times
        return features.unflatten(0, images.shape[:-3] if views is None else (views, *images.shape[:-3]))

    def _clip_features(self, clips: Tensor, unit_norm: bool) -> Tensor:
        B, T = clips.shape[:2]
        if hasattr(visual := self.brick("visual"), "frames"):
            visual.frames = T
        features = self.image_features(clips.flatten(0, 1), unit_norm=False)             # (B*T, ...), or (v, B*T, ...)
        frames = 0 if len(features) == B * T else 1
        features = features.unflatten(frames, (B, T))
        if not getattr(self.head, "takes_frames", False):
            features = features.mean(frames + 1)
        return F.normalize(features, dim=-1) if unit_norm else features

    def forward(self, images: Tensor) -> Output:
        """Images (B, 3, H, W) or clips of frames (B, T, 3, H, W), normalised unless the model `takes_pixels`."""
        return self.compare(self.image_features(images, self.unit_norm))

    def compare(self, image_features: Tensor, text_features: Tensor | None = None) -> Output:
        """Features as the head takes them, normalised if `unit_norm`, to an output; without texts, its own ones."""
        text_features = self.text_for_head(image_features) if text_features is None else text_features
        with torch.autocast(image_features.device.type, enabled=False):           # cosines and losses in float32
            found = self.head(image_features, text_features, self.clip)
        logits, aux = found if isinstance(found, tuple) else (found, {})
        # Of a head that knows them, or reads more than one feature of an image.
        text_features = aux.pop("text_features", text_features)
        image_features = aux.pop("image_features", image_features)
        if not self.unit_norm:
            image_features = F.normalize(image_features, dim=-1)
            text_features = None if text_features is None else F.normalize(text_features, dim=-1)
        return Output(logits, image_features, text_features, aux)
