"""What a run is meant to be; whether the run that it tests or resumes has learned the classes of the images."""
from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from dassl.config import with_values
from dassl.utils import UserError
from dassl.utils.classes_file import read_classes
from dassl.utils.logger import CONSOLE
from tools.runs import by_hand, inputs
from tools.runs.cell import OWN, Cell
from tools.runs.folder import RunFolder, flat

logger = logging.getLogger(__name__)


def last_results(trainer) -> dict[str, float]:
    """What its evaluator measures last: to be filled as it is asked, also by a test() that calls none of our hooks."""
    results, evaluator = {}, getattr(trainer, "evaluator", None)
    if evaluator is None:
        return results
    evaluate = evaluator.evaluate

    def evaluated(*args, **kwargs):
        measured = evaluate(*args, **kwargs)
        results.clear()
        results.update(measured if isinstance(measured, dict) else {})
        return measured

    evaluator.evaluate = evaluated
    return results


def file_state(folder: str) -> tuple[int, int] | None:
    """Tells one results.json of a run's folder from another; None where there is none."""
    try:
        found = os.stat(Path(folder, "results.json"))
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def is_own_folder(model_dir: str, images: str) -> bool:
    """Whether the run in `model_dir` was trained on the images at `images`: only its test split is new to it."""
    places = [flat(RunFolder(folder).settings_or_none).get("DATASET.DIR") for folder in _folders_of(model_dir)]
    return any(place and os.path.realpath(os.path.expanduser(str(place))) == os.path.realpath(
        os.path.expanduser(images)) for place in places)


def with_learned_classes(cfg, model_dir: str):
    """The config whose dataset ImageDir labels its classes as the run in `model_dir` did, by their names.

    The run's classes are the candidates, also those of which a folder of the user's has no image. Class names that the
    run does not have are left to `refuse_other_classes`.
    """
    from datasets.folder import class_names

    if cfg.DATASET.NAME == OWN and not cfg.DATASET.TEST_ONLY:
        logger.info("%s was trained on images of %s, so only its test split is tested", model_dir, cfg.DATASET.DIR,
                    extra=CONSOLE)
    learned = _learned_classes(model_dir)
    if cfg.DATASET.NAME != OWN or not learned or len(set(learned)) < len(learned):
        return cfg
    given = class_names(cfg)
    if given == learned or len(set(given)) < len(given) or not set(given) <= set(learned):
        return cfg
    if len(given) < len(learned) and not (cfg.DATASET.TEST_ONLY or _bound_to_classes(cfg)):
        return cfg                              # half of the classes, as benchmarks test prompts that serve any
    logger.warning("%s has %d of the %d classes that %s learned; they are matched by name, and all %d are candidates",
                   cfg.DATASET.DIR, len(given), len(learned), model_dir, len(learned))
    return with_values(cfg, {"DATASET.CLASSES": tuple(learned)})


def refuse_other_classes(trainer, model_dir: str, resumes: bool = False) -> None:
    """Raises UserError where something was learned for each class and the images have classes of other names.

    So it does for any classes of other names if the training in `model_dir` is to resume (`resumes`).
    A warning says so of a trainer of somebody else's, which this code cannot ask, and where the run does not name them.
    """
    from trainers._base import PromptTrainer

    learned, given = _learned_classes(model_dir), [trainer.lab2cname[label] for label in sorted(trainer.lab2cname)]
    if given == learned:
        return
    if not learned:
        if isinstance(trainer, PromptTrainer) and (bound := trainer.bound_to_classes(trainer.options)):
            logger.warning("%s does not say which classes it learned (there is no classes.json): it holds %s, read in "
                           "the order of %s. Check that it was trained on the same classes in this order", model_dir,
                           bound, _few(given, 0))
        return
    place = next((i for i, pair in enumerate(zip(given, learned, strict=False)) if pair[0] != pair[1]),
                 min(len(given), len(learned)))
    what = (f"{model_dir} learned {_few(learned, place)}, and {trainer.cfg.DATASET.DIR or trainer.cfg.DATASET.NAME} "
            f"has {_few(given, place)}")
    if not isinstance(trainer, PromptTrainer):
        logger.warning("%s: other classes, or another order. What %s learned for each class, if anything, does not fit "
                       "them", what, type(trainer).__name__)
    elif resumes:
        raise UserError(f"{what}. A training resumes on the classes that it began with, in their order. To learn these "
                        f"from the weights of that one, set MODEL.INIT_WEIGHTS {model_dir} instead of resuming.")
    elif bound := trainer.bound_to_classes(trainer.options):
        raise UserError(f"{what}. {type(trainer).__name__} learned something for each of its classes ({bound}), so it "
                        "serves these alone. Give the classes the same names: rename the folders, or write "
                        "lines such as `folder: name` and name the file with --classnames.")


def meant(cfg, args: argparse.Namespace) -> Cell:
    """The cell of the run: as the sweep that makes it meant it, else as its command names it."""
    only_tests = args.eval_only and not inputs.tests_itself(args)
    tested = map(RunFolder, _folders_of(args.model_dir if only_tests else ""))
    trained = next((run.cell for run in tested if run.is_run), None)
    images = inputs.own_name("output", args.dataset_dir) if args.dataset_dir and not args.output_dir else ""
    return by_hand.meant(inputs.describe(args), {
        "trainer": cfg.TRAINER.NAME, "dataset": cfg.DATASET.NAME, "shots": cfg.DATASET.NUM_SHOTS, "seed": cfg.SEED,
        "classes": cfg.DATASET.get("SUBSAMPLE_CLASSES", "all"), "images": images}, trained)


def _bound_to_classes(cfg) -> bool:
    """Whether the config's trainer learns something for each class; not known of somebody else's, so False."""
    from dassl.engine import TRAINER_REGISTRY

    method = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    options = cfg.TRAINER[method.section] if getattr(method, "section", "") else None
    return bool(hasattr(method, "bound_to_classes") and method.bound_to_classes(options))


def _learned_classes(model_dir: str) -> list[str]:
    """In the order of their labels; [] where the run does not say."""
    return list(map(str, read_classes(model_dir).get("classnames") or []))


def _folders_of(model_dir: str) -> list[Path]:
    """Where a run's files lie if `model_dir` is its folder, that of one of its models, or a checkpoint."""
    path = Path(model_dir).expanduser()
    return [path, path.parent, path.parent.parent] if model_dir else []


def _few(names: list[str], place: int) -> str:
    """Names around the first that differs."""
    some = names[max(0, place - 1):place + 3]
    return f"{len(names)} classes ({'..., ' if place > 1 else ''}{', '.join(some)}" \
           f"{', ...' if place + 3 < len(names) else ''})"
