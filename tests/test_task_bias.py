"""TaskBias: one image, four tasks; tokens that steer to one of them, and how that is counted."""
import json

import pytest
import torch

from dassl.config import get_cfg_default
from dassl.engine import build_trainer
from dassl.utils import UserError
from datasets import extend_cfg
from datasets.embedded import shape_backgrounds, shape_combinations
from datasets.rendering import GREYS
from datasets.shapes_tasks import TASKS, ShapesTasks


@pytest.fixture
def shapes_of(monkeypatch, tmp_path):
    """Draws nothing: paths are enough."""
    monkeypatch.setattr("datasets.shapes.write_once", lambda root, name, draw: tmp_path / name)

    def make(task, shots=-1):
        cfg = get_cfg_default()
        extend_cfg(cfg)
        cfg.DATASET.ROOT, cfg.DATASET.TASK, cfg.DATASET.NUM_SHOTS, cfg.SEED = str(tmp_path), task, shots, 1
        return ShapesTasks(cfg)
    return make


@pytest.mark.parametrize("task", TASKS)
def test_labels_answer_the_task_among_the_answers_to_all(shapes_of, task):
    made = shapes_of(task)
    assert made.classnames == [*TASKS["shape"], *TASKS["colour"], *TASKS["texture"], *TASKS["background"]]
    item = next(i for i in made.test if "/red_striped_" in i.impath)
    number = int(item.impath.split("/")[-1].removesuffix(".png"))
    name = item.impath.split("/")[-2].rsplit("_", 1)[1]
    combination = next(c for c in shape_combinations() if c[1:] == (0, 1) and TASKS["shape"][c[0]] == name)
    behind = list(GREYS)[shape_backgrounds(combination)[number]]
    said = {"shape": name, "colour": "red shape", "texture": "striped shape",
            "background": f"shape on a {behind} background"}
    assert item.classname == said[task] == made.classnames[item.label]
    assert [made.classnames[label] for label in made.answers[item.impath]] == list(said.values())


def test_shots_are_of_each_answer(shapes_of):
    made = shapes_of("background", 2)
    assert len(made.train_x) == 2 * len(GREYS) and made.num_classes == 21


def test_an_unknown_task_is_refused(shapes_of):
    with pytest.raises(UserError, match="'color'.*colour"):
        shapes_of("color")


def test_clarified_images_are_those_whose_own_answer_to_the_task_is_nearest(make_cfg, tmp_path):
    trainer = build_trainer(make_cfg("TaskBias"))
    paths = [item.impath for item in trainer.dm.dataset.test]
    dataset = trainer.dm.dataset
    dataset.answers = {path: (i % 2, 2 + i % 2) for i, path in enumerate(paths)}        # two tasks of two answers
    dataset.asked, dataset.tasks = 1, ("first", "second")
    trainer.train()
    found = json.loads((tmp_path / "run" / "results.json").read_text())["task_clarification"]
    with torch.no_grad():
        counts = torch.zeros(2)
        for batch in trainer.test_loader:
            plain = trainer.model.clip.encode_image(batch["img"]) @ trainer.model.fixed_text.T
            for i, scores in enumerate((plain, trainer.model(batch["img"]).logits)):
                for row, path in zip(scores, batch["impath"], strict=True):
                    first, second = dataset.answers[path]
                    counts[i] += row[second] > row[first]
    assert [found["before"], found["after"]] == pytest.approx((100 * counts / len(paths)).tolist())
