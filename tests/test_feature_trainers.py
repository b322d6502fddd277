"""Methods on kept features as trainers: what they choose and where, what they refuse, what they make of features."""
import json

import pytest
import torch
import torch.nn.functional as F

from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.utils import UserError
from tools import train
from trainers.cached_features import CachedFeatures
from trainers.features import FeatureTrainer
from trainers.parts.discriminant import discriminant
from trainers.selecting import SelectingTrainer

train.register()
METHODS = {name: TRAINER_REGISTRY.get(name) for name in sorted(TRAINER_REGISTRY.registered_names())}
ON_FEATURES = [name for name, method in METHODS.items() if issubclass(method, FeatureTrainer)
               and method.__module__.startswith("trainers.")]
CHOOSING = [name for name in ON_FEATURES if issubclass(METHODS[name], SelectingTrainer)]


def section(name):
    return f"TRAINER.{METHODS[name].section}."


def test_the_methods_are_seen():
    assert len(ON_FEATURES) >= 13 and len(CHOOSING) >= 5


@pytest.mark.parametrize(("name", "select", "words"), [
    *((name, "val", "on the validation images") for name in CHOOSING),
    (CHOOSING[0], "test", "on the test images"), (CHOOSING[0], "fixed", "nothing was selected on the test split")])
def test_the_record_says_on_which_images_was_chosen(name, select, words, make_cfg, tmp_path, caplog):
    build_trainer(make_cfg(name, section(name) + "SELECT", select)).train()
    assert words in json.loads((tmp_path / "run" / "results.json").read_text())["model_selection"]
    assert any("test images" in r.message for r in caplog.records if r.levelname == "WARNING") == (select == "test")


@pytest.mark.parametrize("name", CHOOSING)
def test_validation_images_are_needed_and_may_not_be_the_test_images(name, make_cfg):
    trainer = build_trainer(make_cfg(name))
    for val, words in ((trainer.dm.dataset._test, "its test images in their place"), (None, "and Toy has none")):
        trainer.dm.dataset._val = val
        trainer.val_loader = trainer.val_loader if val else None
        with pytest.raises(UserError, match=words):
            trainer.train()


@pytest.mark.parametrize("name", ["GDA", "LPPlusPlus", "CLAP", "APE", "APET", "ProtoNet"])
def test_a_class_without_images_is_named(name, make_cfg):
    trainer = build_trainer(make_cfg(name))
    trainer.dm.dataset._train_x = [item for item in trainer.dm.dataset.train_x if item.label != 2]
    with pytest.raises(UserError, match=r"classes \[2\] have none"):
        trainer.train()


@pytest.mark.parametrize("name", [name for name in ON_FEATURES if METHODS[name].view_of is FeatureTrainer.view_of
                                  and METHODS[name].learns == "steps"])
def test_a_training_takes_as_many_views_as_it_has_and_no_image_twice(name, make_cfg, own_cache, towers):
    build_trainer(make_cfg(name, section(name) + "VIEWS", 2, "OPTIM.MAX_EPOCH", 3)).train()
    assert sum(towers) == 2 * 16 + 24                   # views of the training images, and the test images


def test_gaussians_are_of_all_views_and_count_alpha_times(make_cfg):
    trainer = build_trainer(make_cfg("GDA", section("GDA") + "SELECT", "fixed", section("GDA") + "ALPHA", 3.0,
                                     "TEST.NO_TEST", True))
    trainer.train()
    features = F.normalize(trainer.train_features.views(range(10)), dim=-1)
    weight, bias = discriminant(features.flatten(0, 1), trainer.train_features.labels.repeat(10), 4)
    test = F.normalize(CachedFeatures(trainer, "test").view(), dim=-1)
    expected = 100 * test @ trainer.model.fixed_text.T + 3 * (test @ weight.T + bias)
    torch.testing.assert_close(trainer.model.compare(test).logits.detach(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("measure", ["cosine", "euclidean"])
def test_the_nearest_mean_is_found(measure, make_cfg):
    trainer = build_trainer(make_cfg("ProtoNet", section("ProtoNet") + "MEASURE", measure, "TEST.NO_TEST", True))
    trainer.train()
    train_x, test = (CachedFeatures(trainer, split) for split in ("train_x", "test"))
    support, query = train_x.view(), test.view()
    if measure == "cosine":
        support, query = F.normalize(support, dim=-1), F.normalize(query, dim=-1)
    means = torch.stack([support[train_x.labels == c].mean(0) for c in range(4)])
    expected = trainer.model.clip.scale * query @ F.normalize(means, dim=1).T if measure == "cosine" else \
        -torch.cdist(query, means).square()
    torch.testing.assert_close(trainer.of_features(test.view()).logits.detach(), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("name", "key", "value"), [
    ("GDA", "ALPHA", -1.0), ("GDA", "SELECT", "train"), ("LPPlusPlus", "STEPS", 0), ("APE", "SHARE", 0.0),
    ("APE", "GAMMAS", 0), ("ProtoNet", "MEASURE", "cos"), ("CLAP", "VIEWS", 0), ("ProLIP", "LAMBDA", -2.0),
    ("CLIPAdapter", "RATIO", 1.5), ("APET", "SHARE", 1.5), ("APET", "DISSIMILARITY", -0.5), ("APET", "CROPS", 0)])
def test_what_does_not_fit_is_refused(name, key, value, make_cfg):
    with pytest.raises(UserError, match=str(value)):
        build_trainer(make_cfg(name, section(name) + key, value))


def test_the_first_of_the_best_epochs_is_kept_where_one_is_chosen_on_validation_images(make_cfg, tmp_path):
    trainer = build_trainer(make_cfg("APET", "OPTIM.MAX_EPOCH", 4, "OPTIM.LR", 0.3, "TEST.NO_TEST", True))
    val, epochs, after = CachedFeatures(trainer, "val"), [], trainer.compare_with_best
    images, labels = F.normalize(val.view(), dim=-1), val.labels

    def judged():
        with torch.no_grad():
            logits = trainer.model.compare(images).logits
        epochs.append(((logits.argmax(1) == labels).sum().item(), trainer.model.head.residual.detach().clone()))
        after()

    trainer.compare_with_best = judged
    trainer.train()
    best = max(right for right, _ in epochs)
    expected = next(residual for right, residual in epochs if right == best)
    assert len(epochs) == 4 and torch.equal(trainer.model.head.residual, expected) and expected.any()
    assert trainer.chosen.startswith("the epoch, alpha and beta: chosen on the validation images")
