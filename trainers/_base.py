"""PromptTrainer: the only class that joins frozen CLIP, the bricks and the training loop."""
from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from clip import FrozenCLIP, load_clip
from clip.templates import DEFAULT
from dassl.data.data_manager import build_data_loader
from dassl.data.sharing import in_turns
from dassl.data.transforms import build_transform
from dassl.engine import TrainerX
from dassl.engine.hooks import progress
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import UserError, count_num_param, distributed
from dassl.utils.torchtools import load_initial_weights
from trainers import MAX_TOKENS
from trainers._graphs import RecordedStep
from trainers._memory import with_less_memory_if_need_be
from trainers._precision import PRECISIONS, MixedPrecision
from trainers._refusals import told_to_the_user
from trainers.parts.prompted_clip import Output, PromptedCLIP

logger = logging.getLogger(__name__)


class PromptTrainer(TrainerX):
    """What every prompt-learning trainer repeats, once.

    A method says what it learns (`build_prompts`) and what it minimises (`loss`). It may set:
        section: its node under cfg.TRAINER; `self.options` is that node.
        saved_as: names of its parameters in the authors' checkpoints, which are read and written.
        normalised: images come normalised from the loader; not so where a prompt works in pixel space.
        schedule_per: "epoch", or "iteration" to step the learning rate after every batch.
        half_towers: fp16, amp and bf16 also keep the frozen towers in half precision; the first two scale the loss.
        recordable: its loss depends on nothing but its arguments and what is learned (not on the epoch, say) and reads
            no number from a tensor, so that TRAIN.CUDA_GRAPHS can record a step.

    Attributes:
        model: PromptedCLIP; `model.prompt_learner` alone is optimised and saved, as "prompt_learner".
        classnames, template: of the dataset; the template has one {}.
    """

    section = ""
    saved_as: dict = {}
    normalised, schedule_per, half_towers, recordable = True, "epoch", True, False
    resumes_within_epoch = True

    def build_prompts(self, clip: FrozenCLIP) -> dict:
        """Arguments of `PromptedCLIP` other than the towers, e.g. {"text": TextPrompt(...)}."""
        raise TypeError(f"{type(self).__name__} does not say what it learns; define build_prompts(self, clip).")

    def build_classifier(self, clip: FrozenCLIP) -> nn.Module:
        """Maps images to an `Output`; has the towers as `clip` and what learns as `prompt_learner`."""
        prompts = self.build_prompts(clip)
        return PromptedCLIP(clip, **prompts, saved_as=self.saved_as)

    def loss(self, out: Output, label: Tensor) -> dict[str, Tensor]:
        """Named loss terms, already weighted; their sum is minimised."""
        return {"ce": F.cross_entropy(out.logits, label)}

    def observe(self, out: Output, label: Tensor) -> None:
        """What else a training step takes from its output, once its loss is known to be finite; nothing here."""

    @property
    def precision(self) -> str:
        """What TRAINER.<section>.PREC means on this device."""
        return self.mixed.name

    @property
    def options(self):
        return self.cfg.TRAINER[self.section]

    @property
    def classnames(self) -> list[str]:
        return self.dm.dataset.classnames

    @property
    def template(self) -> str:
        return getattr(self.dm.dataset, "template", None) or DEFAULT

    def check_cfg(self, cfg) -> None:
        if self.section and (prec := cfg.TRAINER[self.section].get("PREC", "fp32")) not in PRECISIONS:
            raise UserError(f"TRAINER.{self.section}.PREC is one of {', '.join(PRECISIONS)}; got {prec!r}.")
        if self.section and (empty := [key for key, value in cfg.TRAINER[self.section].items() if value is None]):
            raise UserError(f"TRAINER.{self.section}.{empty[0]} has no value (None); leave it out for its default.")
        if (tokens := cfg.TRAIN.get("MAX_TOKENS", MAX_TOKENS)) < 0:
            raise UserError(f"TRAIN.MAX_TOKENS is a number of text tokens, or 0 for no limit; got {tokens}.")
        if not cfg.INPUT.NO_TRANSFORM and ("normalize" in cfg.INPUT.TRANSFORMS) != self.normalised:
            name, transforms = type(self).__name__, tuple(cfg.INPUT.TRANSFORMS)
            raise UserError(
                f"{name} gives CLIP normalised images; add \"normalize\" to INPUT.TRANSFORMS, which is {transforms}."
                if self.normalised else
                f"{name} learns pixels and normalises the image after them; take \"normalize\" out of "
                f"INPUT.TRANSFORMS, which is {transforms}.")

    def build_model(self) -> None:
        with told_to_the_user():
            clip = load_clip(self.cfg.MODEL.BACKBONE.NAME, self.device)
            clip.max_tokens = self.cfg.TRAIN.get("MAX_TOKENS", MAX_TOKENS)
            self._check_image_size(clip)
            self.mixed = MixedPrecision(clip, self.options.get("PREC", "fp32") if self.section else "fp32",
                                        self.half_towers)
            if self.cfg.TRAIN.get("COMPILE", False):
                clip.compile_image_blocks()
            self.model = self.build_classifier(clip).to(self.device)
        learner = self.model.prompt_learner
        self.learned_parameters = count_num_param(learner)
        logger.info("%s learns %s parameters on %s, precision %s", type(self).__name__,
                    f"{self.learned_parameters:,}", clip.name, self.precision)
        if not self.learned_parameters:
            return
        if self.cfg.MODEL.INIT_WEIGHTS:
            load_initial_weights(learner, self.cfg.MODEL.INIT_WEIGHTS)
        self.register_prompts(learner)

    def register_prompts(self, learner: nn.Module) -> None:
        """Have the prompts optimised and saved: by one optimiser, as "prompt_learner"."""
        self.optim, self.sched = self.register_learner("prompt_learner", learner)

    def register_learner(self, name: str, learner: nn.Module) -> tuple[Optimizer, LRScheduler]:
        """Register a module with an optimiser and a schedule of its own."""
        optim = build_optimizer(learner, self.cfg.OPTIM)
        steps = len(self.train_loader_x) if self.schedule_per == "iteration" else 1
        sched = build_lr_scheduler(optim, self.cfg.OPTIM, steps_per_epoch=steps)
        self.register_model(name, learner, optim, sched)
        return optim, sched

    def forward_backward(self, batch: dict) -> dict[str, float]:
        images, label = self.parse_batch_train(batch)
        limit = self.model.clip if "text" in dict(self.model.prompt_learner.named_children()) else None
        out, terms, loss = with_less_memory_if_need_be(limit, lambda: self.gradients(images, label))
        summary = {"loss": loss, "acc": compute_accuracy(out.logits, label)[0], **(terms if len(terms) > 1 else {})}
        values = self.finish_step(terms, summary, scaler=self.mixed.scaler)
        self.observe(out, label)
        if self.schedule_per == "iteration" or self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return values

    @cached_property
    def gradients(self) -> Callable[[Tensor, Tensor], tuple[Output, dict[str, Tensor], Tensor]]:
        """Sets the gradients of a batch; returns output, terms and loss. Recorded where TRAIN.CUDA_GRAPHS asks for it.

        Raises:
            UserError: it is asked for, and the trainer does not say that it is `recordable`.
        """
        if not self.cfg.TRAIN.get("CUDA_GRAPHS", False):
            return self._gradients
        if self.device.type != "cuda":
            logger.warning("TRAIN.CUDA_GRAPHS records the steps of a GPU; this run is on the %s.", self.device.type)
            return self._gradients
        if distributed.world_size() > 1:
            raise UserError("TRAIN.CUDA_GRAPHS is for runs of one process: how many images of a batch are its own may "
                            "change from step to step. Set TRAIN.CUDA_GRAPHS False.")
        if not self.recordable:
            raise UserError(f"TRAIN.CUDA_GRAPHS is for trainers that say `recordable = True`, whose loss depends on "
                            f"nothing but its arguments; {type(self).__name__} does not. Set TRAIN.CUDA_GRAPHS False.")
        return RecordedStep(self._gradients, self.model.prompt_learner.parameters())

    def _gradients(self, images: Tensor, label: Tensor) -> tuple[Output, dict[str, Tensor], Tensor]:
        with self.mixed.autocast():
            out = self.model(images)
        terms = self.loss(out, label)
        loss = sum(terms.values())
        self.model_zero_grad()
        self.mixed.scaler.scaled(loss).backward()
        return out.detach(), {name: term.detach() for name, term in terms.items()}, loss.detach()

    def step_left_out(self) -> None:
        if self.schedule_per == "iteration" or self.batch_idx + 1 == self.num_batches:
            self.update_lr()

    def parse_batch_train(self, batch: dict) -> tuple[Tensor, Tensor]:
        return self.parse_batch_test(batch)

    def training_state(self) -> dict:
        return {**super().training_state(), "scaler": self.mixed.scaler.state_dict(), "onednn": self.mixed.onednn}

    def load_training_state(self, state: dict) -> None:
        super().load_training_state(state)
        self.mixed.scaler.load_state_dict(state.get("scaler", {}))
        self.mixed.use_onednn(state.get("onednn", self.mixed.onednn))

    def model_inference(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, C); without gradients."""
        with torch.inference_mode(), self.mixed.autocast():
            return self.model(images).logits

    def training_images(self, view: str = "train", shared: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """The labelled training images in their order, nothing dropped: (images (B, 3, H, W), labels (B,)).

        Args:
            view: "train" for the training transform (random crops), "test" for the test transform.
            shared: each of several processes sees its part of the batches; otherwise every one sees all.
        """
        loader = build_data_loader(self.cfg, sampler_type="SequentialSampler", data_source=self.dm.dataset.train_x,
                                   batch_size=self.cfg.DATALOADER.TEST.BATCH_SIZE, is_train=False,
                                   tfm=build_transform(self.cfg, is_train=view == "train"),
                                   cache=getattr(self.dm, "image_cache", None))
        with in_turns(loader) if shared else contextlib.nullcontext():
            for batch in progress.over(loader, "training images, once"):
                yield self.on_device(batch["img"], batch["label"])

    def run_record_fields(self) -> dict:
        clip = self.model.clip
        return {**super().run_record_fields(), "learned_parameters": self.learned_parameters,
                "backbone": {"name": clip.name, "sha256": clip.sha256}, "precision": self.precision,
                "onednn_products": self.mixed.onednn}

    def classifier_fields(self) -> dict:
        clip = self.model.clip
        return {**super().classifier_fields(), "backbone": {"name": clip.name, "sha256": clip.sha256}}

    def _check_image_size(self, clip: FrozenCLIP) -> None:
        if set(self.cfg.INPUT.SIZE) != {clip.image_size}:
            raise UserError(f"{clip.name} takes {clip.image_size} x {clip.image_size} images and INPUT.SIZE is "
                            f"{tuple(self.cfg.INPUT.SIZE)}. Set INPUT.SIZE \"({clip.image_size}, {clip.image_size})\" "
                            "or choose another MODEL.BACKBONE.NAME.")
        cfg_mean, cfg_std = self.cfg.INPUT.PIXEL_MEAN, self.cfg.INPUT.PIXEL_STD
        if not torch.allclose(torch.tensor([*cfg_mean, *cfg_std]), torch.tensor([*clip.mean, *clip.std]), atol=1e-4):
            logger.warning("INPUT.PIXEL_MEAN %s and PIXEL_STD %s are not those %s was trained with: %s and %s",
                           cfg_mean, cfg_std, clip.name, clip.mean, clip.std)
