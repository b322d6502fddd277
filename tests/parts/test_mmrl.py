"""MMRL's tokens, head and losses against the authors' numbers and a slow literal reading of the description."""
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from clip import FrozenCLIP, InputError, tokenize
from dassl.config import CfgNode
from dassl.engine import build_trainer
from dassl.utils import UserError
from tests.parts.five_steps import assert_near, follow
from trainers.mmrl import MMRL
from trainers.parts.classes import Classes
from trainers.parts.teacher import mean_text_features

NAMES = ["cat", "yorkshire_terrier", "737-200"]
ALL = [True] * 3


def options(layers=(2, 3), n=2, width=16, alpha=0.7):
    return CfgNode({"N_REP_TOKENS": n, "REP_DIM": width, "REP_LAYERS": layers, "ALPHA": alpha, "REG_WEIGHT": 0.5,
                    "PREC": "fp32"})


def build(clip, *args, seen=ALL, **kwargs):
    torch.manual_seed(3)
    model = MMRL.build(clip, Classes(NAMES, "a {} here.", seen=seen), options(*args, **kwargs))
    with torch.no_grad():
        for parameter in model.prompt_learner.parameters():
            parameter += torch.randn_like(parameter) * 0.3
    return model.eval()


def slow_literal_features(clip, learned, images, n, layers):
    """77 and more tokens per class, all blocks in full, with the authors' names of the parameters."""
    shared = "representation_learner.compound_rep_tokens"

    def projected(tower, layer):
        w, b = (learned[f"{shared}_{tower}proj.{layers.index(layer)}.{kind}"] for kind in ("weight", "bias"))
        return learned[shared] @ w.T + b

    def through(blocks, x, tower, causal):
        for i, block in enumerate(blocks, 1):
            if i == layers[0]:
                x = torch.cat([x[:1], projected(tower, i), x[1:]])
            elif i in layers:
                x = torch.cat([x[:1], projected(tower, i), x[1 + n:]])
            x = block(x[None], causal=causal)[0]
        return x

    texts, mains, reps = [], [], []
    for name in NAMES:
        ids = tokenize(f"a {name.replace('_', ' ')} here.")[0]
        x = through(clip.transformer.resblocks, clip.embed_tokens(ids) + clip.positional_embedding, "r2t", True)
        assert len(x) == 77 + n
        texts.append(clip.ln_final(x)[ids.argmax() + n] @ clip.text_projection)
    for image in images:
        patches = clip.visual.conv1(image[None])[0].flatten(1).T
        x = torch.cat([clip.visual.class_embedding[None], patches]) + clip.visual.positional_embedding
        x = through(clip.visual.transformer.resblocks, clip.visual.ln_pre(x), "r2v", False)
        x = clip.visual.ln_post(x)
        mains.append(x[0] @ clip.visual.proj)
        reps.append(x[1:1 + n].mean(0) @ learned["image_encoder.proj_rep"])
    return [F.normalize(torch.stack(f), dim=-1) for f in (texts, mains, reps)]


@pytest.mark.parametrize(("layers", "n"), [((2, 3), 2), ((1,), 3), ((1, 2, 3), 1), ((3,), 2), ((1, 3), 2)])
def test_logits_and_gradients_are_those_of_the_description(tiny_clip, layers, n):
    model = build(tiny_clip, layers, n)
    learned = {k: v.detach().clone().requires_grad_() for k, v in model.prompt_learner.state_dict().items()}
    images = torch.randn(2, 3, 32, 32)
    out = model(images)
    texts, main, rep = slow_literal_features(tiny_clip, learned, images, n, layers)
    theirs = 0.7 * 100 * main @ texts.T + 0.3 * 100 * rep @ texts.T
    assert_near(out.logits.detach(), theirs.detach())
    assert_near(out.image_features.detach(), main.detach())
    weight = torch.randn_like(theirs)
    (out.logits * weight).sum().backward()
    (theirs * weight).sum().backward()
    saved = model.prompt_learner.saved_as
    for name, parameter in model.prompt_learner.named_parameters():
        assert_near(parameter.grad, learned[saved[name]].grad, 2e-5)


def of_the_authors(theirs):
    from random_clip import state_dict

    clip, c = FrozenCLIP.from_state_dict(state_dict(theirs.json("clip"))), theirs.options("MMRL")
    classes = Classes(theirs.classnames, "a photo of a {}, a type of pet.", seen=[True] * 19)
    return clip, c, classes, MMRL.build(clip, classes, c)


def test_their_checkpoint_gives_their_logits(golden):
    theirs = golden("mmrl_l23")
    *_, model = of_the_authors(theirs)
    (layout,) = theirs.json("registered_models").values()                # a whole CLIP, and fixed words
    state = {name: torch.zeros(shape) for name, (shape, _) in layout.items()}
    state |= {name: theirs.tensor(f"param/{name}") for name in layout if f"param/{name}" in theirs.data}
    model.prompt_learner.load_state_dict(state)
    for seen, logits in ((True, "logits_fusion"), (False, "logits_main")):
        model.saw([seen] * 19)
        with torch.no_grad():
            assert_near(model.eval()(theirs.tensor("images")[0]).logits, theirs.tensor(logits))


def test_it_takes_the_authors_steps(golden):
    theirs = golden("mmrl_l23")
    clip, c, classes, model = of_the_authors(theirs)
    method = SimpleNamespace(model=model, options=c, inputs=lambda batch: batch["img"],
                             teacher_text=mean_text_features(clip, classes))

    def loss(out, images, labels):
        return sum(MMRL.loss(method, out, {"img": images, "label": labels}).values())

    follow(model, theirs, loss, logits="logits_fusion")
    model.saw([False] * 19)
    with torch.no_grad():
        assert_near(model(theirs.tensor("images")[0]).logits, theirs.tensor("logits_after5_main"), 5e-5)


def test_new_classes_are_scored_by_the_class_token_alone_one_by_one(tiny_clip):
    model, images = build(tiny_clip, seen=[True, False, True]), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        out = model(images)
    mixed = 0.7 * out.aux["main"] + 0.3 * out.aux["rep"]
    assert torch.equal(out.logits[:, [0, 2]], mixed[:, [0, 2]])
    assert torch.equal(out.logits[:, 1], out.aux["main"][:, 1]) and not torch.equal(out.logits, mixed)


@pytest.mark.parametrize("seen", [None, [True, False]])
def test_where_nobody_says_what_was_seen_it_trains_and_is_not_tested(tiny_clip, seen):
    model = build(tiny_clip, seen=seen)
    assert model.train()(torch.randn(1, 3, 32, 32)).logits.shape == (1, 3)
    with pytest.raises(InputError, match="of these 3 classes it is unknown"):
        model.eval()(torch.randn(1, 3, 32, 32))


def test_the_run_that_is_tested_says_what_it_saw(make_cfg, tmp_path):
    def seen(*opts, **kwargs):
        trainer = build_trainer(make_cfg("MMRL", *opts, **kwargs))
        trainer.load_model(str(tmp_path / "run" / "prompt_learner" / "model.pth.tar-2"))
        return trainer.model.head.seen.tolist()

    trained = build_trainer(make_cfg("MMRL", "TEST.NO_TEST", True))
    trained.train()
    assert trained.model.head.seen.tolist() == [True] * 4
    assert seen(output=tmp_path / "a") == [True] * 4
    assert seen(output=tmp_path / "b", dataset="ToyOther") == [False] * 3
    assert seen("TEST.SEEN_CLASSES", "none", output=tmp_path / "c") == [False] * 4
    (tmp_path / "run" / "classes.json").unlink()
    assert seen("TEST.SEEN_CLASSES", "all", output=tmp_path / "d") == [True] * 4
    with pytest.raises(UserError, match="TEST.SEEN_CLASSES to all"):
        seen(output=tmp_path / "e")


def test_what_is_drawn_comes_in_the_published_order(tiny_clip):
    torch.manual_seed(7)
    model = MMRL.build(tiny_clip, Classes(NAMES), options())
    torch.manual_seed(7)
    tokens = torch.nn.init.normal_(torch.empty(2, 16), std=0.02)
    vision, text = torch.nn.Linear(16, 64), torch.nn.Linear(16, 64)
    visual, textual = model.brick("visual"), model.brick("text_tuner")
    assert torch.equal(visual.tokens, tokens)
    assert all(torch.equal(layer.weight, vision.weight) for layer in visual.deeper)
    assert all(torch.equal(layer.weight, text.weight) for layer in textual.deeper)
    assert abs(model.head.projection.std() - 64 ** -0.5) < 0.02


def test_a_checkpoint_tells_the_tokens_and_their_width(tiny_clip):
    weights = build(tiny_clip, (1, 2, 3), 3, 24).prompt_learner.state_dict()
    assert MMRL.options_of(weights) == {"N_REP_TOKENS": 3, "REP_DIM": 24} and len(weights) == 2 + 2 * 2 * 3
    assert MMRL.options_of({}) is None and MMRL.options_of({"ctx": torch.zeros(2, 3)}) is None


@pytest.mark.parametrize(("kwargs", "message"), [
    ({"layers": (3, 4)}, "from 1 to 3 in the.*got 3, 4"), ({"layers": (0, 1)}, "got 0, 1"),
    ({"layers": (3, 2)}, "rising order.*got 3, 2"), ({"layers": (2, 2)}, "got 2, 2"), ({"layers": ()}, "got none"),
    ({"layers": ("a",)}, "got a"), ({"n": 0}, "got 0 of 16"), ({"alpha": 1.5}, "from 0 to 1, got 1.5")])
def test_what_cannot_work_is_refused(tiny_clip, kwargs, message):
    with pytest.raises(InputError, match=message):
        MMRL.build(tiny_clip, Classes(NAMES), options(**kwargs))
