"""A head of sentences: what is said of each class, which visual prompt looks for it, and what it counts."""
from __future__ import annotations

import json
from collections.abc import Callable

import torch
from torch import Tensor, nn

from clip import FrozenCLIP, InputError


class DescriptionBank(nn.Module):
    """m sentences for each of C classes, each scored by one of v visual prompts, and a mapping from scores to logits.

    The sentences are drawn on first use. They are saved with the prompts, and so is which prompt scores them: a loaded
    bank draws nothing and needs no file. The text tower sees them once.

    Args:
        draw: gives m sentences for each class; called at most once.
        encode: sentences (N) to unit-norm features (N, D), e.g. `functools.partial(encode_texts, clip)`.
        mapping: scores (B, C, m) to logits (B, C).
        assign: features (C, m, D) to the prompt (C, m) in [0, v) that scores each; None has a single prompt.
    Attributes:
        prompt_of: (C, m) int64.
    """

    knows_classes, saved_name = True, "bank"

    def __init__(self, num_classes: int, m: int, draw: Callable[[], list[list[str]]],
                 encode: Callable[[list[str]], Tensor], mapping: nn.Module,
                 assign: Callable[[Tensor], Tensor] | None = None):
        super().__init__()
        self.draw, self.encode, self.assign, self.mapping = draw, encode, assign, mapping
        self.register_buffer("prompt_of", torch.zeros(num_classes, m, dtype=torch.int64))
        self.register_buffer("text", torch.empty(0, dtype=torch.uint8))     # JSON in UTF-8; empty until drawn or loaded
        self._features: Tensor | None = None
        self.register_load_state_dict_pre_hook(type(self)._make_room_for_text)

    @property
    def sentences(self) -> list[list[str]]:
        """C lists of m."""
        self.fill()
        return json.loads(bytes(self.text.tolist()))

    @property
    def features(self) -> Tensor:
        """(C, m, D), unit norm."""
        self.fill()
        return self._features

    def fill(self) -> None:
        """Draw the sentences, unless they were drawn or loaded before, and encode them, unless they are.

        Raises:
            InputError: not m sentences for each class.
        """
        if self._features is not None:
            return
        if self.text.numel():
            self._encode(json.loads(bytes(self.text.tolist())))
            return
        sentences, (C, m) = self.draw(), self.prompt_of.shape
        if {len(own) for own in sentences} != {m} or len(sentences) != C:
            raise InputError(f"{C} classes need {m} descriptions each, got {sorted({len(own) for own in sentences})} "
                             f"for {len(sentences)} classes.")
        self._encode(sentences)
        if self.assign is not None:
            self.prompt_of.copy_(self.assign(self._features))
        self.text = torch.frombuffer(bytearray(json.dumps(sentences).encode()), dtype=torch.uint8).to(self.text.device)

    @torch.inference_mode(False)               # kept, so they may meet a gradient later
    def _encode(self, sentences: list[list[str]]) -> None:
        self._features = self.encode([text for own in sentences for text in own]).unflatten(0, self.prompt_of.shape)

    def scores(self, image_features: Tensor, scale: Tensor) -> Tensor:
        """Each description's similarity with the image as its own prompt shows it.

        Args:
            image_features: (v, B, D), or (B, D) for a single prompt; unit norm.
            scale: () factor on cosines.
        Returns:
            (B, C, m)
        """
        texts = self.features.flatten(0, 1)                                       # (C*m, D)
        scores = scale * image_features @ texts.t()                               # (v, B, C*m) or (B, C*m)
        if scores.dim() == 3:
            scores = scores.gather(0, self.prompt_of.view(1, 1, -1).expand(1, scores.shape[1], -1))[0]
        return scores.unflatten(-1, self.prompt_of.shape)

    def forward(self, image_features: Tensor, text_features: None, clip: FrozenCLIP) -> tuple[Tensor, dict]:
        """Logits (B, C), the "scores" (B, C, m) that they come from, and the "text_features" (C, m, D)."""
        scores = self.scores(image_features, clip.scale)
        return self.mapping(scores), {"scores": scores, "text_features": self.features}

    def _make_room_for_text(self, state: dict, prefix: str, *_) -> None:
        if prefix + "text" in state:
            self.text = torch.empty_like(state[prefix + "text"], device=self.text.device)
            self._features = None
