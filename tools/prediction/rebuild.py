"""A run folder, or zero-shot CLIP with class names of one's own, as a classifier; no dataset is needed.

Nothing of a run folder is executed: settings are plain data, checkpoints are tensors, and a plugin that the run was
made with is imported only if it is named again.
"""
from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import torch

from clip.backbones import file_in
from dassl.data.transforms import build_transform
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from dassl.utils.torchtools import load_weights
from tools import train
from tools.plotting.run import LEARNER
from tools.prediction.classifier import Classifier
from tools.prediction.source import Source

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
        plugins: files or modules that define the run's trainer, where it is none of this checkout.
        float32: compute in it, whatever the run did.
    Raises:
        UserError: no run, other weights, classes that its prompts do not serve.
    """
    run = Source(Path(folder).expanduser(), epoch, root, plugins)
    learned = run.learned_in
    cfg = _settings(run, backbone, device, float32)
    names, own = list(classes), not classes
    if own:
        names = run.names               # of two labels with one name, or of one class alone, too
    else:
        check_classes(names)
    template = _template(run, template)
    trainer = _built(cfg, names, template)
    if not own:
        _refuse_bound(run, trainer, _built(cfg, [*names, names[0]], template))
    _check_weights(run, learned, trainer)
    _load(learned, trainer)
    trainer.set_model_mode("eval")
    facts = {"run": str(run.folder), "trainer": run.trainer, "dataset": run.dataset,
             "backbone": cfg.MODEL.BACKBONE.NAME, "sha256": run.backbone.get("sha256", ""), "template": template or "",
             "classes": "the run's" if own else "given", "accuracy": run.record.get("metrics", {}).get("accuracy")}
    return Classifier(names, trainer.model_inference, _transform(cfg), cfg.DATALOADER.TEST.BATCH_SIZE, trainer.device,
                      facts, getattr(trainer, "model", None))


def zero_shot(backbone: str, classes: Sequence[str], template: str = "", device: str = "auto") -> Classifier:
    """CLIP's own answer: class names in a sentence, nothing learned.

    Args:
        backbone: as MODEL.BACKBONE.NAME takes it.
        template: sentence with one {}; "": "a photo of a {}."
    """
    train.register()
    from clip import encode_texts, load_clip
    from clip.templates import DEFAULT, fill
    from dassl.config import get_cfg_default
    from datasets.folder import checked_template
    from trainers._checks import as_user_error
    from trainers.parts.prompted_model import PromptedModel

    check_classes(classes)
    template, where = checked_template(template or DEFAULT), torch_device(device)
    with as_user_error():
        clip = load_clip(backbone, where)
        model = PromptedModel(clip, bank=encode_texts(clip, fill(template, list(classes)))).to(where).eval()
    cfg = get_cfg_default()
    cfg.INPUT.SIZE, cfg.INPUT.INTERPOLATION, cfg.INPUT.TRANSFORMS = (clip.image_size,) * 2, "bicubic", ("normalize",)
    cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD = list(clip.mean), list(clip.std)
    facts = {"run": "", "trainer": "zero-shot CLIP", "dataset": "", "backbone": clip.name, "sha256": clip.sha256,
             "template": template, "classes": "given", "accuracy": None}
    return Classifier(list(classes), lambda images: model(images).logits, _transform(cfg), ZERO_SHOT_BATCH, where,
                      facts, model)


def check_classes(names: Sequence[str]) -> None:
    """Raises UserError unless these class names of a user's are two or more, each once."""
    twice = sorted({name for name in names if list(names).count(name) > 1}) if len(set(names)) < len(names) else []
    if len(names) < 2 or twice or not all(name.strip() for name in names):
        what = f"{twice[0]!r} is there twice" if twice else f"got {', '.join(map(repr, names)) or 'none'}"
        raise UserError(f"Classes are two or more names, each once and not empty; {what}. As in "
                        '--classes "cat, dog, bird".')


def torch_device(device: str) -> torch.device:
    """Raises UserError for cuda where PyTorch sees no GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda needs a GPU that PyTorch sees, and there is none. Leave it out, or look at "
                        "python tools/doctor.py.")
    return torch.device("cuda:0" if device != "cpu" and torch.cuda.is_available() else "cpu")


def _settings(run: Source, backbone: str, device: str, float32: bool):
    """The run's config, for predicting alone."""
    cfg = run.cfg.clone()
    cfg.defrost()
    cfg.USE_CUDA = torch_device(device).type == "cuda"
    cfg.MODEL.INIT_WEIGHTS, cfg.RESUME, cfg.VERBOSE = "", "", False
    cfg.TRAIN.COMPILE = False                       # pays after thousands of images only
    for section in cfg.TRAINER.values():
        if float32 and isinstance(section, dict) and "PREC" in section:
            section.PREC = "fp32"
    cfg.MODEL.BACKBONE.NAME = backbone or cfg.MODEL.BACKBONE.NAME
    file = file_in(cfg.MODEL.BACKBONE.NAME)
    if not backbone and file and not file.exists():
        raise UserError(f"The run used the weights {file}, sha256 {run.backbone.get('sha256', 'unknown')[:12]}, which "
                        "are not there. Say where that file is now with --backbone FILE.")
    cfg.freeze()
    return cfg


def _template(run: Source, given: str) -> str | None:
    from datasets.folder import checked_template

    if not given:
        return run.template
    if run.trainer != "ZeroshotCLIP":
        raise UserError(f"--template puts class names into a sentence of your own, as ZeroshotCLIP does; {run.trainer} "
                        "brings its own words. Leave it out, or predict without --run.")
    return checked_template(given)


def shapes_without_data(cfg, names: list[str]) -> dict[str, torch.Size]:
    """Of all that the config's trainer learns for these classes."""
    trainer = _built(cfg, names, None)
    return {f"{model}.{name}": value.shape for model in trainer.get_model_names()
            for name, value in trainer._models[model].named_parameters()}


def _built(cfg, names: list[str], template: str | None):
    """The run's trainer with these classes and without any data."""
    cls = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)

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
    return WithoutData(cfg)


def _check_weights(run: Source, learned: Source, trainer) -> None:
    clip = getattr(getattr(trainer, "model", None), "clip", None)
    found, told = getattr(clip, "sha256", None), run.weights | learned.weights
    if not found:                       # a trainer with a CLIP of its own, of which nothing was recorded
        return
    if "random" in (found, *told):
        raise UserError(f"{run.folder} was made with untrained random weights ({clip.name}), which were not kept: "
                        "nothing can be predicted with it.")
    if not told:
        logger.warning("%s does not say which weights it used; those of %s are taken", run.folder, clip.name)
    elif wrong := told - {found}:
        raise UserError(f"{run.folder} used weights with sha256 {wrong.pop()[:12]}..., and {clip.name} is "
                        f"{found[:12]}...: what was learned with one CLIP means nothing to another. Give the right "
                        "file with --backbone FILE.")


def _load(run: Source, trainer) -> None:
    """What was learned, into the trainer's models."""
    models = trainer.get_model_names()
    if LEARNER in models:               # holds all of it, also where parts are saved once more under other names
        load_weights(trainer._models[LEARNER], run.learned, str(run.checkpoint))
    elif models:
        trainer.load_model(str(run.folder), run.epoch)


def _refuse_bound(run: Source, trainer, larger) -> None:
    """Raises UserError where something was learned for each class.

    Args:
        trainer, larger: the same trainer with one class more; what is learned for each class has another shape there.
    """
    if not (models := trainer.get_model_names()):
        return
    if LEARNER not in models:
        raise UserError(f"{run.trainer} may have learned something for each of its classes; other class names are for "
                        f"trainers whose prompts are saved as {LEARNER}. Leave --classes out.")
    some, more = ({name: value.shape for name, value in built._models[LEARNER].state_dict().items()}
                  for built in (trainer, larger))
    if bound := [name for name in some if some[name] != more.get(name)]:
        raise UserError(f"In this run {run.trainer} learned something for each of its own classes "
                        f"({', '.join(bound)}), so it serves these and no others: {_few(run.names)}. Leave --classes "
                        "out, or take a run whose prompts are shared by all classes.")


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _transform(cfg):
    if (transform := build_transform(cfg, is_train=False)) is None:
        raise UserError("This run was made with INPUT.NO_TRANSFORM: how its images became tensors is not recorded.")
    return transform
