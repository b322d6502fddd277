"""ProGrad against the authors' steps, and its projection against the paper's picture."""
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from clip import FrozenCLIP, tokenize
from dassl.config import CfgNode
from dassl.engine import build_trainer
from dassl.engine.hooks.on_nan import NotFinite
from dassl.utils import UserError
from tests.parts.five_steps import assert_near, follow
from trainers.parts.classes import Classes
from trainers.parts.gradient_surgery import without_conflict
from trainers.parts.teacher import mean_text_features
from trainers.prograd import ProGrad

NAMES = ["cat", "yorkshire_terrier", "737-200"]


def options(**changes):
    return CfgNode({"N_CTX": 16, "CTX_INIT": False, "TEMPLATE": "a type of pet, a photo of a {}.", "LAMBDA": 1.0,
                    "T": 1.0, "PREC": "fp32", **changes})


class TwoLosses:
    """What a step of ProGrad minimises, with its two backward passes."""

    def __init__(self, terms, ctx, share, cosines):
        self.terms, self.ctx, self.share, self.cosines = terms, ctx, share, cosines

    def item(self):
        return self.terms["ce"].item()

    def backward(self):
        guide, = torch.autograd.grad(self.terms["teacher"], self.ctx, retain_graph=True)
        own, = torch.autograd.grad(self.terms["ce"], self.ctx)
        self.cosines.append(F.cosine_similarity(own.flatten(), guide.flatten(), dim=0).item())
        self.ctx.grad = without_conflict(own, guide, self.share)


def test_five_steps_and_their_angles_are_the_authors(golden):
    from random_clip import state_dict

    theirs = golden("prograd_lambda1")
    clip, classes = FrozenCLIP.from_state_dict(state_dict(theirs.json("clip"))), Classes(theirs.classnames)
    model = ProGrad.build(clip, classes, options())
    teacher = mean_text_features(clip, classes, (options().TEMPLATE,))
    assert_near(teacher, theirs.tensor("zs_text_features"))
    trainer, cosines, summaries = SimpleNamespace(options=options(), model=model, teacher=teacher), [], []

    def loss(out, images, labels):
        terms = ProGrad.loss(trainer, out, {"label": labels})
        summaries.append(terms["teacher"].item())
        return TwoLosses(terms, model.brick("text").ctx, 1.0, cosines)

    follow(model, theirs, loss)
    assert cosines == pytest.approx(theirs.data["grad_cosines"].tolist(), abs=1e-4)
    assert min(cosines) < 0 < max(cosines)                                      # with and without a conflict
    assert summaries == pytest.approx([step["kl_loss"] for step in theirs.json("summaries")], rel=1e-5)


@given(seed=st.integers(0, 10_000), share=st.floats(0, 1), size=st.floats(1e-12, 1e12))
def test_a_conflict_is_taken_out_and_nothing_else_is_changed(seed, share, size):
    torch.manual_seed(seed)
    own, guide = torch.randn(3, 5), torch.randn(3, 5)
    found = without_conflict(own, guide * size, share)
    before, after = ((g.double() * guide.double()).sum() for g in (own, found))
    if before >= 0:
        assert torch.equal(found, own)
    else:
        assert after == pytest.approx((1 - share) * before.item(), abs=1e-5)
        across = own.double() - before / guide.double().square().sum() * guide.double()
        left = found.double() - after / guide.double().square().sum() * guide.double()
        torch.testing.assert_close(left, across, rtol=0, atol=1e-5)


def test_a_guide_that_vanishes_changes_nothing_and_nan_stays_nan():
    own = torch.randn(2, 3)
    assert torch.equal(without_conflict(own, torch.zeros(2, 3)), own)
    assert torch.equal(without_conflict(torch.zeros(2, 3), own), torch.zeros(2, 3))
    tiny = torch.full((2, 3), -1e-42)                                           # whose square is zero in float32
    assert without_conflict(torch.ones(2, 3), tiny).abs().max() < 1e-6
    assert without_conflict(own, torch.full((2, 3), float("nan"))).isnan().all()


def test_a_trainers_step_projects_the_gradient_of_its_cross_entropy(make_cfg):
    trainer = build_trainer(make_cfg("ProGrad", "TRAINER.PROGRAD.LAMBDA", 0.8, "TRAINER.PROGRAD.T", 2.0,
                                     "TRAIN.MAX_TOKENS", 30))                  # text in pieces, two backward passes
    batch, ctx = next(iter(trainer.train_loader_x)), trainer.model.brick("text").ctx
    with torch.no_grad():
        ctx += torch.randn_like(ctx)
    out = trainer.model(batch["img"])
    zero_shot = trainer.model.clip.scale * out.image_features @ trainer.teacher.T
    mixed = -((zero_shot / 2).softmax(1) * (out.logits / 2).log_softmax(1)).sum(1).mean() * 4
    plain = F.cross_entropy(out.logits, batch["label"])
    guide, own = (torch.autograd.grad(term, ctx, retain_graph=True)[0] for term in (mixed, plain))
    _, terms, loss = trainer.gradients(batch)
    torch.testing.assert_close(ctx.grad, without_conflict(own, guide, 0.8), rtol=0, atol=1e-5 * float(own.abs().max()))
    torch.testing.assert_close([loss, terms["teacher"]], [plain.detach(), mixed.detach()])


def test_a_teacher_without_a_finite_answer_ends_the_step_and_nothing_is_lost(make_cfg):
    trainer = build_trainer(make_cfg("ProGrad"))
    batch, ctx = next(iter(trainer.train_loader_x)), trainer.model.brick("text").ctx
    before = ctx.detach().clone()
    trainer.teacher = trainer.teacher * float("nan")
    with pytest.raises(NotFinite, match="its term teacher"):
        trainer.forward_backward(batch)
    assert torch.equal(ctx, before)
    trainer.loss = lambda out, batch: {"ce": out.logits.square().mean(),
                                       "teacher": NanGradient.apply(out.logits).mean()}
    with pytest.raises(NotFinite, match="gradient of .*ctx is infinite or NaN"):
        trainer.forward_backward(batch)
    assert torch.equal(ctx, before)


class NanGradient(torch.autograd.Function):
    @staticmethod
    def forward(_, x):
        return x.clone()

    @staticmethod
    def backward(_, gradient):
        return gradient * float("nan")


def test_the_context_starts_from_the_teachers_words_behind_zeros(tiny_clip):
    text = ProGrad.build(tiny_clip, Classes(NAMES), options(CTX_INIT=True)).brick("text")
    words = tiny_clip.embed_tokens(tokenize("a type of pet, a photo of a cat."))[0]
    assert torch.equal(text.ctx[:8], torch.zeros(8, 64)) and torch.equal(text.ctx[8:], words[1:9])
    tokens = text()                                             # eight words are nine tokens: the last "a" stays
    assert torch.equal(tokens.prefix[1:17], text.ctx) and torch.equal(tokens.prefix[17], words[9])
    assert len(tokens.prefix) == 18 and torch.equal(tokens.embeddings[0, :2], words[10:12])


def test_the_authors_checkpoint_is_read_and_known_by_its_context_alone(tiny_clip):
    theirs = {"ctx": torch.randn(16, 64), "token_prefix": torch.zeros(3, 1, 64), "token_suffix": torch.zeros(3, 60, 64)}
    model = ProGrad.build(tiny_clip, Classes(NAMES), options(CTX_INIT=True))
    model.prompt_learner.load_state_dict(dict(theirs))
    assert torch.equal(model.brick("text").ctx, theirs["ctx"])
    assert ProGrad.options_of({"ctx": theirs["ctx"]}) == {"N_CTX": 16}
    assert ProGrad.options_of({"ctx": torch.zeros(3, 16, 64)}) is ProGrad.options_of({}) is None


@pytest.mark.parametrize(("changes", "message"), [
    ({"TEMPLATE": "{} texture."}, "1 to 16 .*, got 0"), ({"N_CTX": 7}, "1 to 7 .*, got 8")])
def test_words_that_do_not_fit_the_context_are_refused(tiny_clip, changes, message):
    with pytest.raises(UserError, match=message):
        ProGrad.build(tiny_clip, Classes(NAMES), options(CTX_INIT=True, **changes))
