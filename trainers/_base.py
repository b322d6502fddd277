"""PromptTrainer: the only class that joins frozen CLIP, the bricks and the training loop."""
from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property

from torch import Tensor, nn

from clip.templates import DEFAULT
from dassl.config import CfgNode
from dassl.engine import TrainerX
from dassl.engine.hooks.stages import refuse_all_images
from dassl.engine.once import training_images
from dassl.utils import UserError, count_num_param
from dassl.utils.classes_file import read_classes
from dassl.utils.tensor_cache import cached_tensor, file_facts
from trainers._build import build_to_train, infer
from trainers._checks import as_user_error, check_options
from trainers._geometry import Geometry
from trainers._memory import with_less_memory_if_need_be
from trainers.method import Method
from trainers.parts.classes import Classes
from trainers.parts.descriptions import load_descriptions
from trainers.parts.pairs import consistency
from trainers.parts.prompted_model import Output
from trainers.parts.tasks import only_classes
from trainers.seen import say_which_were_seen
from trainers.under_attack import attacked, check_attack

logger = logging.getLogger(__name__)


class PromptTrainer(Method, TrainerX):
    """Trains and tests a method: see `Method` for what it declares.

    Attributes:
        model: PromptedModel; `model.prompt_learner` alone is optimised and saved, as "prompt_learner".
    """

    resumes_within_epoch = True

    @property
    def options(self) -> CfgNode | None:
        return self.cfg.TRAINER[self.section] if self.section else None

    @cached_property
    def classes(self) -> Classes:
        """Of the dataset."""
        dataset, cfg = self.dm.dataset, self.cfg
        stem, own = getattr(dataset, "descriptions_stem", ""), getattr(dataset, "descriptions", None)
        return Classes(dataset.classnames, getattr(dataset, "template", None) or DEFAULT,
                       lambda kind, path: load_descriptions(kind, dataset.classnames, stem=stem, root=cfg.DATASET.ROOT,
                                                            path=path, own=own),
                       [cfg.TEST.get("SEEN_CLASSES", "auto") != "none"] * len(dataset.classnames), cfg.INPUT.SIZE[0],
                       cfg.SEED, getattr(dataset, "other_classnames", None))

    @property
    def precision(self) -> str:
        """What TRAINER.<section>.PREC means on this device."""
        return self.mixed.name

    @property
    def consistency_weights(self) -> tuple[float, float]:
        """Of CyCLIP's in-modal and cross-modal losses beside the method's own."""
        return self.cfg.TRAIN.get("CYCLIP_IN_MODAL", 0.0), self.cfg.TRAIN.get("CYCLIP_CROSS_MODAL", 0.0)

    def check_cfg(self, cfg: CfgNode) -> None:
        check_options(type(self), cfg)
        check_attack(type(self), cfg)

    def build_model(self) -> None:
        self.max_epoch = {"nothing": 0, "closed form": 1}.get(self.learns, self.max_epoch)
        if (without := getattr(self.dm.dataset, "captions_alone", "")) and self.learns != "nothing" \
                and not self.learns_pairs:
            raise UserError(f"{type(self).__name__} {without}")
        self.model, self.mixed = build_to_train(type(self), self.cfg, self.classes, self.device)
        self.hooks.insert(0, Geometry())
        learner = self.model.prompt_learner
        if self.learns != "nothing":
            self.register_prompts(learner)
        if any(self.consistency_weights):
            self._check_consistency()
        self.learned_parameters = count_num_param(params=[p for p in learner.parameters() if p.requires_grad])
        logger.info("%s learns %s parameters on %s, precision %s", type(self).__name__,
                    f"{self.learned_parameters:,}", self.model.clip.name, self.mixed.name)

    def _check_consistency(self) -> None:
        own_steps = [name for name in ("forward_backward", "gradients")
                     if getattr(type(self), name) is not getattr(PromptTrainer, name)]
        if self.learns != "steps" or own_steps:
            why = "takes steps of its own" if own_steps else "takes none"
            raise UserError("TRAIN.CYCLIP_IN_MODAL and CYCLIP_CROSS_MODAL add losses to those of a training step, and "
                            f"{type(self).__name__} {why}. Set both to 0.")
        self.one_process_only = self.one_process_only or "CyCLIP's losses compare the images of a whole batch"

    def weights_loaded(self, directory: str) -> None:
        say_which_were_seen(self.model, self.classes.names, self.cfg.DATASET.NAME, read_classes(directory),
                            self.cfg.TEST.get("SEEN_CLASSES", "auto"), directory)

    def register_prompts(self, learner: nn.Module) -> None:
        """Have the prompts optimised and saved: by one optimiser, as "prompt_learner"."""
        if self.learns == "steps":
            self.optim, self.sched = self.register_learner("prompt_learner", learner,
                                                           learner.groups(self.rates, self.cfg.OPTIM.LR))
        else:
            self.register_model("prompt_learner", learner)

    def forward_backward(self, batch: dict) -> dict[str, float]:
        images, label = self.parse_batch_train(batch)
        batch = {**batch, "img": images, "label": label}
        limit = self.model.clip if self.model.brick("text") is not None else None
        out, terms, loss = with_less_memory_if_need_be(limit, lambda: self.gradients(batch))
        summary = {"loss": loss, **self.measures(out, batch), **(terms if len(terms) > 1 else {})}
        values = self.finish_step(terms, summary, scaler=self.mixed.scaler)
        self.observe(out, batch)
        self.step_left_out()
        return values

    def output_for_loss(self, batch: dict) -> Output:
        """Of a training batch; where tasks follow each other, the classes of the other ones do not compete."""
        out = self.output(batch)
        if self.stages:
            out.logits = only_classes(out.logits, self.stages.mask(self.device))
        return out

    def gradients(self, batch: dict) -> tuple[Output, dict[str, Tensor], Tensor]:
        """Sets the gradients of a batch; returns its output, loss terms and their sum, all detached."""
        with self.mixed.autocast():
            out = self.output_for_loss(batch)
        terms = {**self.loss(out, batch), **self.consistency(out, batch)}
        loss = sum(terms.values())
        self.model_zero_grad()
        self.mixed.scaler.scaled(loss).backward()
        return out.detach(), {name: term.detach() for name, term in terms.items()}, loss.detach()

    def consistency(self, out: Output, batch: dict) -> dict[str, Tensor]:
        """CyCLIP's losses of a batch's pairs of an image and a text, those that have a weight."""
        if not any(weights := self.consistency_weights):
            return {}
        with as_user_error():
            return consistency(*self.pairs(out, batch), weights)

    def step_left_out(self) -> None:
        """What a step does also where nothing is updated: the schedule."""
        if self.schedule_per == "iteration" or self.batch_idx + 1 == self.num_batches:
            self.update_lr()

    def parse_batch_train(self, batch: dict) -> tuple[Tensor, Tensor]:
        return super().parse_batch_test(batch)

    def parse_batch_test(self, batch: dict) -> tuple[Tensor, Tensor]:
        """On the device; attacked as TEST.ATTACK says, unless a training is under way."""
        images, labels = super().parse_batch_test(batch)
        attack = "" if self.is_training else self.cfg.TEST.get("ATTACK", "")
        return (attacked(self, attack, images, labels) if attack else images), labels

    def training_state(self) -> dict:
        return {**super().training_state(), "scaler": self.mixed.scaler.state_dict(), "onednn": self.mixed.onednn}

    def load_training_state(self, state: dict) -> None:
        super().load_training_state(state)
        self.mixed.scaler.load_state_dict(state.get("scaler", {}))
        self.mixed.use_onednn(state.get("onednn", self.mixed.onednn))

    def model_inference(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, C)."""
        return infer(type(self), self.model, self.mixed, images, self.options)

    def cached(self, kind: str, compute: Callable[[], Tensor], **key) -> Tensor:
        """What needs data before the first step, e.g. prototypes: computed once and kept on disk, under `kind`.

        `key` is what it depends on besides towers, precision, training images, their transform and the seed; "images",
        "labels" and "seed" in it take the place of these.
        """
        if "images" not in key:
            refuse_all_images(self)
        cfg, clip, items = self.cfg, self.model.clip, self.dm.dataset.train_x
        key = {"weights": clip.sha256, "backbone": clip.name, "seed": cfg.SEED, "input": str(cfg.INPUT),
               "precision": self.precision, "labels": [item.label for item in items], **key}
        key.setdefault("images", file_facts([item.impath for item in items]))
        return cached_tensor(kind, key, compute).to(self.device)

    training_images = training_images

    def run_record_fields(self) -> dict:
        return {**super().run_record_fields(), "learned_parameters": self.learned_parameters,
                **({"attack": attack} if (attack := self.cfg.TEST.get("ATTACK", "")) else {}),
                **self.classifier_fields(), "precision": self.precision, "onednn_products": self.mixed.onednn}

    def classifier_fields(self) -> dict:
        clip = self.model.clip
        return {**super().classifier_fields(), "backbone": {"name": clip.name, "sha256": clip.sha256}}

