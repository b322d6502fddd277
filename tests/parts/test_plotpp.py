"""PLOT++'s phrases, its images with several prompts, and its two stages."""
import pytest
import torch
import torch.nn.functional as F
from random_clip import state_dict

from clip import FrozenCLIP, InputError, TextTokens, tokenize
from dassl.config import CfgNode
from dassl.engine import build_trainer
from dassl.utils import UserError
from tests.parts.five_steps import assert_near, follow, take_parameters
from trainers.parts.classes import Classes
from trainers.parts.phrases import PhrasePrompt
from trainers.parts.visual_prompt import PromptSets, VisualPrompt
from trainers.plotpp import PLOTPP

NAMES = ["cat", "yorkshire_terrier", "737-200"]
PHRASES = ("a photo of a", "this is a blurred photo of a", "a photo of", "one picture of a")


def build(clip, **changes):
    torch.manual_seed(5)
    options = CfgNode({"N": 4, "M": 3, "N_CTX_V": 2, "CTX_INIT": PHRASES, "N_CTX": 0, "VISION_SHARE": 0.5, **changes})
    return PLOTPP.build(clip, Classes(NAMES), options)


def test_five_training_steps_follow_the_authors(golden):
    theirs = golden("plotpp")
    clip = FrozenCLIP.from_state_dict(state_dict(theirs.json("clip")))
    pets = ("a photo of a pet", "one picture of a pet", "this is pet picture of", "one picture of a pet")
    model = PLOTPP.build(clip, Classes(theirs.classnames), CfgNode(
        {"N": 4, "M": 4, "N_CTX_V": 2, "CTX_INIT": pets, "N_CTX": 0, "VISION_SHARE": 0.5}))
    assert_near(model.brick("text").ctx.detach(), theirs.tensor("seed1_init/prompt_learner.ctx"))
    names = take_parameters(model, theirs)
    with torch.no_grad():
        out = model(theirs.tensor("images")[0])
    assert_near(out.image_features, F.normalize(theirs.tensor("image_features_per_prompt"), dim=-1))
    assert_near(out.text_features, F.normalize(theirs.tensor("text_features_per_prompt"), dim=-1))
    follow(model, theirs, lambda out, images, labels: F.cross_entropy(out.logits, labels), names)


@pytest.mark.parametrize("phrases", [PHRASES, PHRASES[:1] + PHRASES[3:]])
def test_each_context_starts_from_its_phrase_and_keeps_class_names_whole(tiny_clip, phrases):
    text = PhrasePrompt(tiny_clip, NAMES, phrases)
    found = text()
    found = torch.cat([tiny_clip.encode_text(own) for own in (found if isinstance(found, list) else [found])])
    assert text.ctx.shape == (len(phrases), 4, 64) and isinstance(text(), TextTokens) == (len(phrases) == 2)
    for own, phrase in zip(found, phrases, strict=True):
        if phrase != "a photo of":
            ids = torch.cat([tokenize(f"{phrase} {name.replace('_', ' ')}.") for name in NAMES])
            theirs = tiny_clip.encode_text(TextTokens(tiny_clip.embed_tokens(ids), ids.argmax(-1)))
            torch.testing.assert_close(own, theirs, rtol=0, atol=1e-5)
    if len(phrases) > 2:
        end = tiny_clip.embed_tokens(torch.tensor(49407))
        assert torch.equal(text.ctx[2, 3], end) and (found[2, 0] - found[2, 1]).norm() > 1e-3


def test_each_set_of_tokens_sees_the_images_by_itself(tiny_clip):
    sets, images = PromptSets(tiny_clip, 3, 2), torch.randn(2, 3, 32, 32)
    one = VisualPrompt(tiny_clip, 2, placement="end")
    together = tiny_clip.encode_image(images, sets).unflatten(0, (3, 2))
    for own, tokens in zip(together, sets.tokens, strict=True):
        one.tokens.data.copy_(tokens[None])
        torch.testing.assert_close(own, tiny_clip.encode_image(images, one), rtol=0, atol=1e-5)


def test_the_first_stage_adds_the_logit_of_pooled_features(tiny_clip):
    images = torch.randn(2, 3, 32, 32)
    alone, both = build(tiny_clip, VISION_SHARE=1), build(tiny_clip)
    image, text = alone.image_features(images, unit_norm=False), alone.text_for_head()
    pooled = tiny_clip.scale * F.normalize(image.mean(0), dim=-1) @ F.normalize(text.mean(0), dim=-1).T
    torch.testing.assert_close(alone(images).logits, both(images).logits + pooled)
    assert image.shape == (3, 2, 32) and text.shape == (4, 3, 32)


def test_visual_prompts_learn_alone_and_then_both_from_a_fresh_start(make_cfg):
    trainer = build_trainer(make_cfg("PLOTPP", "OPTIM.MAX_EPOCH", 5, "TRAINER.PLOTPP.VISION_SHARE", 0.4,
                                     "TEST.NO_TEST", True))
    text, seen, run = trainer.model.brick("text"), [], trainer.run_epoch
    first = text.ctx.detach().clone()

    def recorded():
        rates = [trainer.optim.param_groups[0]["lr"], bool(trainer.optim.state)]
        run()
        seen.append((trainer.model.head.with_pooled, torch.equal(text.ctx, first), *rates))

    trainer.run_epoch = recorded
    trainer.train()
    top = trainer.cfg.OPTIM.LR
    assert [row[:2] for row in seen] == [(True, True)] * 2 + [(False, False)] * 3
    assert [row[2] for row in seen] == pytest.approx([top, top / 2, top, top * 3 / 4, top / 4])
    assert [row[3] for row in seen] == [False, True, False, True, True]


@pytest.mark.parametrize("stop", [1, 2])
def test_a_run_that_stops_between_or_within_stages_resumes_to_the_same_bits(stop, make_cfg, tmp_path):
    opts = ("TEST.NO_TEST", True, "OPTIM.MAX_EPOCH", 4, "TRAIN.CHECKPOINT_FREQ", 1)
    whole = build_trainer(make_cfg("PLOTPP", *opts, output=tmp_path / "whole"))
    whole.train()
    stopped = build_trainer(make_cfg("PLOTPP", *opts, output=tmp_path / "stopped"))
    after_epoch = stopped.after_epoch

    def interrupted():
        after_epoch()
        if stopped.epoch == stop:
            raise KeyboardInterrupt

    stopped.after_epoch = interrupted
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    resumed = build_trainer(make_cfg("PLOTPP", *opts, "RESUME", tmp_path / "stopped", output=tmp_path / "stopped"))
    resumed.train()
    for ours, theirs in zip(*(t.model.prompt_learner.parameters() for t in (resumed, whole)), strict=True):
        assert torch.equal(ours, theirs)


def test_the_authors_checkpoint_loads_and_says_its_numbers(tiny_clip):
    state = build(tiny_clip).prompt_learner.state_dict()
    assert PLOTPP.options_of(state) == {"N": 4, "N_CTX": 4, "M": 3, "N_CTX_V": 2}
    assert PLOTPP.options_of({"ctx": state["ctx"]}) is None
    other = build(tiny_clip, CTX_INIT=(), N_CTX=4)
    other.prompt_learner.load_state_dict({
        **{f"prompt_learner.{name}": value for name, value in state.items()},
        "prompt_learner.token_prefix": torch.zeros(12, 1, 64), "image_encoder.proj": torch.zeros(2)})
    assert torch.equal(other.brick("text").ctx, state["ctx"])


def test_what_does_not_fit_is_refused(tiny_clip, make_cfg):
    for changes, error, message in (({"N": 5}, UserError, "4 phrases for N 5"), ({"M": 0}, InputError, "got 0 of 2"),
                                    ({"N_CTX_V": 0}, InputError, "got 3 of 0"), ({"N": 0}, InputError, "got 0"),
                                    ({"CTX_INIT": ("a", " ", "b", "c")}, InputError, "a phrase to start from")):
        with pytest.raises(error, match=message):
            build(tiny_clip, **changes)
    with pytest.raises(UserError, match="from 0 to 1, got 2"):
        build_trainer(make_cfg("PLOTPP", "TRAINER.PLOTPP.VISION_SHARE", 2.0))
    with pytest.raises(UserError, match="no epoch of both can be chosen"):
        build_trainer(make_cfg("PLOTPP", "TEST.FINAL_MODEL", "best_val"))
