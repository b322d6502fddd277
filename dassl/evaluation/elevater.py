"""The metrics of ELEVATER's table: accuracy, mean accuracy per class, 11-point mAP and area under the ROC curve.

Source: ELEVATER (Li et al., NeurIPS 2022), Elevater_Toolkit_IC, vision_benchmark/evaluation/metric.py, which takes them
from microsoft/vision-evaluation. Scores are probabilities of a softmax, of several labels too. The 11-point average
precision is the mean over recalls 0, 0.1 ... 1 of the best precision at this recall or above (Everingham et al., IJCV
2010); as scikit-learn's curve begins with a precision of 1 at recall 0, so does theirs.
"""
from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

from dassl.utils.errors import UserError

from .build import EVALUATOR_REGISTRY
from .evaluator import Classification


@EVALUATOR_REGISTRY.register()
class ElevaterMetric(Classification):
    """`Classification` with the metric of the dataset's card as its first value, percent.

    Attributes:
        dataset, split: what is tested, with `card.metric` and `truth(split)`; set by the trainer.
    """

    dataset, split = None, "test"

    def __init__(self, cfg, lab2cname: dict[int, str] | None = None, **kwargs):
        super().__init__(cfg, lab2cname, **kwargs)
        self.reset()

    def reset(self) -> None:
        super().reset()
        self._scores: list[Tensor] = []

    def process(self, mo: Tensor | tuple, gt: Tensor) -> None:
        super().process(mo, gt)
        mo = mo[0] if isinstance(mo, (tuple, list)) else mo
        self._scores.append(mo.detach().float().cpu())

    def evaluate(self) -> OrderedDict:
        results = super().evaluate()
        name = self.dataset.card.metric
        if name == "accuracy":
            return results
        scores, truth = torch.cat(self._scores), self.dataset.truth(self.split)
        value = {"mean_per_class": mean_per_class, "map_11_points": map_11_points, "roc_auc": roc_auc}[name](
            scores, truth)
        return OrderedDict([(name, 100.0 * value), *results.items()])


def mean_per_class(scores: Tensor, truth: Tensor) -> float:
    """Mean over the classes that occur of the share of their images that are answered right.

    Args:
        scores: (N, C). truth: (N, C), one 1 in each row.
    """
    right = scores.argmax(1) == truth.argmax(1)
    shares = (truth * right[:, None]).sum(0) / truth.sum(0).clamp(min=1)
    return float(shares[truth.sum(0) > 0].mean())


def map_11_points(scores: Tensor, truth: Tensor) -> float:
    """Mean over the classes that occur of the 11-point average precision; (N, C) both, several 1 in a row."""
    from sklearn.metrics import precision_recall_curve

    found = []
    for own, true in zip(scores.double().softmax(1).T.numpy(), truth.T.numpy(), strict=True):
        if true.any():
            precision, recall, _ = precision_recall_curve(true, own)
            found.append(np.mean([precision[recall >= point].max() for point in np.linspace(1, 0, 11)]))
    return float(np.mean(found))


def roc_auc(scores: Tensor, truth: Tensor) -> float:
    """Area under the ROC curve of the second of two classes, by its probability.

    Raises:
        UserError: not two classes, or only one of them occurs.
    """
    from sklearn.metrics import roc_auc_score

    if scores.shape[1] != 2 or len(truth.argmax(1).unique()) != 2:
        raise UserError(f"The area under the ROC curve takes two classes that both occur, got {scores.shape[1]} "
                        f"classes, of which {len(truth.argmax(1).unique())} occur.")
    return float(roc_auc_score(truth.argmax(1).numpy(), scores.softmax(1)[:, 1].numpy()))
