"""ELEVATER's datasets: lists in two formats, zips, labels of several classes, and the metrics of its table."""
import json
import random
import zipfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.metrics import roc_auc_score

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import build_trainer
from dassl.evaluation.elevater import ElevaterMetric, map_11_points, mean_per_class, roc_auc
from dassl.utils import UserError
from datasets import extend_cfg
from datasets.benchmarks import DatasetNotFound
from datasets.elevater import CARDS, few_shot, held_out
from datasets.elevater_cards import METRICS


@pytest.fixture
def cfg_of(tmp_path):
    def make(name):
        cfg = get_cfg_default()
        extend_cfg(cfg)
        cfg.DATASET.ROOT, cfg.DATASET.NAME = str(tmp_path), name
        return cfg
    return make


def pack(folder, name, count):
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(folder / "one.png")
    with zipfile.ZipFile(folder / name, "w") as file:
        for i in range(count):
            file.write(folder / "one.png", f"in/{i}.png")


def lines(folder, name, archive, labels):
    (folder / name).write_text("".join(f"{archive}@in/{i}.png {label}\n" for i, label in enumerate(labels)))


def test_the_twenty_cards_have_a_known_metric_and_counts():
    assert len(CARDS) == 20 and {card.metric for card in CARDS.values()} == set(METRICS)
    assert all(card.classes > 1 and min(card.train, card.test) > 0 and len(card.names) in (0, card.classes)
               for card in CARDS.values())


def test_labels_of_several_classes_are_all_kept_and_zips_unpacked(cfg_of, tmp_path):
    folder = tmp_path / "classification" / CARDS["ElevaterVOC2007"].folder
    pack(folder, "train.zip", 6)
    pack(folder, "test.zip", 3)
    for name, archive, labels in (("train_ic.txt", "train.zip", ["0", "1", "2,0", "2", "0", "1"]),
                                  ("test_ic.txt", "test.zip", ["1,2", "0", "2"])):
        lines(folder, name, archive, labels)
    (folder / "labels.txt").write_text("aeroplane\nbicycle\nbird\n")
    made = DATASET_REGISTRY.get("ElevaterVOC2007")(cfg_of("ElevaterVOC2007"))
    assert made.classnames == ["aeroplane", "bicycle", "bird"] and [i.label for i in made.test] == [1, 0, 2]
    assert made.truth("test").tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 1]] and made.has_several_labels
    assert all((folder / "test" / "in" / f"{i}.png").is_file() for i in range(3))


def test_labels_are_those_of_the_half_of_the_classes_that_is_asked_for(cfg_of, tmp_path):
    folder = tmp_path / "classification" / CARDS["ElevaterVOC2007"].folder
    pack(folder, "train.zip", 10)
    pack(folder, "test.zip", 3)
    lines(folder, "train_ic.txt", "train.zip", ["0", "1", "2", "3,2", "0", "1", "2", "3", "3", "2"])
    lines(folder, "test_ic.txt", "test.zip", ["3,1", "0", "2,3"])
    (folder / "labels.txt").write_text("aeroplane\nbicycle\nbird\nboat\n")
    cfg = cfg_of("ElevaterVOC2007")
    for half, truth in (("base", [[1, 0]]), ("new", [[0, 1], [1, 1]])):
        cfg.DATASET.SUBSAMPLE_CLASSES = half
        assert DATASET_REGISTRY.get("ElevaterVOC2007")(cfg).truth("test").tolist() == truth


@pytest.mark.parametrize("name, each_class", [("CoOp", False), ("SubNet", True), ("ZSLP", False)])
def test_training_takes_all_labels_of_an_image(make_cfg, name, each_class):
    trainer = build_trainer(make_cfg(name, "OPTIM.MAX_EPOCH", 1))
    items, C = trainer.dm.dataset.train_x, trainer.num_classes
    truth = F.one_hot(torch.tensor([item.label for item in items]), C).float()
    truth[:, 0] = 1
    trainer.dm.dataset.has_several_labels, trainer.dm.dataset.truth = True, lambda split: truth
    met, loss = [], trainer.loss
    trainer.loss = lambda out, batch: met.append((out.logits.detach(), batch["index"], loss(out, batch))) or met[-1][2]
    trainer.train()
    logits, index, terms = met[0]
    labels = truth[torch.as_tensor(index)]
    literal = -(labels * F.logsigmoid(logits) + (1 - labels) * F.logsigmoid(-logits)).mean() if each_class else \
        -(labels / labels.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(terms["ce"].detach(), literal)
    assert trainer.recorded["labels_learned"] == "all"


def test_a_method_that_learns_the_first_label_alone_says_so(make_cfg, caplog):
    trainer = build_trainer(make_cfg("GDA"))
    trainer.dm.dataset.has_several_labels = True
    trainer.train()
    assert trainer.recorded["labels_learned"] == "the first of each image" and "several labels" in caplog.text


def test_coco_lists_are_read_and_a_fifth_of_the_training_images_validates(cfg_of, tmp_path):
    folder = tmp_path / "classification" / CARDS["ElevaterHatefulMemes"].folder
    pack(folder, "img.zip", 10)
    for name, count in (("train_meta.json", 10), ("test_meta.json", 4)):
        (folder / name).write_text(json.dumps({
            "categories": [{"id": 2, "name": "hateful meme"}, {"id": 1, "name": "meme"}],
            "images": [{"id": i, "file_name": f"img.zip@in/{i}.png"} for i in range(count)],
            "annotations": [{"image_id": i, "category_id": 1 + i % 2} for i in range(count)]}))
    made = DATASET_REGISTRY.get("ElevaterHatefulMemes")(cfg_of("ElevaterHatefulMemes"))
    assert made.classnames == ["meme", "hatespeech meme"] and [i.label for i in made.test] == [0, 1, 0, 1]
    assert (len(made.train_x), len(made.val)) == (8, 2) and not {i.impath for i in made.train_x} & {
        i.impath for i in made.val}


def test_shots_are_of_the_training_list_and_hold_what_validates(cfg_of, tmp_path):
    folder = tmp_path / "classification" / CARDS["ElevaterMNIST"].folder
    for name in ("train.zip", "val.zip"):
        pack(folder, name, 40)
    lines(folder, "train.txt", "train.zip", [i % 2 for i in range(40)])
    lines(folder, "test.txt", "val.zip", [0, 1])
    (folder / "labels.txt").write_text("zero\none\n")
    cfg = cfg_of("ElevaterMNIST")
    for shots, sizes in ((1, (2, 2)), (5, (8, 2)), (20, (32, 8)), (-1, (32, 8))):
        cfg.DATASET.NUM_SHOTS, cfg.SEED = shots, 0
        made = DATASET_REGISTRY.get("ElevaterMNIST")(cfg)
        assert (len(made.train_x), len(made.val)) == sizes
        assert not {i.impath for i in made.train_x} & {i.impath for i in made.val}


def test_few_shot_is_vision_datasets_draw():
    rows = [(str(i), (i % 3,)) for i in range(30)]
    order = list(range(30))
    random.Random(2).shuffle(order)
    expected = [i for place, i in enumerate(order) if sum(j % 3 == i % 3 for j in order[:place]) < 4]
    assert [int(path) for path, _ in few_shot(rows, 4, 2, 3)] == expected


def test_images_of_several_labels_are_drawn_while_a_class_lacks_half_or_none_has_too_many():
    rows = [("a", (0, 1)), ("b", (0, 1)), ("c", (0, 1)), ("d", (0, 2)), ("e", (0, 3))] * 8
    found = few_shot(rows, 4, 0, 4)
    counts = [sum(label in labels for _, labels in found) for label in range(4)]
    assert counts[1] == 4 and min(counts) >= 2 and counts[0] > 6
    train, val = held_out(found)
    assert all(sum(label in labels for _, labels in val) >= 1 for label in range(4)) and len(train) + len(val) == len(
        found)


@pytest.mark.parametrize("content, got", [("", "no images"), ("train.zip@a.png cat\n", "no list"),
                                          ("train.zip@a.png 1\n", "label 1.*1 classes")])
def test_a_damaged_list_is_refused(cfg_of, tmp_path, content, got):
    folder = tmp_path / "classification" / CARDS["ElevaterMNIST"].folder
    for name in ("train.zip", "val.zip"):
        pack(folder, name, 1)
    for name in ("train.txt", "test.txt"):
        (folder / name).write_text(content)
    (folder / "labels.txt").write_text("zero\n")
    with pytest.raises(UserError, match=got):
        DATASET_REGISTRY.get("ElevaterMNIST")(cfg_of("ElevaterMNIST"))


def test_what_is_missing_and_where_it_is_got_is_said(cfg_of):
    with pytest.raises(DatasetNotFound, match="labels.txt.*https://github.com"):
        DATASET_REGISTRY.get("ElevaterDTD")(cfg_of("ElevaterDTD"))


def test_mean_per_class_counts_small_classes_alike():
    scores, truth = torch.eye(3)[[0, 0, 0, 1, 0]], torch.eye(3)[[0, 0, 0, 1, 1]]
    assert mean_per_class(scores, truth) == pytest.approx((1 + 0.5) / 2)


def test_eleven_point_precision_is_of_probabilities_and_begins_at_one():
    scores, truth = torch.randn(40, 3), (torch.rand(40, 3) < 0.3).float()
    truth[0] = 1
    values = []
    for c in range(3):
        order = np.argsort(-scores.double().softmax(1)[:, c].numpy())
        hits = np.cumsum(truth[order, c].numpy())
        precision, recall = hits / np.arange(1, 41), hits / hits[-1]
        values.append(np.mean([1.0] + [max(p for p, r in zip(precision, recall, strict=True) if r >= t / 10 - 1e-9)
                                       for t in range(1, 11)]))
    assert map_11_points(scores, truth) == pytest.approx(np.mean(values), rel=1e-5)


def test_the_area_under_the_curve_is_of_the_second_class():
    scores, truth = torch.randn(30, 2), torch.eye(2)[torch.arange(30) % 2]
    expected = roc_auc_score(truth[:, 1], scores.softmax(1)[:, 1])
    assert roc_auc(scores, truth) == pytest.approx(expected)
    with pytest.raises(UserError, match="1 occur"):
        roc_auc(scores, torch.eye(2)[torch.zeros(30, dtype=torch.long)])


def test_the_first_value_is_the_cards_metric():
    truth = torch.eye(3)[[0, 0, 0, 1]]
    evaluator = ElevaterMetric(get_cfg_default())
    evaluator.dataset = type("Made", (), {"card": CARDS["ElevaterPets"], "truth": lambda self, split: truth})()
    evaluator.process(torch.eye(3)[[0, 0, 0, 0]] * 5, truth.argmax(1))
    results = evaluator.evaluate()
    assert next(iter(results.items())) == ("mean_per_class", 50.0) and results["accuracy"] == 75.0
