"""What a method declares: its facts, its model and its loss. `trainers._base.PromptTrainer` does everything else."""
from __future__ import annotations

import math
import sys
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.data.transforms import build_transform
from dassl.metrics import compute_accuracy
from trainers.parts.classes import Classes
from trainers.parts.losses import of_several_labels
from trainers.parts.pairs import pairs_of
from trainers.parts.prompted_model import Output, PromptedModel

POSITIVE = sys.float_info.min       # the least number above 0, among `bounds`


class Method:
    """Facts, which a method may set:

    section: its node under cfg.TRAINER, which is `options` everywhere below.
    saved_as: names of its parameters in the authors' checkpoints, which are read and written.
    learns: in "steps", in "closed form" (in one epoch, whose `run_epoch` is its own), or "nothing".
    adapts: what it learns from at test time: "" nothing; "image" each one by itself, forgotten after it; "stream" all
        that came before.
    needs_vit: it acts on the tokens of a vision transformer.
    normalised: images come normalised from the loader; not so where a prompt or an attack works in pixel space.
    border: it learns a border around a smaller image, whose side is INPUT.SIZE.
    bounds: least and largest value of numbers among its options, by their names; others must be finite, and whole ones
        at most 4096, so that a typing error does not take all memory.
    named_templates: words that its option TEMPLATES takes in place of sentences.
    rates: factors on OPTIM.LR for some bricks, by the names of `PromptedModel`'s arguments.
    schedule_per: "epoch", or "iteration" to step the learning rate after every batch.
    half_towers: fp16, amp and bf16 also keep the frozen towers in half precision; the first two scale the loss.
    learns_pairs: from images and their captions, so that it needs no classes.
    one_process_only: why it cannot learn in several processes; "" where it can.
    """

    section, saved_as, learns, adapts, schedule_per, one_process_only = "", {}, "steps", "", "epoch", ""
    needs_vit, normalised, border, half_towers, learns_pairs = False, True, False, True, False
    took_all_labels = False             # whether `loss` has met images of several labels and took all of these
    bounds: dict[str, tuple[float, float]] = {"LR": (0, math.inf), "TEXT_LR": (0, math.inf)}
    named_templates: tuple[str, ...] = ()
    rates: dict[str, float] = {}

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode | None) -> PromptedModel:
        """The model, untrained; needs no data."""
        raise TypeError(f"{cls.__name__} does not say what it learns; define build(cls, clip, classes, options).")

    @classmethod
    def bound_to_classes(cls, options: CfgNode | None) -> str:
        """What was learned for each class, so that it serves no others; "" where prompts serve any."""
        return ""

    @classmethod
    def options_of(cls, weights: dict[str, Tensor]) -> dict | None:
        """The options by which a checkpoint of this method was made, as far as its shapes tell; None: another's."""
        return None

    @classmethod
    def fits_prompts(cls, weights: dict[str, Tensor], prompts: int) -> bool:
        """Whether these weights, which are of this method by their shapes, go with the fixed words of so many prompts
        in the authors' checkpoint.
        """
        return True

    def inputs(self, batch: dict) -> Tensor:
        """The images of a training batch (B, 3, H, W), which a method may attack or augment."""
        return batch["img"]

    def output(self, batch: dict) -> Output:
        """Of the model for a training batch."""
        return self.model(self.inputs(batch))

    def loss(self, out: Output, batch: dict) -> dict[str, Tensor]:
        """Named loss terms, already weighted; their sum is minimised.

        Args:
            batch: as the loader gives it, with "img" and "label" on the device; with "labels" (B, C), 0 or 1, of images
                that have several.
        """
        if "labels" not in batch:
            return {"ce": F.cross_entropy(out.logits, batch["label"])}
        self.took_all_labels = True
        return {"ce": of_several_labels(out.logits, batch["labels"], getattr(self.model.head, "each_class", False))}

    def pairs(self, out: Output, batch: dict) -> tuple[Tensor, Tensor]:
        """Image features and the text of each image, both (B, D), unit norm: here, that of its class.

        Raises:
            InputError: several features of an image, or other than one text of a class.
        """
        return pairs_of(out.image_features, out.text_features, batch["label"], self.model.is_conditional)

    def measures(self, out: Output, batch: dict) -> dict[str, Tensor]:
        """What the log shows of a batch besides its loss."""
        return {"acc": compute_accuracy(out.logits, batch["label"])[0]}

    def observe(self, out: Output, batch: dict) -> None:
        """What else a training step takes from its output, once it was taken; nothing here."""

    def use_stand_ins(self) -> None:
        """Put random values where a step needs what is made from data before training, so that it can be timed."""

    @classmethod
    def starting_from(cls, options: CfgNode | None, weights: dict[str, Tensor],
                      learned_with: CfgNode) -> CfgNode | None:
        """The options with which a model takes over the weights of a run that it starts from; unchanged here.

        Args:
            learned_with: the options of that run's own method; empty for a file without a run's config.yaml.
        """
        return options

    @classmethod
    def test_transform(cls, cfg: CfgNode) -> Callable:
        """A PIL image to what `predict` gets of it: (3, H, W), or several views."""
        return build_transform(cfg, is_train=False)

    @classmethod
    def predict(cls, model: PromptedModel, images: Tensor, options: CfgNode | None) -> Tensor:
        """(B, 3, H, W) to logits (B, C). A method that `adapts` learns here; gradients are off until it asks.

        What one learns from a stream is kept in `model.stream`.
        """
        return model(images).logits
