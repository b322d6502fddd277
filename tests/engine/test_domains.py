"""Dassl's datasets of several domains in their published layout, and its baseline trainers on them."""
import importlib
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dassl.data.datasets import Datum, build_dataset
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.modeling import BACKBONE_REGISTRY, Backbone
from dassl.utils import UserError

NAMES = ["dog", "house"]
ART, PHOTO = "art_painting", "photo"


@BACKBONE_REGISTRY.register()
class SmallCNN(Backbone):
    def __init__(self, pretrained=False, **kwargs):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self._out_features = 4

    def forward(self, x):
        return self.layers(x)


def lines(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")


@pytest.fixture
def touch(tmp_path):
    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()

    return make


@pytest.fixture
def dataset(engine_cfg, tmp_path):
    def make(name, source, target):
        return build_dataset(engine_cfg(DATASET__NAME=name, DATASET__ROOT=str(tmp_path), DATASET__SOURCE_DOMAINS=source,
                                        DATASET__TARGET_DOMAINS=target))

    return make


def told(items: list[Datum], root: Path) -> list[tuple]:
    return [(str(Path(d.impath).relative_to(root)), d.label, d.domain, d.classname) for d in items]


def test_pacs_counts_labels_from_one_tests_on_whole_domains_and_skips_the_broken_image(dataset, tmp_path):
    for domain in (ART, "sketch"):
        for part, number in (("train", 0), ("crossval", 1)):
            lines(tmp_path / f"pacs/splits/{domain}_{part}_kfold.txt",
                  *(f"{domain}/{name}/{number}.jpg {label + 1}" for label, name in enumerate(NAMES)),
                  *(["sketch/dog/n02103406_4068-1.png 1"] if domain == "sketch" else []))
    found = dataset("PACS", [ART], ["sketch"])
    assert told(found.train_x, tmp_path / "pacs/images") == [(f"{ART}/dog/0.jpg", 0, 0, "dog"),
                                                             (f"{ART}/house/0.jpg", 1, 0, "house")]
    assert [d.impath[-5:] for d in found.val] == ["1.jpg"] * 2
    assert [Path(d.impath).name for d in found.test] == ["0.jpg", "0.jpg", "1.jpg", "1.jpg"]
    assert found.classnames == NAMES


def test_vlcs_reads_upper_case_domains_and_knows_its_classes(dataset, touch, tmp_path):
    touch(*(f"VLCS/{domain}/{part}/{label}/a.jpg" for domain in ("CALTECH", "SUN", "PASCAL")
            for part in ("train", "crossval", "test") for label in range(5)))
    found = dataset("VLCS", ["caltech", "sun"], ["pascal"])
    assert found.classnames == ["bird", "car", "chair", "dog", "person"]
    assert [d.domain for d in found.train_x] == [0] * 5 + [1] * 5 and len(found.test) == 5
    assert all("/PASCAL/test/" in d.impath for d in found.test)


@pytest.mark.parametrize(("name", "folder", "domains"), [("DigitsDG", "digits_dg", ("mnist", "svhn")),
                                                         ("OfficeHomeDG", "office_home_dg", ("art", "real_world"))])
def test_generalisation_sets_of_folders_have_train_and_val_per_domain(name, folder, domains, dataset, touch, tmp_path):
    touch(*(f"{folder}/{domain}/{part}/{kind}/{part}.jpg" for domain in domains for part in ("train", "val")
            for kind in ("Alarm", "Bed")))
    found = dataset(name, domains[:1], domains[1:])
    assert [Path(d.impath).stem for d in found.train_x + found.val] == ["train"] * 2 + ["val"] * 2
    assert len(found.test) == 4 and found.classnames == ["alarm", "bed"] and found.train_u is None


@pytest.mark.parametrize(("name", "lists", "unlabelled", "val"), [
    ("DomainNetDG", "splits", False, True), ("DomainNet", "splits", True, True),
    ("miniDomainNet", "splits_mini", True, False)])
def test_domainnets_lists_say_what_is_read(name, lists, unlabelled, val, dataset, tmp_path):
    for domain in ("clipart", "real"):
        for part in ("train", "test"):
            lines(tmp_path / f"domainnet/{lists}/{domain}_{part}.txt",
                  *(f"{domain}/{kind}/{part}.jpg {label}" for label, kind in enumerate(NAMES)))
    found = dataset(name, ["clipart"], ["real"])
    assert told(found.train_x, tmp_path / "domainnet")[1] == ("clipart/house/train.jpg", 1, 0, "house")
    assert [Path(d.impath).name for d in found.test] == ["test.jpg"] * 2
    assert bool(found.train_u) == unlabelled and bool(found.val) == val
    assert all("/real/" in d.impath for d in found.test + (found.train_u or []))


@pytest.mark.parametrize(("name", "folder", "source", "target"), [("Office31", "office31", "amazon", "dslr"),
                                                                  ("OfficeHome", "office_home", "art", "product")])
def test_adaptation_sets_give_the_target_without_and_with_labels(name, folder, source, target, dataset, touch):
    touch(*(f"{folder}/{domain}/{kind}/a.png" for domain in (source, target) for kind in ("Bike", "Mug")))
    found = dataset(name, [source], [target])
    assert [d.impath for d in found.train_u] == [d.impath for d in found.test] and found.classnames == ["bike", "mug"]
    assert all(f"/{source}/" in d.impath for d in found.train_x) and not found.val


def test_visda_goes_from_synthetic_to_real(dataset, tmp_path):
    for part in ("train", "validation"):
        lines(tmp_path / f"visda17/{part}/image_list.txt", f"dog/{part}.png 0", f"house/{part}.png 1")
    found = dataset("VisDA17", ["synthetic"], ["real"])
    assert {Path(d.impath).stem for d in found.train_x} == {"train"} and found.classnames == NAMES
    assert {Path(d.impath).stem for d in found.train_u + found.test} == {"validation"}


def test_what_is_missing_is_named(dataset, touch, tmp_path):
    with pytest.raises(UserError, match="Office31 is not at .*office31.*DATASETS.md"):
        dataset("Office31", ["amazon"], ["dslr"])
    touch("office31/amazon/bike/a.png")
    with pytest.raises(UserError, match="no folder .*dslr"):
        dataset("Office31", ["amazon"], ["dslr"])
    with pytest.raises(UserError, match="'webcm' is not a domain"):
        dataset("Office31", ["webcm"], ["dslr"])
    with pytest.raises(UserError, match="SOURCE_DOMAINS names amazon twice"):
        dataset("Office31", ["amazon", "amazon"], ["dslr"])
    touch("domainnet/a")
    with pytest.raises(UserError, match="no list .*real_train.txt"):
        dataset("DomainNet", ["real"], ["sketch"])


@pytest.mark.parametrize("module", ["dassl.data.datasets", "dassl.data.datasets.dg", "dassl.data.datasets.da",
                                    "dassl.engine.dg", "dassl.engine.da", "dassl.engine.ssl", "dassl.modeling.ops"])
def test_names_that_are_left_out_point_to_the_table_of_differences(module):
    package = importlib.import_module(module)
    absent = {"dassl.data.datasets": "SVHN", "dassl.data.datasets.dg": "DigitSingle", "dassl.engine.dg": "DDAIG",
              "dassl.data.datasets.da": "Digit5", "dassl.engine.da": "DANN", "dassl.engine.ssl": "MixMatch",
              "dassl.modeling.ops": "Conv2dDynamic"}[module]
    with pytest.raises(ImportError, match=f"{absent} of Dassl 0.6.3 is left out here .dassl/COMPATIBILITY.md"):
        exec(f"from {module} import {absent}")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing


def test_a_name_of_dassls_can_be_taken_until_somebody_asks_for_it():
    from dassl.utils.registry import Registry

    registry = Registry("DATASET", {"PACS": "dassl.data.datasets.domains"})

    @registry.register()
    class PACS:
        pass

    assert registry.get("PACS") is PACS and "PACS" in registry
    with pytest.raises(UserError, match="Did you mean PACS"):
        Registry("DATASET", {"PACS": "dassl.data.datasets.domains"}).get("PACCS")


TRAINERS = {
    "Vanilla": {}, "DomainMix": {}, "CrossGrad": {},
    "SourceOnly": {"DATASET__ALL_AS_UNLABELED": True}, "SupBaseline": {"DATASET__ALL_AS_UNLABELED": True},
    "FixMatch": {"DATASET__ALL_AS_UNLABELED": True, "TRAINER__FIXMATCH__CONF_THRE": 0.1,
                 "TRAINER__FIXMATCH__STRONG_TRANSFORMS": ("randaugment_fixmatch", "normalize")},
}


@pytest.fixture
def domain_cfg(engine_cfg):
    def make(name, **changes):
        return engine_cfg(TRAINER__NAME=name, MODEL__BACKBONE__NAME="SmallCNN", OPTIM__LR=0.1, OPTIM__MAX_EPOCH=8,
                          DATASET__SOURCE_DOMAINS=("a", "b"), **{**TRAINERS[name], **changes})

    return make


@pytest.mark.parametrize("name", TRAINERS)
def test_baseline_trainers_are_found_by_name_and_learn(name, domain_cfg):
    trainer = build_trainer(domain_cfg(name))
    trainer.train()
    assert trainer.test() > 60                                  # three classes, told apart by colour
    assert TRAINER_REGISTRY.get(name) is type(trainer)


def test_crossgrad_trains_both_networks_on_images_that_fool_the_other(domain_cfg):
    trainer = build_trainer(domain_cfg("CrossGrad"))
    assert trainer.get_model_names() == ["F", "D"] and trainer.D.classifier.out_features == 2
    batch = next(iter(trainer.train_loader_x))
    images, labels, domains = batch["img"].clone(), batch["label"], batch["domain"]
    gradients = {}
    for model, target in ((trainer.D, domains), (trainer.F, labels)):
        x = images.clone().requires_grad_()
        F.cross_entropy(model(x), target).backward()
        gradients[model], x.grad = x.grad.clamp(-0.1, 0.1), None
        model.zero_grad()
    expected = {
        "loss_f": 0.5 * F.cross_entropy(trainer.F(images), labels)
        + 0.5 * F.cross_entropy(trainer.F(images + gradients[trainer.D]), labels),
        "loss_d": 0.5 * F.cross_entropy(trainer.D(images), domains)
        + 0.5 * F.cross_entropy(trainer.D(images + gradients[trainer.F]), domains)}
    trainer.batch_idx, trainer.num_batches = 0, 2
    losses = trainer.forward_backward(batch)
    assert losses == pytest.approx({name: value.item() for name, value in expected.items()}, abs=1e-6)


def test_domain_mix_takes_partners_of_other_domains(domain_cfg):
    trainer = build_trainer(domain_cfg("DomainMix"))
    x, domain = torch.arange(6.0)[:, None, None, None].expand(6, 3, 2, 2), torch.tensor([0, 0, 0, 0, 1, 1])
    for _ in range(10):
        mixed, own, others, share = trainer.domain_mix(x, torch.arange(6), domain)
        assert torch.equal(own, torch.arange(6)) and (domain[others] != domain).all()
        torch.testing.assert_close(mixed[:, 0, 0, 0], share * own + (1 - share) * others)
    with pytest.raises(UserError, match="'mixed'"):
        build_trainer(domain_cfg("DomainMix", TRAINER__DOMAINMIX__TYPE="mixed"))


def test_fixmatch_learns_from_confident_images_only(domain_cfg):
    trainer = build_trainer(domain_cfg("FixMatch", TRAINER__FIXMATCH__CONF_THRE=1.1))
    trainer.num_batches = 2
    losses = trainer.forward_backward(next(iter(trainer.train_loader_x)), next(iter(trainer.train_loader_u)))
    assert losses["loss_u"] == 0 and losses["loss_x"] > 0
    with pytest.raises(UserError, match="STRONG_TRANSFORMS"):
        build_trainer(domain_cfg("FixMatch", TRAINER__FIXMATCH__STRONG_TRANSFORMS=()))
