"""LinearProbe: CoOp's search of the penalty on features as the tower gives them, and which images it looked at."""
import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from dassl.engine import build_trainer
from dassl.utils import UserError


def features(trainer, batches):
    with torch.no_grad():
        pairs = [(trainer.model.clip.visual(images), labels) for images, labels in batches]
    return [torch.cat(values).numpy() for values in zip(*pairs)]


def literal_search(train, train_labels, val, val_labels):
    """The inverse penalty by which CoOp's lpclip ends: powers of 100 downwards, then eight steps of halving."""
    def accuracy(power):
        return LogisticRegression(C=10.0 ** power, max_iter=1000).fit(train, train_labels).score(val, val_labels)

    powers = [6, 4, 2, 0, -2, -4, -6]
    peak = powers[int(np.argmax([accuracy(p) for p in powers]))]
    low, high = peak - 1, peak + 1
    for _ in range(8):
        if accuracy(low) < accuracy(high):
            chosen, low = high, (low + high) / 2
        else:
            chosen, high = low, (low + high) / 2
    return chosen


@pytest.mark.parametrize("seed", [1, 2])
def test_the_penalty_is_sought_as_in_coops_linear_probe(make_cfg, seed):
    trainer = build_trainer(make_cfg("LinearProbe", seed=seed))
    trainer.train()
    train = features(trainer, trainer.training_images("test"))
    val = features(trainer, map(trainer.parse_batch_test, trainer.val_loader))
    solver = LogisticRegression(C=10.0 ** literal_search(*train, *val), max_iter=1000).fit(*train)
    torch.testing.assert_close(trainer.model.head.weight.detach(), torch.from_numpy(solver.coef_).float())
    torch.testing.assert_close(trainer.model.head.bias.detach(), torch.from_numpy(solver.intercept_).float())


def test_features_are_not_normalised(make_cfg):
    trainer = build_trainer(make_cfg("LinearProbe"))
    trainer.train()
    images = next(iter(trainer.test_loader))["img"]
    with torch.no_grad():
        head = trainer.model.head
        expected = trainer.model.clip.visual(images) @ head.weight.T + head.bias
        out = trainer.model(images)
    torch.testing.assert_close(out.logits, expected)
    torch.testing.assert_close(out.image_features.norm(dim=1), torch.ones(len(images)))


@pytest.mark.parametrize(("change", "words"), [
    (lambda dataset: None, "the penalty was chosen on the validation images"),
    (lambda dataset: setattr(dataset, "_val", dataset._test), "chosen on the test images, which are the validation"),
    (lambda dataset: setattr(dataset, "_val", None), "chosen on the training images, since there are no validation"),
])
def test_the_record_says_on_which_images_the_penalty_was_chosen(make_cfg, tmp_path, change, words):
    trainer = build_trainer(make_cfg("LinearProbe"))
    change(trainer.dm.dataset)
    trainer.val_loader = trainer.val_loader if trainer.dm.dataset.val else None
    trainer.train()
    assert words in json.loads((tmp_path / "run" / "results.json").read_text())["model_selection"]


def test_an_evaluation_alone_says_that_nothing_was_chosen(make_cfg, tmp_path):
    build_trainer(make_cfg("LinearProbe")).test()
    assert "only tested" in json.loads((tmp_path / "run" / "results.json").read_text())["model_selection"]


def test_no_epoch_is_chosen_on_validation_images_that_are_the_test_images(make_cfg):
    trainer = build_trainer(make_cfg("CoOp", "TEST.FINAL_MODEL", "best_val"))
    trainer.dm.dataset._val = list(trainer.dm.dataset.test)
    with pytest.raises(UserError, match="that of Toy is its test split.*Set TEST.FINAL_MODEL last_step"):
        trainer.train()
