"""TPT follows the authors' run image by image, and side by side is the same as one by one."""
import json

import pytest
import torch
from PIL import Image

from clip import FrozenCLIP, InputError
from dassl.config import CfgNode
from dassl.data.transforms.views import Views
from dassl.engine import build_trainer
from dassl.utils import UserError
from trainers.parts.classes import Classes
from trainers.parts.entropy import marginal_entropy, most_confident
from trainers.tpt import TPT


def assert_near(ours, theirs, tolerance):
    torch.testing.assert_close(ours, theirs.reshape(ours.shape), rtol=0, atol=tolerance * float(theirs.abs().max()))


def options(**changes):
    return CfgNode({"N_CTX": 4, "CTX_INIT": "a photo of a", "VIEWS": 20, "SELECT": 0.1, "STEPS": 1, "LR": 0.005,
                    **changes})


@pytest.fixture
def reference(golden, tiny_clip_weights):
    theirs = golden("tpt_20views")
    model = TPT.build(FrozenCLIP.from_state_dict(tiny_clip_weights), Classes(theirs.classnames), options())
    with torch.no_grad():
        model.brick("text").ctx.copy_(theirs.tensor("param/ctx"))
    return model, theirs, theirs.tensor("views").float()


def test_selection_loss_gradient_and_prediction_are_the_authors(reference, monkeypatch):
    model, theirs, views = reference
    steps, step = [], torch.optim.AdamW.step

    def watched(optimiser, *arguments):
        words, = optimiser.param_groups[0]["params"]
        steps.append(words.grad.clone())
        step(optimiser, *arguments)
        steps.append(words.detach().clone())

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    with torch.no_grad():
        plain = model(views.flatten(0, 1)).logits.unflatten(0, views.shape[:2])
    assert_near(plain, theirs.tensor("view_logits"), 1e-5)
    selected = most_confident(plain, 0.1)
    assert torch.equal(selected.sort().values, theirs.tensor("selected").sort().values)
    entropy = marginal_entropy(plain.take_along_dim(selected[..., None], dim=1))
    assert_near(entropy, theirs.tensor("entropy").float(), 1e-5)
    logits = TPT.predict(model, views, options())
    assert_near(steps[0], theirs.tensor("grad/ctx"), 1e-5)
    assert_near(steps[1], theirs.tensor("after1/ctx"), 5e-5)
    assert_near(logits, theirs.tensor("logits_after"), 5e-5)


def test_images_side_by_side_are_tuned_as_one_by_one_and_leave_nothing_behind(reference):
    model, _, views = reference
    before = {name: value.clone() for name, value in model.state_dict().items()}
    together = TPT.predict(model, views, options(STEPS=3))
    alone = torch.cat([TPT.predict(model, image[None], options(STEPS=3)) for image in views.flip(0)]).flip(0)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6 * float(alone.abs().max()))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_marginal_entropy_is_the_entropy_of_the_mean_probability():
    logits = 5 * torch.randn(3, 4, 6)
    mean = logits.softmax(-1).mean(1)
    torch.testing.assert_close(marginal_entropy(logits), -(mean * mean.log()).sum(-1))
    assert marginal_entropy(torch.tensor([[[1e4, 0.0]]])).isfinite().all()


def test_views_begin_with_the_plain_one_and_follow_the_seeded_stream(make_cfg):
    cfg, image = make_cfg("TPT"), Image.effect_noise((48, 40), 90).convert("RGB")
    views = Views(cfg, 5)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(views(image))
    assert drawn[0].shape == (5, 3, 32, 32) and torch.equal(drawn[0][0], views.plain(image))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0][1:], drawn[2][1:])


@pytest.mark.parametrize("batch_size, workers", [(1, 0), (5, 2)])
def test_an_image_is_answered_alike_whatever_its_batch_and_worker(make_cfg, tmp_path, batch_size, workers):
    def answers(*opts):
        trainer = build_trainer(make_cfg("TPT", "TRAINER.TPT.VIEWS", 10, *opts, output=tmp_path / str(len(opts))))
        trainer.test()
        return (tmp_path / str(len(opts)) / "predictions.csv").read_text(), trainer

    one, _ = answers()
    other, trainer = answers("DATALOADER.TEST.BATCH_SIZE", batch_size, "DATALOADER.NUM_WORKERS", workers)
    labels = [[line.split(",")[:3] for line in text.splitlines()] for text in (one, other)]
    assert labels[0] == labels[1]
    record = json.loads((tmp_path / "4" / "results.json").read_text())
    assert record["learned_at_test_time_from"] == "image"


@pytest.mark.parametrize("name", ["TPT", "CTPT", "ZERO", "PromptAlign"])
def test_one_view_is_refused_with_the_number_that_is_needed(make_cfg, name):
    for views in (1, 0):
        with pytest.raises(UserError, match=f"VIEWS must be at least 2, got {views}"):
            build_trainer(make_cfg(name, f"TRAINER.{name.upper()}.VIEWS", views))
    build_trainer(make_cfg("TDA", "TRAINER.TDA.VIEWS", 1))


def test_a_share_that_selects_no_view_is_refused(make_cfg):
    with pytest.raises(UserError, match="at least 1 of VIEWS 8"):
        build_trainer(make_cfg("TPT", "TRAINER.TPT.VIEWS", 8))
    with pytest.raises(InputError, match="at least 10 views"):
        most_confident(torch.zeros(1, 8, 3), 0.1)


def test_it_starts_from_the_words_of_a_coop_run(make_cfg, tmp_path):
    opts = ("TRAINER.COOP.N_CTX", 4, "TEST.NO_TEST", True)
    coop = build_trainer(make_cfg("CoOp", *opts))
    coop.train()
    file = str(tmp_path / "run" / "prompt_learner" / "model.pth.tar-2")
    trainer = build_trainer(make_cfg("TPT", "MODEL.INIT_WEIGHTS", file, output=tmp_path / "tpt"))
    assert torch.equal(trainer.model.brick("text").ctx, coop.model.brick("text").ctx)


@pytest.mark.parametrize("position", ["front", "middle"])
def test_it_keeps_the_class_name_where_the_coop_run_had_it(make_cfg, tmp_path, position):
    run = tmp_path / "run"
    cfg = make_cfg("CoOp", "TRAINER.COOP.N_CTX", 4, "TRAINER.COOP.CLASS_TOKEN_POSITION", position,
                   "OPTIM.MAX_EPOCH", 1, "TEST.NO_TEST", True, output=run)
    coop = build_trainer(cfg)
    coop.train()
    (run / "config.yaml").write_text(cfg.dump())
    trainer = build_trainer(make_cfg("TPT", "MODEL.INIT_WEIGHTS", str(run), output=tmp_path / "tpt"))
    assert torch.equal(trainer.model.text_features(), coop.model.text_features())
