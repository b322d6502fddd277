"""The matrix: what every registered trainer must do, by the facts it declares. A new one joins by registering."""
import ast
import contextlib
import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dassl.engine import TRAINER_REGISTRY, build_trainer, plugins
from dassl.utils import UserError, set_random_seed
from dassl.utils.torchtools import load_weights
from tools import train
from tools.checkpoint_kinds import kind_of
from tools.plotting import features
from tools.predict import load
from tools.runs.run import Run
from trainers._build import build_on, infer
from trainers.method import Method
from trainers.parts.classes import Classes

ROOT = Path(__file__).resolve().parents[1]
plugins.discover("trainers")
OURS = sorted(name for name in TRAINER_REGISTRY.registered_names()
              if TRAINER_REGISTRY.get(name).__module__.startswith("trainers."))
METHODS = {name: TRAINER_REGISTRY.get(name) for name in OURS}
LEARNING = [name for name in OURS if METHODS[name].learns != "nothing"]
BY_GRADIENT = [name for name in OURS if METHODS[name].learns == "steps"]
RECOGNISED = [name for name in LEARNING if METHODS[name].options_of.__func__ is not Method.options_of.__func__]
TRAIN_HARD = ("MODEL.BACKBONE.NAME", "tiny", "OPTIM.MAX_EPOCH", 15, "OPTIM.WARMUP_EPOCH", -1)
LONG_FILES: dict[str, str] = {}     # file: why it is longer than 80 lines of code


def options_of(name, cfg):
    return cfg.TRAINER[METHODS[name].section] if METHODS[name].section else None


def is_bound(name):
    arguments = train.parser().parse_args(["--trainer", name, "--config-file",
                                           str(ROOT / "configs" / "trainers" / name / "tiny.yaml")])
    return bool(METHODS[name].bound_to_classes(options_of(name, train.setup_cfg(arguments))))


train.register()
GENERIC = [name for name in LEARNING if not is_bound(name)]
FIRST = {}                          # of the methods with the same facts
for _name in OURS:
    FIRST.setdefault((METHODS[_name].learns, METHODS[_name].adapts, METHODS[_name].needs_vit, _name in GENERIC), _name)


def each(names):
    """Parametrises a test; what has the facts of another one is left out of the quick tests."""
    return pytest.mark.parametrize("name", [name if name in FIRST.values() else
                                            pytest.param(name, marks=pytest.mark.sibling) for name in names])


def test_the_matrix_sees_the_trainers():
    assert len(OURS) >= 10 and len(GENERIC) >= 4 and set(BY_GRADIENT) < set(LEARNING) < set(OURS)


def built_without_data(name, make_cfg, classes=("one", "two words", "three"), opts=()):
    """A model from its towers, class names and options alone, and what it makes of two images."""
    cfg, method = make_cfg(name, *opts), METHODS[name]
    kinds = lambda kind, path: [[f"{kind} of {c}, sentence {i} of it" for i in range(25)] for c in classes]  # noqa: E731
    torch.manual_seed(0)
    size, seen = cfg.INPUT.SIZE[0], [True, False, True]
    model, mixed = build_on(method, cfg, Classes(classes, "a {}.", kinds, seen, size, seed=1), torch.device("cpu"))
    transform = method.test_transform(cfg)
    noise = np.random.RandomState(0).randint(0, 256, (2, size, size + 8, 3), np.uint8)
    images = torch.stack([transform(Image.fromarray(image)) for image in noise])

    def answer():
        set_random_seed(1)                      # of the views that some methods draw
        return infer(method, model, mixed, images, options_of(name, cfg))

    return model.eval(), answer


@each(OURS)
def test_it_answers_without_data_in_float32_and_close_to_it_in_bfloat16(name, make_cfg):
    model, answer = built_without_data(name, make_cfg)
    logits = answer()
    assert logits.shape == (2, 3) and logits.isfinite().all() and not logits.requires_grad
    assert all(not p.requires_grad for p in model.clip.parameters()) or model.brick("tower") is not None
    if section := METHODS[name].section:
        _, answer = built_without_data(name, make_cfg, opts=[f"TRAINER.{section}.PREC", "bf16"])
        share = 0.1 if METHODS[name].adapts else 0.05           # a step of tuning makes more of a rounding
        assert (answer().float() - logits).abs().max() < share * logits.abs().max().clamp(min=1)


@each(OURS)
def test_kept_text_features_follow_whatever_is_learned(name, make_cfg):
    """Each learned number may act on the text side: what was kept before it changed is never served afterwards."""
    model, answer = built_without_data(name, make_cfg)
    learned = [p for p in model.prompt_learner.parameters() if p.requires_grad and p.numel()]
    answer()
    for parameter in learned[::1 + len(learned) // 8]:          # the blocks of a tower have dozens of one kind
        with torch.no_grad():
            parameter.add_(torch.randn_like(parameter))
        kept = answer()
        model._cached = None
        assert torch.equal(kept, answer())


@each(RECOGNISED)
def test_its_own_checkpoints_are_known_as_its_and_fit_the_options_that_are_told(name, make_cfg):
    model, answer = built_without_data(name, make_cfg)
    answer()                                    # descriptions are drawn on first use
    saved = model.prompt_learner.state_dict()
    kind = kind_of(saved)
    assert name in kind.trainer.split(" or ") and METHODS[name].options_of(saved) is not None
    again, answer = built_without_data(name, make_cfg, opts=[
        word for option in kind.options if option.startswith(f"TRAINER.{METHODS[name].section}.")
        for word in option.split(" ", 1)])
    answer()
    assert again.prompt_learner.state_dict().keys() == saved.keys()
    load_weights(again.prompt_learner, saved, name)             # every shape fits


def has_fallen(losses):
    """Whether the last two epochs, of two steps each, have a loss clearly below that of the first two."""
    return len(losses) >= 8 and sum(losses[-4:]) < 0.9 * sum(losses[:4])    # a term that pulls may take it below zero


class Enough(Exception):
    """Ends a training."""


@each(BY_GRADIENT)
def test_its_loss_falls_and_the_frozen_weights_stay_as_they_are(name, make_cfg):
    def built(rate):
        return build_trainer(make_cfg(name, *TRAIN_HARD, "OPTIM.LR", rate, "TEST.NO_TEST", True))

    trainer = built(0.02)
    if trainer.model.brick("pixel") is not None:
        trainer = built(10.0)                       # pixels have small gradients
    model, step, losses, reached = trainer.model, trainer.forward_backward, [], set()
    frozen = {k: v.clone() for k, v in model.clip.state_dict(keep_vars=True).items() if not v.requires_grad}
    learned = {id(p) for p in model.prompt_learner.parameters() if p.requires_grad}

    def recorded(batch):
        values = step(batch)
        losses.append(values["loss"])
        reached.update(id(p) for p in model.parameters() if p.grad is not None)
        if has_fallen(losses) and reached == learned:
            raise Enough
        return values

    trainer.forward_backward = recorded
    with contextlib.suppress(Enough):
        trainer.train()
    assert sum(losses[:4]) > 0 and has_fallen(losses) and reached == learned
    now = model.clip.state_dict()
    assert all(torch.equal(v, now[k]) for k, v in frozen.items())


@each(BY_GRADIENT)
def test_a_term_called_ce_is_the_cross_entropy_of_its_logits(name, make_cfg):
    """A method that minimises something else calls it otherwise, and tests its formula itself."""
    trainer = build_trainer(make_cfg(name))
    batch = next(iter(trainer.train_loader_x))
    out, label = trainer.output(batch), batch["label"]
    terms = trainer.loss(out, batch)
    shares = out.logits.double().exp() / out.logits.double().exp().sum(1, keepdim=True)
    literal = -shares[range(len(label)), label].log().mean().item()
    assert terms.get("ce", torch.tensor(literal)).item() == pytest.approx(literal, rel=1e-5)
    assert terms and all(term.item() >= 0 for name, term in terms.items() if name != "pull")


_RUNS = {}


@pytest.fixture
def run_of(make_cfg, tmp_path_factory):
    """run_of(name) -> the method's run of two epochs with seed 1, made once: folder, learned, scores of test images.

    The folder was moved after the test, and its config names a root of datasets that does not exist.
    """
    def run(name):
        if name not in _RUNS:
            first, folder = (tmp_path_factory.mktemp(name) / word for word in ("first", "moved"))
            trainer = build_trainer(cfg := make_cfg(name, "TEST.NO_TEST", True, output=first))
            trainer.train()
            learned = [value.clone() for value in trainer.model.prompt_learner.state_dict().values()]
            _RUNS[name] = folder, learned, scores_of(trainer)
            trainer.test()
            cfg.defrost()
            cfg.DATASET.ROOT = str(folder.with_name("no_data"))
            (first / "config.yaml").write_text(cfg.dump())
            shutil.move(first, folder)
        return _RUNS[name]

    return run


def scores_of(trainer):
    trainer.set_model_mode("eval")
    with torch.no_grad():
        return trainer.model_inference(next(iter(trainer.test_loader))["img"])


@each(LEARNING)
def test_the_same_seed_learns_the_same_another_seed_does_not_and_what_was_saved_is_loaded(name, make_cfg, run_of,
                                                                                          tmp_path):
    def trained(seed):
        trainer = build_trainer(make_cfg(name, "TEST.NO_TEST", True, seed=seed, output=tmp_path / str(seed)))
        trainer.train()
        return trainer

    def is_as_learned(trainer):
        return all(map(torch.equal, learned, trainer.model.prompt_learner.state_dict().values()))

    folder, learned, scores = run_of(name)
    assert is_as_learned(trained(1))
    assert name not in FIRST.values() or not is_as_learned(trained(0))
    same_seed = METHODS[name].adapts                                # which also orders and crops test images
    loaded = build_trainer(make_cfg(name, seed=int(bool(same_seed)), output=tmp_path / "loaded"))
    loaded.load_model(str(folder))
    assert torch.equal(scores_of(loaded), scores)


@each(GENERIC)
def test_a_saved_prompt_serves_other_class_names(name, make_cfg, run_of):
    other = build_trainer(make_cfg(name, dataset="ToyOther"))
    other.load_model(str(run_of(name)[0]))
    assert scores_of(other).shape[1] == 3


def answers_of(folder):
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@each(OURS)
def test_a_moved_run_predicts_what_its_test_did_without_the_dataset(name, run_of):
    folder = run_of(name)[0]
    rows = answers_of(folder)
    found = load(folder, device="cpu").predict([row["path"] for row in rows], topk=1)
    assert len(rows) == 24
    if METHODS[name].adapts:                            # its views of an image are other draws than the test's
        assert sum(a.label == row["predicted"] for a, row in zip(found, rows, strict=True)) >= 16
        return
    assert [a.label for a in found] == [row["predicted"] for row in rows]
    assert [a.confidence for a in found] == pytest.approx([float(row["confidence"]) for row in rows], abs=2e-5)


@each(OURS)
def test_a_moved_run_serves_or_refuses_other_classes_as_the_method_says(name, run_of, make_cfg):
    folder, path = run_of(name)[0], answers_of(run_of(name)[0])[0]["path"]
    bound = METHODS[name].bound_to_classes(options_of(name, make_cfg(name)))
    names = ["blue", "red", "grey"]
    if bound:
        for others in (names, [*names, "green"]):       # fewer, and as many as the run's
            with pytest.raises(UserError, match=f"{bound}.*red_square"):
                load(folder, classes=others)
        return
    answer = load(folder, classes=names).predict(path)[0]
    assert {found for found, _ in answer.top} == set(names)
    assert sum(confidence for _, confidence in answer.top) == pytest.approx(1, abs=1e-5)


@each(OURS)
def test_its_features_are_drawn_or_it_is_said_why_not(name, run_of, make_cfg, tmp_path):
    folder = shutil.copytree(run_of(name)[0], tmp_path / "run")
    (folder / "config.yaml").write_text(make_cfg(name, output=folder).dump())               # where the dataset is there
    run = Run(folder)
    try:
        found = features.read(run, (), 24, 2)
    except UserError as error:
        assert f"is a run of {name}" in str(error) and "features of images" in str(error)
        method = METHODS[name]
        assert method.learns != "steps" or method.adapts or method.bound_to_classes(
            options_of(name, make_cfg(name)))
        return
    for side in (found.before, found.after):
        assert side.images.shape == (8, 32) and side.texts.shape == (4, 32)
        for unit in (side.images, side.texts):
            torch.testing.assert_close(unit.norm(dim=1), torch.ones(len(unit)), atol=1e-5, rtol=0)


@each(OURS)
def test_its_file_stays_under_80_lines_of_code_or_says_why(name):
    path = Path(__import__("inspect").getfile(TRAINER_REGISTRY.get(name)))
    lines = code_lines(path.read_text())
    assert lines <= 80 or path.name in LONG_FILES, f"{path.name} has {lines} lines of code"


def code_lines(source):
    """Lines that are neither blank, nor a comment, nor part of a docstring."""
    documentation = set()
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            documentation |= set(range(first.lineno, first.end_lineno + 1))
    return sum(1 for number, line in enumerate(source.splitlines(), 1)
               if line.strip() and not line.strip().startswith("#") and number not in documentation)
