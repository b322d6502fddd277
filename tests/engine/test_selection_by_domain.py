"""Where the validation images are of several domains, an epoch is chosen by the mean of the domains' accuracies."""
from types import SimpleNamespace

import torch

from dassl.engine.hooks.domains import Domains


class _Trainer(SimpleNamespace):
    def load_test_state(self, state):
        pass


def test_each_domain_counts_alike_however_many_images_it_has(monkeypatch):
    dataset = SimpleNamespace(test_domains=["photo"], val_domains=["art", "sketch"])
    monkeypatch.setattr("dassl.engine.hooks.domains.dataset_of", lambda trainer: dataset)
    hook, trainer = Domains(), _Trainer(cfg=SimpleNamespace(TEST={}))
    assert hook.mean(12.5) == 12.5
    hook.before_test(trainer, False)
    right, wrong = torch.eye(2)[[0, 0, 0]], torch.eye(2)[[1]]
    hook.answered(trainer, {"domain": torch.tensor([0, 0, 0])}, right, torch.zeros(3, dtype=torch.long))
    hook.answered(trainer, {"domain": torch.tensor([1])}, wrong, torch.zeros(1, dtype=torch.long))
    assert hook.mean(75.0) == 50.0
    assert list(hook.fields(trainer, "val")["domains"]) == ["art", "sketch"]
