"""PromptTrainer: the only class that joins frozen CLIP, the bricks and the training loop."""
from __future__ import annotations

import logging
from functools import cached_property

from torch import Tensor, nn

from clip.templates import DEFAULT
from dassl.config import CfgNode
from dassl.engine import TrainerX
from dassl.engine.once import training_images
from dassl.utils import UserError, count_num_param
from dassl.utils.classes_file import read_classes
from trainers._build import build_to_train, infer
from trainers._checks import check_options
from trainers._memory import with_less_memory_if_need_be
from trainers.cached import cached
from trainers.consistent import Consistent
from trainers.geometry import Geometry
from trainers.method import Method
from trainers.parts.classes import Classes
from trainers.parts.descriptions import load_descriptions
from trainers.parts.prompted_model import Output
from trainers.parts.tasks import only_classes
from trainers.seen import say_which_were_seen
from trainers.several_labels import SeveralLabels
from trainers.under_attack import UnderAttack, check_attack

logger = logging.getLogger(__name__)


class PromptTrainer(SeveralLabels, Consistent, UnderAttack, Method, TrainerX):
    """Trains and tests a method: see `Method` for what it declares.

    Attributes:
        model: PromptedModel; `model.prompt_learner` alone is optimised and saved, as "prompt_learner".
        precision: what TRAINER.<section>.PREC means on this device.
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

    def check_cfg(self, cfg: CfgNode) -> None:
        check_options(type(self), cfg)
        check_attack(type(self), cfg)

    def build_model(self) -> None:
        self.max_epoch = {"nothing": 0, "closed form": 1}.get(self.learns, self.max_epoch)
        if (without := getattr(self.dm.dataset, "captions_alone", "")) and self.learns != "nothing" \
                and not self.learns_pairs:
            raise UserError(f"{type(self).__name__} {without}")
        self.model, self.mixed = build_to_train(type(self), self.cfg, self.classes, self.device)
        self.precision = self.mixed.name
        self.hooks.insert(0, Geometry())
        learner = self.model.prompt_learner
        if self.learns != "nothing":
            self.register_prompts(learner)
        self.check_consistency(PromptTrainer)
        self.learned_parameters = count_num_param(params=[p for p in learner.parameters() if p.requires_grad])
        logger.info("%s learns %s parameters on %s, precision %s", type(self).__name__,
                    f"{self.learned_parameters:,}", self.model.clip.name, self.precision)

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
        batch = self.with_all_labels({**batch, "img": images, "label": label})
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

    def step_left_out(self) -> None:
        """What a step does also where nothing is updated: the schedule."""
        if self.schedule_per == "iteration" or self.batch_idx + 1 == self.num_batches:
            self.update_lr()

    def training_state(self) -> dict:
        return {**super().training_state(), "scaler": self.mixed.scaler.state_dict(), "onednn": self.mixed.onednn}

    def load_training_state(self, state: dict) -> None:
        super().load_training_state(state)
        self.mixed.scaler.load_state_dict(state.get("scaler", {}))
        self.mixed.use_onednn(state.get("onednn", self.mixed.onednn))

    def model_inference(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, C)."""
        return infer(type(self), self.model, self.mixed, images, self.options)

    cached, training_images = cached, training_images

    def run_record_fields(self) -> dict:
        return {**super().run_record_fields(), "learned_parameters": self.learned_parameters,
                **self.classifier_fields(), "precision": self.precision, "onednn_products": self.mixed.onednn}

    def classifier_fields(self) -> dict:
        clip = self.model.clip
        return {**super().classifier_fields(), "backbone": {"name": clip.name, "sha256": clip.sha256}}
