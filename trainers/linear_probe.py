"""LinearProbe: logistic regression on frozen image features, its regularisation chosen on the validation images.

Source: CLIP (Radford et al., ICML 2021), section 3.2, few-shot as in CoOp (Zhou et al., IJCV 2022),
lpclip/linear_probe.py: features as the image tower gives them, not normalised; the inverse penalty C is first sought
over powers of 100, the largest of equals, then the interval around it is halved eight times, to the left of equals.
"""
import logging

import torch
from torch import Tensor

from clip import FrozenCLIP
from dassl.engine import TRAINER_REGISTRY
from trainers.cached_features import CachedFeatures
from trainers.features import FeatureTrainer
from trainers.parts.classes import Classes
from trainers.parts.heads import LinearHead
from trainers.parts.prompted_model import PromptedModel

logger = logging.getLogger(__name__)

_POWERS, _HALVINGS = (6, 4, 2, 0, -2, -4, -6), 8


@TRAINER_REGISTRY.register()
class LinearProbe(FeatureTrainer):
    """Attributes: chosen_on, the images on which the penalty was chosen; "" before."""

    learns, saved_as = "closed form", {"head.weight": "weight", "head.bias": "bias"}
    one_process_only, chosen_on = "its solver takes the features of all images at once", ""

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: None) -> PromptedModel:
        return PromptedModel(clip, head=LinearHead(clip, len(classes)), saved_as=cls.saved_as)

    @classmethod
    def bound_to_classes(cls, options: None) -> str:
        return "a row of weights for each class"

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        return {} if weights.keys() == {"weight", "bias"} and weights["weight"].dim() == 2 else None

    def run_epoch(self) -> None:
        train = self._features("train_x")
        val = self._features("val") if self.val_loader else train
        self.chosen_on = self._validation_images()
        best = max(_POWERS, key=lambda power: self._fit(power, train, val))          # the first of equals
        left, right = best - 1.0, best + 1.0
        for _ in range(_HALVINGS):
            middle, lefts, rights = (left + right) / 2, self._fit(left, train, val), self._fit(right, train, val)
            best, left, right = (right, middle, right) if lefts < rights else (left, left, middle)
        logger.info("C = 10^%.3f, accuracy on the %s %.1f%%", best, self.chosen_on, self._fit(best, train, val))

    def _validation_images(self) -> str:
        if self.val_is_test:
            return "test images, which are the validation images of this benchmark and of CoOp's linear probe"
        return "validation images" if self.val_loader else "training images, since there are no validation images"

    def run_record_fields(self) -> dict:
        chosen = {"model_selection": f"the penalty was chosen on the {self.chosen_on}"} if self.chosen_on else {}
        return {**super().run_record_fields(), **chosen}

    def _features(self, split: str) -> tuple[Tensor, Tensor]:
        features = CachedFeatures(self, split)
        return features.view().cpu(), features.labels.cpu()

    def _fit(self, power: float, train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor]) -> float:
        """Fit with C = 10^power, leave the weights in the head, and return the accuracy on `val`, percent."""
        from sklearn.linear_model import LogisticRegression

        solver = LogisticRegression(C=10.0 ** power, max_iter=1000).fit(train[0].numpy(), train[1].numpy())
        weight, bias = torch.from_numpy(solver.coef_).float(), torch.from_numpy(solver.intercept_).float()
        if len(weight) == 1:                     # two classes: one row of weights decides between them
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        head = self.model.head
        with torch.no_grad():
            head.weight.copy_(weight)
            head.bias.copy_(bias)
        right = (val[0] @ weight.T + bias).argmax(1).eq(val[1])
        return 100 * right.float().mean().item()
