"""Visual prompts that are made for each image from the texts of its likeliest classes.

Source: DPT (Xing et al., TMM 2023), class-aware visual prompt tuning (CAVPT); trainers/DPT.py.
"""
from __future__ import annotations

import logging
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import FrozenCLIP, InputError
from trainers.parts import devices
from trainers.parts.heads import CosineHead
from trainers.parts.prompted_model import Output, PromptedModel
from trainers.parts.visual_prompt import MOST_TOKENS

EXTRA, KEY_WIDTH = 10, 32               # learned keys added to an image's tokens, and their width; the code's constants

logger = logging.getLogger(__name__)


class ClassAwareLayer(nn.Module):
    """Prompts of one block: texts ask the image's tokens, with one head.

    Attributes:
        classify: scores of C classes from what a text found; for training alone.
    """

    def __init__(self, clip: FrozenCLIP, num_classes: int):
        super().__init__()
        W = clip.vision_width
        self.meta_net = nn.Linear(clip.embed_dim, W)
        self.key, self.query = (nn.Linear(W, KEY_WIDTH, bias=False) for _ in range(2))
        self.value, self.classify = nn.Linear(W, W, bias=False), nn.Linear(W, num_classes, bias=False)
        self.norm_found, self.norm_prompt = nn.LayerNorm(W), nn.LayerNorm(W)

    def forward(self, tokens: Tensor, extra: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Prompts (B, T, W) and scores (B, T, C).

        Args:
            tokens: (B, L, W), which get no gradient. extra: (EXTRA, W), the keys added to them. texts: (B, T, D).
        """
        keys = torch.cat([tokens.detach(), extra.to(tokens.dtype).expand(tokens.shape[0], -1, -1)], dim=1)
        texts = self.meta_net(texts)                                                          # (B, T, W)
        scores = self.query(texts) @ self.key(keys).transpose(1, 2) / math.sqrt(KEY_WIDTH)    # (B, T, L+EXTRA)
        found = self.value(scores.softmax(dim=-1).to(keys.dtype) @ keys)                      # (B, T, W)
        return self.norm_prompt(found + texts), self.classify(self.norm_found(found))


class ClassAwarePrompt(nn.Module):
    """A tuner of the image tower: learned tokens behind the patches of lower blocks, class-aware ones in the upper.

    Either kind is removed after its block. Scores of classes are no part of what the tower gives: of a file that was
    learned for another number of classes, they are left aside.

    Args:
        clip: its image tower must be a vision transformer.
        n_tokens: in each lower block.
        first: block, counted from 1, from which on prompts are class-aware.
        num_classes: C, that training tells apart.
    Attributes:
        tokens: (first - 1, n_tokens, W). extra: (k, EXTRA, W), keys and values of the k other blocks; both drawn from
            N(0, 0.02) with torch's global stream. upper: these blocks' layers, PyTorch's initial values.
        texts: (B, T, D) of the images that come next; scores: what the upper blocks said of them, (B, T, C) each.
    Raises:
        InputError: an image tower without tokens; a block or count that does not exist.
    """

    def __init__(self, clip: FrozenCLIP, n_tokens: int, first: int, num_classes: int):
        super().__init__()
        clip.require_tokens("A class-aware prompt")
        if not 1 <= first <= clip.depth:
            raise InputError(f"Class-aware prompts begin at one of the {clip.depth} blocks of "
                             f"{clip.name or 'this CLIP'}'s image tower, from 1, got {first}.")
        if not 1 <= n_tokens <= MOST_TOKENS:
            raise InputError(f"A visual prompt must learn 1 to {MOST_TOKENS} tokens, got {n_tokens}.")
        W, k = clip.vision_width, clip.depth - first + 1
        self.tokens = nn.Parameter(torch.randn(first - 1, n_tokens, W) * 0.02)
        self.upper = nn.ModuleList(ClassAwareLayer(clip, num_classes) for _ in range(k))
        self.extra = nn.Parameter(torch.randn(k, EXTRA, W) * 0.02)
        self.texts, self.scores = None, []
        self.register_load_state_dict_pre_hook(_leave_other_classes_aside)
        self.to(clip.logit_scale.device)

    def enter(self, block: int, x: Tensor) -> Tensor:
        """What enters `block` instead of x (B, L, W): prompts of its own, without those of the block before."""
        if block < 0:
            return x
        if block > 0:
            x = x[:, :-(self.tokens.shape[1] if block <= len(self.tokens) else self.texts.shape[1])]
        if block < len(self.tokens):
            prompts = self.tokens[block].expand(x.shape[0], -1, -1)                           # (B, n, W)
        else:
            i = block - len(self.tokens)
            prompts, scores = self.upper[i](x, self.extra[i], self.texts)                     # (B, T, W)
            self.scores.append(scores)
        return torch.cat([x, prompts.to(x.dtype)], dim=1)


def _leave_other_classes_aside(prompt: ClassAwarePrompt, state: dict, prefix: str, *_) -> None:
    for i, layer in enumerate(prompt.upper):
        name, own = f"{prefix}upper.{i}.classify.weight", layer.classify.weight
        if name in state and state[name].shape != own.shape:
            logger.info("%s scores %d classes and is left aside; only training asks it", name, len(state[name]))
            state[name] = own.detach().clone()


class UnnormalisedCosineHead(CosineHead):
    """Cosines of features as the towers give them, for a model that needs the texts so."""

    unit_norm = False

    def forward(self, image_features: Tensor, text_features: Tensor, clip: FrozenCLIP) -> Tensor:
        return super().forward(F.normalize(image_features, dim=-1), F.normalize(text_features, dim=-1), clip)


class ClassAwareModel(PromptedModel):
    """Frozen CLIP ranks the classes of an image; learned texts of the likeliest make its prompts.

    Args:
        frozen_text: (C, D) unit norm, of fixed sentences.
        top: T, classes whose texts ask, at most C.
        text, visual, saved_as: see `PromptedModel`; visual is a `ClassAwarePrompt`.
    Raises:
        InputError: fewer classes than T.
    """

    def __init__(self, clip: FrozenCLIP, *, frozen_text: Tensor, top: int, text: nn.Module, visual: ClassAwarePrompt,
                 saved_as: dict):
        super().__init__(clip, text=text, visual=visual, head=UnnormalisedCosineHead(), saved_as=saved_as)
        if not 1 <= top <= len(frozen_text):
            raise InputError("Class-aware prompts are made from the texts of an image's likeliest classes, 1 to all "
                             f"{len(frozen_text)} of them here, got {top}.")
        self.top = top
        self.register_buffer("frozen_text", frozen_text, persistent=False)

    def forward(self, images: Tensor) -> Output:
        """Images (B, 3, H, W) -> an output; in `aux`: "top" (B, T), the classes that asked; "layer_scores" (k, B, T, C)
        of k blocks; "frozen_images" (B, D), unit norm, of CLIP without prompts.
        """
        texts = self.text_for_head()
        features, found = self._look(images, texts)
        out = self.compare(features, texts)
        out.aux.update(found)
        return out

    def image_features(self, images: Tensor, unit_norm: bool = True) -> Tensor:
        features, _ = self._look(images, self.text_for_head())
        return F.normalize(features, dim=-1) if unit_norm else features

    def _look(self, images: Tensor, texts: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        visual = self.brick("visual")
        with torch.no_grad():
            frozen = self.clip.encode_image(images)                                           # (B, D)
            top = (frozen @ self.frozen_text.t()).topk(self.top, dim=1).indices               # (B, T)
        visual.texts, visual.scores = texts[top], []                                          # (B, T, D)
        features = self.clip.encode_image(images, visual, unit_norm=False)
        found = {"top": top, "layer_scores": torch.stack(visual.scores), "frozen_images": frozen}
        visual.texts, visual.scores = None, []
        return features, found


def layer_loss(scores: Tensor, top: Tensor, labels: Tensor) -> Tensor:
    """() cross-entropy of the scores of true classes' texts alone; 0 where no true class was among those that asked.

    Where there is none, a CPU gives no gradient, so that an optimiser leaves what made the scores alone, as in the
    authors' code. A GPU, which would have to wait for the host to look, gives gradients of zero.

    Args:
        scores: (k, B, T, C). top: (B, T) the class of each text. labels: (B,).
    """
    own = (top == labels[:, None]).expand(len(scores), -1, -1)                                # (k, B, T)
    if devices.reading_is_free(own) and not own.any():
        return scores.new_zeros(())
    target = labels[None, :, None].expand_as(own)
    each = F.cross_entropy(scores.float().flatten(0, 2), target.flatten(), reduction="none")
    return (each * own.flatten()).sum() / own.sum().clamp(min=1)
