"""A run folder, or zero-shot CLIP with class names of one's own, as a classifier; no dataset is needed.

Nothing of a run folder is executed: settings are plain data, checkpoints are tensors, and a plugin that the run was
made with is imported only if it is named again.
"""
from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch

from clip.backbones import file_in
from clip.templates import DEFAULT
from dassl.config import with_values
from dassl.data.transforms import build_transform
from dassl.engine import TRAINER_REGISTRY
from dassl.names import listed
from dassl.utils import UserError
from dassl.utils.torchtools import load_initial_weights, load_weights
from tools import train
from tools.prediction.classifier import Classifier
from tools.runs.folder import LEARNER
from tools.runs.run import Run
from trainers._base import PromptTrainer
from trainers._build import build_on, infer
from trainers.parts.classes import Classes
from trainers.seen import say_which_were_seen
from trainers.starting import initial_weights

logger = logging.getLogger(__name__)

ZERO_SHOT_BATCH = 64


def from_run(folder: str | Path, *, classes: Sequence[str] = (), template: str = "", epoch: int | None = None,
             backbone: str = "", device: str = "auto", root: str = "", plugins: Sequence[str] = (),
             float32: bool = False) -> Classifier:
    """The classifier that a run learned, or its prompts with other class names.

    Args:
        folder: of the run, wherever it lies now.
        classes: other class names, for prompts that serve any.
        template: other sentence around class names, for ZeroshotCLIP only.
        epoch: of the checkpoint; None: the one that the run was tested with.
        backbone: CLIP's weights, where they are no longer where the run found them; they have to be the same ones.
        device: "auto", "cpu" or "cuda".
        root: folder of the datasets, for an older run that did not write down its classes.
        plugins: files or modules that define the run's trainer, if this checkout does not.
        float32: compute in it, whatever the run did.
    Raises:
        UserError: no run, other weights, classes that its prompts do not serve.
    """
    run = Run(Path(folder).expanduser(), epoch, root, plugins)
    learned = run.learned_in
    cfg = _settings(run, backbone, device, float32)
    method = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    template = _template(run, template, method)
    if classes:
        check_classes(classes)
    names = list(classes) or run.classnames              # those of the run may be one alone, or two of one name
    build = _built if _says_how(method) else _built_by_itself
    answer, model, transform, autocast = build(method, cfg, names, template, run, learned, bool(classes))
    facts = {"run": str(run.folder), "trainer": run.trainer, "dataset": run.dataset_name,
             "backbone": cfg.MODEL.BACKBONE.NAME, "sha256": run.backbone.get("sha256", ""), "template": template or "",
             "classes": "given" if classes else "the run's", "accuracy": run.record.get("metrics", {}).get("accuracy")}
    return Classifier(names, answer, transform, cfg.DATALOADER.TEST.BATCH_SIZE, torch_device(device), facts, model,
                      autocast)


def zero_shot(backbone: str, classes: Sequence[str], template: str = "", device: str = "auto") -> Classifier:
    """CLIP's own answer: class names in a sentence, nothing learned.

    Args:
        backbone: as MODEL.BACKBONE.NAME takes it.
        template: sentence with one {}; "": "a photo of a {}."
    """
    train.register()
    from clip import load_clip
    from dassl.config import get_cfg_default
    from datasets.folder import checked_template
    from trainers.errors import as_user_error
    from trainers.zsclip import ZeroshotCLIP

    check_classes(classes)
    template, where, cfg = checked_template(template or DEFAULT), torch_device(device), get_cfg_default()
    with as_user_error():
        clip = load_clip(backbone, where)
    cfg.INPUT.SIZE, cfg.INPUT.INTERPOLATION, cfg.INPUT.TRANSFORMS = (clip.image_size,) * 2, "bicubic", ("normalize",)
    cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD = list(clip.mean), list(clip.std)
    model, mixed = build_on(ZeroshotCLIP, cfg, Classes(classes, template), where, clip)
    facts = {"run": "", "trainer": "zero-shot CLIP", "dataset": "", "backbone": clip.name, "sha256": clip.sha256,
             "template": template, "classes": "given", "accuracy": None}
    return Classifier(list(classes), partial(infer, ZeroshotCLIP, model.eval(), mixed, options=None),
                      ZeroshotCLIP.test_transform(cfg), ZERO_SHOT_BATCH, where, facts, model, mixed.autocast)


def check_classes(names: Sequence[str]) -> None:
    """Raises UserError unless these class names of a user's are two or more, each once."""
    twice = sorted({name for name in names if list(names).count(name) > 1}) if len(set(names)) < len(names) else []
    if len(names) < 2 or twice or not all(name.strip() for name in names):
        what = f"got {twice[0]!r} twice" if twice else f"got {', '.join(map(repr, names)) or 'none'}"
        raise UserError(f"Classes must be two or more names, each once and not empty, {what}. As in "
                        '--classes "cat, dog, bird".')


def torch_device(device: str) -> torch.device:
    """Raises UserError for cuda where PyTorch sees no GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda needs a GPU that PyTorch sees, and there is none. Leave it out, or look at "
                        "python tools/doctor.py.")
    return torch.device("cuda:0" if device != "cpu" and torch.cuda.is_available() else "cpu")


def _settings(run: Run, backbone: str, device: str, float32: bool):
    """The run's config, for predicting alone."""
    name = backbone or run.cfg.MODEL.BACKBONE.NAME
    file = file_in(name)
    if not backbone and file and not file.exists():
        raise UserError(f"The run used the weights {file}, sha256 {run.backbone.get('sha256', 'unknown')[:12]}, which "
                        "are not there. Say where that file is now with --backbone FILE.")
    return with_values(in_float32(run.cfg) if float32 else run.cfg, {
        "USE_CUDA": torch_device(device).type == "cuda", "MODEL.INIT_WEIGHTS": "", "MODEL.BACKBONE.NAME": name,
        "RESUME": "", "VERBOSE": False, "TRAIN.COMPILE": False})        # compiling pays after thousands of images only


def in_float32(cfg):
    """The config whose trainer computes in float32, whatever was set."""
    sections = [key for key, section in cfg.TRAINER.items() if isinstance(section, dict) and "PREC" in section]
    return with_values(cfg, {f"TRAINER.{key}.PREC": "fp32" for key in sections})


def _template(run: Run, given: str, method: type) -> str | None:
    from datasets.folder import checked_template

    if not given:
        return run.template
    if getattr(method, "learns", "") != "nothing" or method.section:
        raise UserError(f"--template puts class names into a sentence of your own, as zero-shot CLIP does; "
                        f"{run.trainer} brings its own words. Leave it out, or predict without --run.")
    return checked_template(given)


def _says_how(method: type) -> bool:
    """Whether `build` and `predict` of the class are all that testing it takes."""
    return issubclass(method, PromptTrainer) and all(
        getattr(method, name) is getattr(PromptTrainer, name) for name in ("build_model", "model_inference"))


def _built(method: type, cfg, names: list[str], template: str | None, run: Run, learned: Run, others: bool):
    """(images to logits, model, transform, autocast) of a method with these classes; `others` than the run's."""
    options = cfg.TRAINER[method.section] if method.section else None
    if others and (bound := method.bound_to_classes(options)):
        raise UserError(_bound(run, bound))
    if method.learns == "nothing":
        cfg = with_values(cfg, {"MODEL.INIT_WEIGHTS": run.cfg.MODEL.INIT_WEIGHTS})
    model, mixed = build_on(method, cfg, Classes(names, template or DEFAULT, image_size=cfg.INPUT.SIZE[0]),
                            torch_device("auto" if cfg.USE_CUDA else "cpu"))
    _check_weights(run, learned, model.clip)
    if method.learns != "nothing":
        load_weights(model.prompt_learner, learned.learned, str(learned.checkpoint))
    elif (start := initial_weights(cfg)) and next(model.prompt_learner.parameters(), None) is not None:
        load_initial_weights(model.prompt_learner, start)
    say_which_were_seen(model, names, run.dataset, learned.classes, cfg.TEST.SEEN_CLASSES, str(learned.folder))
    fixed = method.predict.__func__ is PromptTrainer.predict.__func__
    return (partial(infer, method, model.eval(), mixed, options=options), model if fixed else None,
            _existing(method.test_transform(cfg)), partial(mixed.autocast, enabled=method.half_towers))


def _built_by_itself(cls: type, cfg, names: list[str], template: str | None, run: Run, learned: Run,
                     others: bool):
    """The same of a trainer that brings a model of its own: built without data, knowing the classes alone."""

    class WithoutData(cls):
        def build_data_loader(self) -> None:
            self.lab2cname = dict(enumerate(names))
            self.num_classes, self.num_source_domains = len(names), len(self.cfg.DATASET.SOURCE_DOMAINS)
            # Learning rates that step with batches ask how many there are.
            self.train_loader_x, self.train_loader_u, self.val_loader, self.test_loader = [None], None, None, None
            dataset = SimpleNamespace(classnames=names, template=template, lab2cname=self.lab2cname, train_x=[],
                                      num_classes=len(names), val=None, test=[])
            self.dm = SimpleNamespace(dataset=dataset, num_classes=len(names), lab2cname=self.lab2cname)

    WithoutData.__name__ = WithoutData.__qualname__ = cls.__name__
    trainer = WithoutData(cfg)
    models = trainer.get_model_names()
    if others and models:
        raise UserError(_bound(run, f"models of its own ({', '.join(models)}), which may know its classes"))
    if clip := getattr(getattr(trainer, "model", None), "clip", None):
        _check_weights(run, learned, clip)
    if LEARNER in models:               # holds all of it, also where parts are saved once more under other names
        load_weights(trainer._models[LEARNER], learned.learned, str(learned.checkpoint))
    elif models:
        trainer.load_model(str(learned.folder), learned.epoch)
    trainer.set_model_mode("eval")
    return trainer.model_inference, None, _existing(build_transform(cfg, is_train=False)), nullcontext


def _bound(run: Run, what: str) -> str:
    return (f"This run of {run.trainer} holds {what}, so it serves its own classes and no others: "
            f"{listed(run.classnames)}. Leave --classes out, or take a run whose prompts are shared by all classes.")


def _check_weights(run: Run, learned: Run, clip) -> None:
    found, recorded = getattr(clip, "sha256", None), run.weights | learned.weights
    if not found:                       # a CLIP of the trainer's own, of which nothing was recorded
        return
    if "random" in (found, *recorded):
        raise UserError(f"{run.folder} was made with untrained random weights ({clip.name}), which were not kept: "
                        "nothing can be predicted with it.")
    if not recorded:
        logger.warning("%s does not say which weights it used; those of %s are taken", run.folder, clip.name)
    elif wrong := recorded - {found}:
        raise UserError(f"{run.folder} used weights with sha256 {wrong.pop()[:12]}..., and {clip.name} is "
                        f"{found[:12]}...: what was learned with one CLIP means nothing to another. Give the right "
                        "file with --backbone FILE.")


def _existing(transform):
    if transform is None:
        raise UserError("This run was made with INPUT.NO_TRANSFORM: how its images became tensors is not recorded.")
    return transform
