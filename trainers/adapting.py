"""Trainers of methods that learn while they are tested: of each image by itself, or of a stream of them."""
from __future__ import annotations

from dassl.config import CfgNode
from dassl.data.image_order import in_order
from dassl.utils import UserError
from trainers._base import PromptTrainer


class AdaptingTrainer(PromptTrainer):
    """For methods that `adapts` is set for. Images come in an order of the seed's, each with its own random stream."""

    bounds = {**PromptTrainer.bounds, "VIEWS": (2, 1024)}       # the plain image and crops of it, all in memory

    def build_data_loader(self) -> None:
        super().build_data_loader()
        for name in ("val_loader", "test_loader"):
            if (loader := getattr(self, name)) is not None:
                loader.dataset.transform = self.test_transform(self.cfg)
                setattr(self, name, in_order(loader, self.cfg.SEED, shuffled=self.adapts == "stream"))

    def test_state(self) -> dict:
        return self.model.stream.state_dict() if self.model.stream else {}

    def load_test_state(self, state: dict | None) -> None:
        if self.model.stream:
            self.model.stream.reset() if state is None else self.model.stream.load_state_dict(state)

    def run_record_fields(self) -> dict:
        order = {"order_seed": self.test_loader.batch_sampler.sampler.seed} if self.adapts == "stream" else {}
        return {**super().run_record_fields(), "learned_at_test_time_from": self.adapts, **order}


def check_views(section: str, options: CfgNode) -> None:
    """Raises UserError for a share of several views that selects none."""
    if options.VIEWS > 1 and not (0 < options.SELECT <= 1 and options.VIEWS * options.SELECT >= 1):
        raise UserError(f"TRAINER.{section}.SELECT must be a share in (0, 1] that selects at least 1 of VIEWS "
                        f"{options.VIEWS}, got {options.SELECT}. Set more views or a larger share.")
