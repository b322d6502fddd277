"""The metrics of ELEVATER's table: accuracy, mean accuracy per class, 11-point mAP and area under the ROC curve.

Source: ELEVATER (Li et al., NeurIPS 2022); the 11-point average precision is that of PASCAL VOC 2007 (Everingham et
al., IJCV 2010): the mean over recalls 0, 0.1 ... 1 of the best precision at this recall or above.
"""
from __future__ import annotations

from collections import OrderedDict

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
    found = []
    for own, true in zip(scores.T, truth.T, strict=True):
        if not true.any():
            continue
        hits = true[own.argsort(descending=True, stable=True)].cumsum(0)
        precision, recall = hits / torch.arange(1, len(hits) + 1), hits / true.sum()
        at = torch.arange(11, dtype=torch.float64) / 10
        best = [precision[recall.double() >= point - 1e-9].max() for point in at]
        found.append(torch.stack(best).mean())
    return float(torch.stack(found).mean())


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
