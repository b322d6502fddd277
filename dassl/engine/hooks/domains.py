"""Test images of several domains, one after the other: results of each, and learning that starts again at each."""
from __future__ import annotations

import logging

from dassl.utils.logger import tell

from . import Hook
from .record import dataset_of

logger = logging.getLogger(__name__)


class Domains(Hook):
    """Counts right answers by domain. With TEST.RESET, what was learned from test images is forgotten at a new domain.

    Attributes:
        counts: {domain: [images, right ones]} of the current test.
    """

    counts: dict[int, list[int]] = {}

    def before_test(self, trainer, final: bool) -> None:
        self.counts = {}
        trainer.load_test_state(None)

    def before_answer(self, trainer, batch) -> None:
        domain = _domains(batch)[:1]
        if self.counts and domain and domain[0] not in self.counts and trainer.cfg.TEST.get("RESET", False):
            trainer.load_test_state(None)

    def answered(self, trainer, batch, output, label) -> None:
        domains = _domains(batch)
        if not getattr(dataset_of(trainer), "test_domains", ()) or len(domains) != len(label):
            return
        right = (output.argmax(dim=1) == label).tolist()
        for domain, is_right in zip(domains, right, strict=True):
            count = self.counts.setdefault(domain, [0, 0])
            count[0] += 1
            count[1] += is_right

    def mean(self, accuracy: float) -> float:
        """Of the domains' accuracies in the last test, percent; `accuracy` where the dataset names no domains."""
        found = [100.0 * right / images for images, right in self.counts.values()]
        return sum(found) / len(found) if found else accuracy

    def fields(self, trainer, split: str) -> dict:
        """What results.json says of the domains of a split: {} where the dataset names none."""
        if not self.counts:
            return {}
        dataset = dataset_of(trainer)
        names = dataset.val_domains if split == "val" and dataset.val_domains else dataset.test_domains
        accuracies = {names[domain]: 100.0 * right / images for domain, (images, right) in self.counts.items()}
        errors = {name: 100.0 - accuracy for name, accuracy in accuracies.items()}
        mean = sum(errors.values()) / len(errors)
        tell(logger, "=> error by domain\n%s\n* mean: %.1f%%",
             "\n".join(f"* {name}: {error:.1f}%" for name, error in errors.items()), mean)
        return {"domains": {name: {"images": count[0], "accuracy": accuracy, "error_rate": errors[name]}
                            for (name, accuracy), count in zip(accuracies.items(), self.counts.values(), strict=True)},
                "mean_error": mean, "reset_at_each_domain": bool(trainer.cfg.TEST.get("RESET", False))}


def _domains(batch) -> list[int]:
    found = batch.get("domain") if isinstance(batch, dict) else None
    return [] if found is None else found.tolist() if hasattr(found, "tolist") else list(found)
