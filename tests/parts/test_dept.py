"""DePT's linear classifier beside the cosines, on CoOp and on another method."""
import pytest
import torch
import torch.nn.functional as F

from clip import InputError
from dassl.config import CfgNode
from dassl.engine import build_trainer
from dassl.utils import UserError
from tests.parts.five_steps import follow
from trainers.cocoop import CoCoOp
from trainers.dept import SAVED_AS, Decoupled, DePT
from trainers.maple import MaPLe
from trainers.parts.classes import Classes

NAMES = ["cat", "yorkshire_terrier", "737-200"]
OPTIONS = {"WEIGHT": 0.7, "N_CTX": 4, "CSC": False, "CTX_INIT": "", "CLASS_TOKEN_POSITION": "end"}


class OnMaPLe(Decoupled, MaPLe):
    pass


def build(clip, seen=(True, True, True), names=NAMES, method=DePT, **changes):
    torch.manual_seed(3)
    model = method.build(clip, Classes(names, seen=seen), CfgNode({**OPTIONS, **changes}))
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter += torch.randn_like(parameter) * 0.3
    return model


def trainer_of(method, model):
    trainer = method.__new__(method)
    trainer.__dict__.update(model=model, cfg=CfgNode({"TRAINER": {method.section: {**OPTIONS}}}))
    return trainer


def test_five_training_steps_follow_the_authors(tiny_clip, golden):
    theirs = golden("dept_coop")
    names = {"text.ctx": "prompt_learner.ctx", **SAVED_AS}

    def optimiser(learned):
        optim = theirs.json("optim")
        slow, fast = optim["lrs"]["PromptLearner"]
        assert fast == pytest.approx(Decoupled.rates["head"] * slow)
        return torch.optim.SGD([{"params": [p], "lr": slow if name == "text.ctx" else fast}
                                for name, p in learned.items()], slow, optim["momentum"],
                               weight_decay=optim["weight_decay"])

    model = DePT.build(tiny_clip, Classes(theirs.classnames, seen=[True] * 19), CfgNode(OPTIONS))
    trainer = trainer_of(DePT, model)
    follow(model, theirs, lambda out, images, labels: sum(trainer.loss(out, {"label": labels}).values()), names,
           optimiser=optimiser)


@pytest.mark.parametrize("method", [DePT, OnMaPLe])
def test_loss_and_logits_are_those_of_the_description(tiny_clip, method):
    changes = {} if method is DePT else {"PROMPT_DEPTH": 2, "CTX_INIT": "a photo of a", "N_CTX": 2}
    model, images, label = build(tiny_clip, method=method, **changes), torch.randn(2, 3, 32, 32), torch.tensor([2, 0])
    terms = trainer_of(method, model).loss(model.train()(images), {"label": label})
    head, (image, text) = model.head, (model.image_features(images, unit_norm=False), model.text_for_head())
    rows = [text[2] * head.text_channels.scale + head.text_channels.bias,
            text[0] * head.text_channels.scale + head.text_channels.bias,
            *(image * head.image_channels.scale + head.image_channels.bias)]
    linear = torch.stack([head.linear.weight @ row + head.linear.bias for row in rows])
    cosine = tiny_clip.scale * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    torch.testing.assert_close(terms["cosine"], 0.3 * F.cross_entropy(cosine, label), rtol=1e-5, atol=0)
    torch.testing.assert_close(terms["linear"], 0.7 * F.cross_entropy(linear, label.repeat(2)), rtol=1e-5, atol=0)
    torch.testing.assert_close(model.eval()(images).logits, 0.3 * cosine + 0.7 * linear[2:], rtol=1e-5, atol=1e-5)


def test_new_classes_have_the_cosine_alone(tiny_clip):
    trained, images = build(tiny_clip).eval(), torch.randn(2, 3, 32, 32)
    other = build(tiny_clip, names=["dog", *NAMES, "ship"], seen=(False, True, True, True, False))
    other.prompt_learner.load_state_dict(trained.prompt_learner.state_dict())
    found, old = other.eval()(images), trained(images)
    torch.testing.assert_close(found.logits[:, 1:4], old.logits)
    assert torch.equal(found.logits[:, [0, 4]], found.aux["cosine"][:, [0, 4]])
    other.saw([False] * 5)
    assert torch.equal(other(images).logits, found.aux["cosine"])


def test_what_was_seen_must_be_known_and_fit(tiny_clip):
    model, images = build(tiny_clip, seen=None), torch.randn(1, 3, 32, 32)
    model.train()(images)
    with pytest.raises(InputError, match="of these 3 classes it is unknown"):
        model.eval()(images)
    model.saw([True, False, False])
    with pytest.raises(InputError, match="saw 1 of these 3 classes.*knows 3"):
        model(images)


def test_the_head_learns_faster_than_the_prompts(make_cfg):
    trainer = build_trainer(make_cfg("DePT", "OPTIM.LR", 0.002))
    rates = {id(p): group["lr"] for group in trainer.optim.param_groups for p in group["params"]}
    named = dict(trainer.model.prompt_learner.named_parameters())
    assert rates[id(named["text.ctx"])] == 0.002 and len(rates) == 7
    assert all(rates[id(p)] == pytest.approx(0.013) for name, p in named.items() if name.startswith("head."))


def test_the_authors_checkpoint_loads_and_says_its_words(tiny_clip):
    model = build(tiny_clip)
    state = model.prompt_learner.state_dict()
    assert DePT.options_of(state) == {"N_CTX": 4, "CSC": False}
    assert DePT.options_of({"ctx": state["ctx"]}) is None and OnMaPLe.options_of(state) is None
    theirs = {"prompt_learner.ctx": state["ctx"], "prompt_learner.token_prefix": torch.zeros(3, 1, 64),
              "image_encoder.proj": torch.zeros(2), **{name: state[name] for name in SAVED_AS.values()}}
    other = build(tiny_clip, names=["dog", "ship"], seen=(False, False))
    other.prompt_learner.load_state_dict(theirs)
    assert torch.equal(other.head.linear.weight, model.head.linear.weight)


def test_what_it_cannot_stand_on_is_refused(tiny_clip):
    class OnCoCoOp(Decoupled, CoCoOp):
        pass

    with pytest.raises(UserError, match="OnCoCoOp does otherwise"):
        build(tiny_clip, method=OnCoCoOp)
    with pytest.raises(InputError, match="from 0 to 1, got 1.5"):
        build(tiny_clip, WEIGHT=1.5)
