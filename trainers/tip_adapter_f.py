"""TipAdapterF: Tip-Adapter whose cached features learn.

Source: Tip-Adapter (Zhang et al., ECCV 2022), authors' code d0e2d6f, main.py run_tip_adapter_F. What is easily missed:
AdamW's epsilon is 1e-4; alpha and beta stay as they start while the keys learn, and are sought afterwards. The authors
take the epoch that is best on the test images: SELECT "test" does, and results.json then says so; otherwise it is the
last. Every epoch has random crops of its own, as theirs; they are a view of the training images and encoded once.
"""
import torch
from torch import Tensor, nn

from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers.tip_adapter import TipAdapter


@TRAINER_REGISTRY.register()
class TipAdapterF(TipAdapter):
    """Attributes:
        epoch_chosen_on: SELECT by which an epoch is chosen; with others it is the last.
        best: right answers and what was learned of the best epoch so far, where one is chosen.
    """

    learns, schedule_per, saved_as = "steps", "iteration", {"head.keys": "adapter.weight"}
    epoch_chosen_on: tuple[str, ...] = ("test",)
    best: tuple[float, list[Tensor] | None] = -1.0, None

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        if cfg.TEST.FINAL_MODEL == "best_val":
            raise UserError(f"{type(self).__name__} seeks alpha and beta after its last epoch, so TEST.FINAL_MODEL "
                            "cannot choose one on validation images. Set it to last_step.")

    def register_prompts(self, learner: nn.Module) -> None:
        self.model.head.make_room(len(self.dm.dataset.train_x))
        super().register_prompts(learner)

    def view_of(self, epoch: int) -> int:
        return self.options.CROPS + epoch

    def run_epoch(self) -> None:
        head = self.model.head
        head.alpha.fill_(self.options.ALPHA)
        head.beta.fill_(self.options.BETA)
        super(TipAdapter, self).run_epoch()

    def after_epoch(self) -> None:
        if self.options.SELECT in self.epoch_chosen_on:
            self.compare_with_best()
        if self.epoch + 1 == self.max_epoch:
            self.select()
        super().after_epoch()

    @torch.no_grad()
    def compare_with_best(self) -> None:
        learned, right = self.model.head.learned(), self.right_answers(*self.selection_images())
        if right > self.best[0]:
            self.best = right, [parameter.clone() for parameter in learned]
        if self.epoch + 1 == self.max_epoch:
            for parameter, value in zip(learned, self.best[1], strict=True):
                parameter.copy_(value)

    def select(self) -> None:
        super().select()
        if self.options.SELECT in self.epoch_chosen_on:
            self.chosen = self.chosen.replace("alpha", "the epoch, alpha", 1)
        elif self.chosen:
            self.chosen = f"the last epoch; {self.chosen}"

    def training_state(self) -> dict:
        return {**super().training_state(), "best": self.best}

    def load_training_state(self, state: dict) -> None:
        super().load_training_state(state)
        right, learned = state.get("best", self.best)
        self.best = right, learned and [value.to(self.device) for value in learned]
