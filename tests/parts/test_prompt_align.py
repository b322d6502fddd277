"""PromptAlign's tuning against the published loss written out, image by image; statistics against all images."""
import pytest
import torch

from clip import InputError
from dassl.config import CfgNode
from dassl.engine import build_trainer
from trainers.parts.classes import Classes
from trainers.parts.token_statistics import TokenStatistics, watched_features
from trainers.prompt_align import PromptAlign

OPTIONS = {"N_CTX": 2, "CTX_INIT": "a photo of a", "PROMPT_DEPTH": 2, "VIEWS": 6, "SELECT": 0.5, "STEPS": 2, "LR": 0.01,
           "LAYERS": 3, "WEIGHT": 100.0}


@pytest.fixture
def model(tiny_clip):
    torch.manual_seed(0)
    model = PromptAlign.build(tiny_clip, Classes(["cat", "dog", "small bird"]), CfgNode(OPTIONS)).eval()
    with torch.no_grad():
        images = torch.randn(9, 3, 32, 32)
        model.brick("statistics").fill([watched_features(model, part, 2)[1] for part in images.split(4)])
    return model, images


def test_statistics_are_those_of_all_images_at_once(model):
    model, images = model
    with torch.no_grad():
        seen = torch.stack(watched_features(model, images, 2)[1])                           # (2, 9, T, W)
    kept = model.brick("statistics")
    torch.testing.assert_close(kept.means, seen.mean(1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(kept.variances, seen.var(1, unbiased=False), atol=1e-5, rtol=1e-4)
    assert int(kept.images) == 9 and float(kept.distance(list(seen))) < 1e-4


def slow_literal(model, views):
    """The prompts of one image after two steps, as the paper's formulas have them, and its logits."""
    kept, learner = model.brick("statistics"), model.prompt_learner
    learned, chosen = list(learner.parameters()), None
    optimiser = torch.optim.AdamW(learned, OPTIONS["LR"])
    for _ in range(OPTIONS["STEPS"]):
        features, seen = watched_features(model, views, 2)
        logits = model.clip.scale * features @ model.text_for_head().t()
        p = logits.softmax(1)
        if chosen is None:
            chosen = sorted(range(len(p)), key=lambda v: float(-(p[v] * p[v].log()).sum().detach()))[:3]
        mean = p[chosen].mean(0)
        loss = -(mean * mean.log()).sum()
        for block in range(2):
            tokens = torch.stack([seen[block][v] for v in chosen])
            mu = sum(tokens) / 3
            var = sum((t - mu) ** 2 for t in tokens) / 3
            apart = (mu - kept.means[block]).abs().mean() / 2 + (var - kept.variances[block]).abs().mean() / 2
            loss = loss + 100.0 / 3 * apart
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        return model(views[:1]).logits


def test_each_image_is_tuned_by_the_published_loss_and_forgotten(model):
    model, _ = model
    views = torch.randn(2, 6, 3, 32, 32)
    before = {name: value.clone() for name, value in model.prompt_learner.state_dict().items()}
    with torch.no_grad():
        ours = PromptAlign.predict(model, views, CfgNode(OPTIONS))
    assert all(torch.equal(value, before[name]) for name, value in model.prompt_learner.state_dict().items())
    tolerance = 5e-5 * float(ours.abs().max())
    for image, logits in zip(views, ours, strict=True):
        model.prompt_learner.load_state_dict(before)
        torch.testing.assert_close(logits[None], slow_literal(model, image), rtol=0, atol=tolerance)


def test_prompts_are_as_before_also_after_an_error(model):
    model, _ = model
    before = {name: value.clone() for name, value in model.prompt_learner.state_dict().items()}
    with pytest.raises(InputError, match="not finite"):
        PromptAlign.predict(model, torch.randn(1, 6, 3, 32, 32) * float("nan"), CfgNode(OPTIONS))
    assert all(torch.equal(value, before[name]) for name, value in model.prompt_learner.state_dict().items())


def test_without_statistics_it_says_so(model, caplog):
    model, _ = model
    model.brick("statistics").images.fill_(0)
    with torch.no_grad():
        PromptAlign.predict(model, torch.randn(1, 6, 3, 32, 32), CfgNode(OPTIONS))
    assert "no token statistics" in caplog.text


def test_only_blocks_that_exist_are_aligned(tiny_clip):
    with pytest.raises(InputError, match="1 to 2 blocks"):
        TokenStatistics(tiny_clip, 3, 2)


def test_it_starts_from_a_run_of_maple(make_cfg, tmp_path):
    maple = build_trainer(make_cfg("MaPLe", "TEST.NO_TEST", True, output=tmp_path / "maple"))
    maple.train()
    trainer = build_trainer(make_cfg("PromptAlign", "MODEL.INIT_WEIGHTS", str(tmp_path / "maple"),
                                     "TRAINER.PROMPTALIGN.PROMPT_DEPTH", 1))
    theirs = maple.model.prompt_learner.state_dict()
    ours = trainer.model.prompt_learner.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in theirs.items())
