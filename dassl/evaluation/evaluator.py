"""Accuracy, top-5, macro-F1, calibration, accuracy per class and the confusion matrix of one pass over a split."""
from __future__ import annotations

import logging
import os.path as osp
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from dassl.compat.passed_on import passed_on
from dassl.metrics import calibration
from dassl.utils.errors import UserError
from dassl.utils.logger import tell

from .build import EVALUATOR_REGISTRY

logger = logging.getLogger(__name__)
__getattr__ = passed_on(__name__)


TOP = 5                     # its accuracy is reported where there are more classes


class EvaluatorBase:
    """What a trainer's `test()` calls: reset, process per batch, evaluate.

    Attributes:
        per_class: class name -> accuracy in percent, once evaluated; {} where it measures none.
    """

    per_class: Mapping[str, float] = {}

    def __init__(self, cfg):
        self.cfg = cfg

    def reset(self) -> None:
        raise TypeError(f"{type(self).__name__} does not define reset().")

    def process(self, mo: Tensor, gt: Tensor) -> None:
        raise TypeError(f"{type(self).__name__} does not define process(mo, gt).")

    def evaluate(self) -> OrderedDict:
        raise TypeError(f"{type(self).__name__} does not define evaluate().")


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    """Counts right answers. The first value of `evaluate()` is the accuracy."""

    def __init__(self, cfg, lab2cname: dict[int, str] | None = None, **kwargs):
        super().__init__(cfg)
        self._lab2cname = lab2cname
        if cfg.TEST.PER_CLASS_RESULT and lab2cname is None:
            raise UserError("TEST.PER_CLASS_RESULT needs the class names: build the evaluator with lab2cname.")
        Classification.reset(self)              # a subclass's own may need what its constructor sets after this

    def reset(self) -> None:
        self._correct, self._total, self.per_class = 0, 0, {}
        self._y_true: list[int] = []            # labels image by image, as subclasses in public code read them
        self._y_pred: list[int] = []
        self._per_class_res = defaultdict(list) if self.cfg.TEST.PER_CLASS_RESULT else None     # likewise; 1 if right
        self._said: list[Tensor] = []           # (2, B) of each batch: confidence, and -log of the true class's
        self._top: list[Tensor] = []            # (B,) bool: the label is among the five best; of more than five classes

    def process(self, mo: Tensor | tuple, gt: Tensor) -> None:
        """mo: (B, C) scores (of a tuple the first item); gt: (B,) labels."""
        mo = mo[0] if isinstance(mo, (tuple, list)) else mo
        if mo.isnan().any():
            raise UserError(f"{int(mo.isnan().any(dim=1).sum())} of {len(mo)} images have scores that are NaN: "
                            "something that was loaded or learned is not finite. Take an earlier checkpoint, or "
                            "compute in fp32 (TRAINER.<NAME>.PREC fp32).")
        pred, gt = mo.argmax(dim=1).cpu(), gt.cpu()                                     # (B,)
        self._correct += int((pred == gt).sum())
        self._total += len(gt)
        self._y_true += gt.tolist()
        self._y_pred += pred.tolist()
        if self._per_class_res is not None:
            for label, right in zip(gt.tolist(), (pred == gt).int().tolist(), strict=True):
                self._per_class_res[label].append(right)
        if int(gt.max()) < mo.shape[1]:
            log = mo.detach().float().log_softmax(dim=1).cpu()
            self._said.append(torch.stack([log.gather(1, pred[:, None]).exp(), -log.gather(1, gt[:, None])])[..., 0])
            if mo.shape[1] > TOP:
                self._top.append((mo.topk(TOP, dim=1).indices.cpu() == gt[:, None]).any(dim=1))

    def evaluate(self) -> OrderedDict:
        """accuracy, error_rate and macro_f1 (and perclass_accuracy on request), percent, logged in Dassl's lines; top5,
        percent, of more than five classes; and how well confidences fit, see `dassl.metrics.calibration`.
        """
        if not self._y_true:
            raise UserError("Nothing was evaluated: the split has no batch.")
        true, pred = torch.tensor(self._y_true), torch.tensor(self._y_pred)
        total, correct = self._total, self._correct
        accuracy = 100.0 * correct / total
        results = OrderedDict(accuracy=accuracy, error_rate=100.0 - accuracy, macro_f1=100.0 * macro_f1(true, pred))
        tell(logger, "=> result\n* total: %s\n* correct: %s\n* accuracy: %.1f%%\n* error: %.1f%%\n* macro_f1: %.1f%%",
             f"{total:,}", f"{correct:,}", *results.values())
        mean = self._per_class(true, pred)
        if self.cfg.TEST.PER_CLASS_RESULT:
            results["perclass_accuracy"] = mean
        if self.cfg.TEST.COMPUTE_CMAT:
            path = osp.join(self.cfg.OUTPUT_DIR, "cmat.pt")
            torch.save(confusion_matrix(true, pred), path)
            logger.info('Confusion matrix is saved to "%s"', path)
        top = torch.cat(self._top) if self._top else torch.zeros(0)
        if len(top) == total:
            results["top5"] = 100.0 * top.double().mean().item()
        results.update(self._calibration(true == pred))
        return results

    def _calibration(self, correct: Tensor) -> dict[str, float]:
        """Empty where a subclass processes batches by itself, or a label has no score."""
        said = torch.cat(self._said, dim=1) if self._said else torch.zeros(2, 0)
        if said.shape[1] != len(correct):
            return {}
        found = calibration.measures(said[0], correct, said[1])
        logger.info("Calibration: ECE %.2f%%, adaptive ECE %.2f%%, negative log-likelihood %.4f", *found.values())
        return found

    def _per_class(self, true: Tensor, pred: Tensor) -> float:
        """Sets `per_class`, for the classes that have an image; returns its mean. Logged with TEST.PER_CLASS_RESULT."""
        totals, correct = torch.bincount(true), torch.bincount(true[true == pred], minlength=int(true.max()) + 1)
        names = {label: str((self._lab2cname or {}).get(label, label)) for label in totals.nonzero().flatten().tolist()}
        twice = Counter(names.values())
        lines, self.per_class = ["=> per-class result"], {}
        for label, name in names.items():
            total, right = int(totals[label]), int(correct[label])
            accuracy = self.per_class[name if twice[name] == 1 else f"{name} ({label})"] = 100.0 * right / total
            lines.append(f"* class: {label} ({name})\ttotal: {total:,}\tcorrect: {right:,}\tacc: {accuracy:.1f}%")
        mean = sum(self.per_class.values()) / len(names)
        if self.cfg.TEST.PER_CLASS_RESULT:
            logger.info("%s", "\n".join([*lines, f"* average: {mean:.1f}%"]))
        return mean


def macro_f1(true: Tensor, pred: Tensor) -> float:
    """Mean over the classes present in `true` of 2 TP / (2 TP + FP + FN); in [0, 1]."""
    K = int(torch.maximum(true.max(), pred.max())) + 1
    counts = (torch.bincount(labels, minlength=K).double() for labels in (true[true == pred], true, pred))
    hit, of_true, of_pred = counts
    return (2 * hit / (of_true + of_pred))[of_true > 0].mean().item()


def confusion_matrix(true: Tensor, pred: Tensor) -> Tensor:
    """(K, K) float64 over the labels that occur in either; rows are true classes and sum to 1, or 0 if absent."""
    labels = torch.cat([true, pred]).unique()
    K = len(labels)
    pairs = torch.searchsorted(labels, true) * K + torch.searchsorted(labels, pred)
    counts = torch.bincount(pairs, minlength=K * K).reshape(K, K).double()
    return counts / counts.sum(1, keepdim=True).clamp(min=1)
