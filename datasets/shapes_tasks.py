"""The embedded shapes with four labels each: what an image shows depends on what is asked, DATASET.TASK."""
from __future__ import annotations

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.utils import UserError
from dassl.utils.registry import nearest

from .domains import everything
from .embedded import shape_backgrounds, shape_combinations
from .few_shot import few_shot_splits
from .rendering import COLOURS, GREYS, SHAPES, TEXTURES
from .shapes import Shapes, class_name

TASKS = {"shape": SHAPES, "colour": tuple(f"{name} shape" for name in COLOURS),
         "texture": tuple(f"{name} shape" for name in TEXTURES),
         "background": tuple(f"shape on a {name} background" for name in GREYS)}


@DATASET_REGISTRY.register()
class ShapesTasks(DatasetBase):
    """The images of `Shapes`, labelled with the answer to one task among the answers to all four (21 classes).

    Attributes:
        asked: number of the task that the labels answer. tasks: their names. task_of_class: (C) of each answer.
        answers: {path of an image: its label in each task}.
    """

    dataset_dir, template, tasks = "shapes", "a photo of a {}.", tuple(TASKS)

    def __init__(self, cfg):
        if (task := cfg.DATASET.TASK) not in TASKS:
            raise UserError(f"DATASET.TASK must be {', '.join(self.tasks[:-1])} or {self.tasks[-1]}, got {task!r}."
                            f"{nearest(task, self.tasks)}")
        self.asked = self.tasks.index(task)
        names = [name for answers in TASKS.values() for name in answers]
        self.task_of_class = [number for number, answers in enumerate(TASKS.values()) for _ in answers]
        first = [self.task_of_class.index(number) for number in range(len(TASKS))]
        combinations = {class_name(each): each for each in shape_combinations()}
        backgrounds = {each: shape_backgrounds(each) for each in combinations.values()}
        self.answers: dict[str, tuple[int, ...]] = {}

        def labelled(items: list[Datum]) -> list[Datum]:
            found = []
            for item in items:
                combination = combinations[item.classname]
                behind = int(backgrounds[combination][int(Path(item.impath).stem)])
                self.answers[item.impath] = own = tuple(
                    start + value for start, value in zip(first, (*combination, behind), strict=True))
                label = own[self.asked]
                found.append(Datum(item.impath, label, 0, names[label]))
            return found

        whole = Shapes(everything(cfg))
        train, val, test = few_shot_splits(self, cfg, *map(labelled, (whole.train_x, whole.val, whole.test)))
        super().__init__(train_x=train, val=val, test=test)
        self._num_classes, self._classnames, self._lab2cname = len(names), names, dict(enumerate(names))
