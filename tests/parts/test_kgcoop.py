"""KgCoOp against a slow literal reading of its description."""
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from clip import FrozenCLIP, InputError, TextTokens, tokenize
from dassl.config import CfgNode
from trainers.kgcoop import KgCoOp
from trainers.parts.classes import Classes
from trainers.parts.teacher import mean_text_features

NAMES = ["cat", "yorkshire_terrier", "737-200"]
OPTIONS = CfgNode({"N_CTX": 4, "CTX_INIT": "a photo of a", "TEMPLATE": "a photo of a {}, a type of pet.", "W": 8.0})


def literal_feature(clip, sentence, ctx=None):
    """77 tokens, one class at a time; `ctx` in place of the first words."""
    ids = tokenize(sentence)
    words = clip.embed_tokens(ids)
    if ctx is not None:
        words = torch.cat([words[:, :1], ctx[None], words[:, 1 + len(ctx):]], dim=1)
    return clip.encode_text(TextTokens(words, ids.argmax(dim=-1)), unit_norm=False)[0]


def test_the_loss_is_that_of_the_description(tiny_clip):
    torch.manual_seed(2)
    model = KgCoOp.build(tiny_clip, Classes(NAMES), OPTIONS)
    ctx = model.brick("text").ctx
    assert torch.equal(ctx, tiny_clip.embed_tokens(tokenize("a photo of a"))[0, 1:5])
    with torch.no_grad():
        ctx += torch.randn_like(ctx) * 0.3
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 2, 1, 1])
    names = [name.replace("_", " ") for name in NAMES]
    learned = torch.stack([literal_feature(tiny_clip, f"X X X X {name}.", ctx) for name in names])
    fixed = torch.stack([literal_feature(tiny_clip, f"a photo of a {name}, a type of pet.") for name in names])
    features = tiny_clip.encode_image(images)
    logits = tiny_clip.scale * features @ (learned / learned.norm(dim=1, keepdim=True)).T
    expected = F.cross_entropy(logits, labels) + 8 * (1 - F.cosine_similarity(learned, fixed.detach(), dim=1).mean())
    teacher = mean_text_features(tiny_clip, Classes(NAMES), (OPTIONS.TEMPLATE,))
    trainer = SimpleNamespace(options=OPTIONS, teacher=teacher)
    found = sum(KgCoOp.loss(trainer, model(images), {"label": labels}).values())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    ours, theirs = (torch.autograd.grad(value, ctx, retain_graph=True)[0] for value in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))


def test_a_teacher_of_other_classes_or_another_width_is_refused(tiny_clip):
    model, batch = KgCoOp.build(tiny_clip, Classes(NAMES), OPTIONS), {"label": torch.tensor([0])}
    out = model(torch.randn(1, 3, 32, 32))
    for teacher in (torch.randn(2, 32), torch.randn(3, 16)):
        with pytest.raises(InputError, match=rf"\(3, 32\), the teacher's \({teacher.shape[0]}, {teacher.shape[1]}\)"):
            KgCoOp.loss(SimpleNamespace(options=OPTIONS, teacher=teacher), out, batch)


def test_the_teachers_texts_go_through_the_tower_once_and_only_for_training(make_cfg, monkeypatch):
    from dassl.engine import build_trainer

    passes, encode = [], FrozenCLIP.encode_text
    monkeypatch.setattr(FrozenCLIP, "encode_text", lambda self, *args, **more: passes.append(torch.is_grad_enabled())
                        or encode(self, *args, **more))
    trainer = build_trainer(make_cfg("KgCoOp"))
    assert passes == []
    batch = next(iter(trainer.train_loader_x))
    for _ in range(3):
        trainer.loss(trainer.output(batch), batch)
    assert sorted(passes) == [False, True, True, True]


def test_the_authors_checkpoint_with_what_nothing_uses_is_known_and_read(tiny_clip):
    theirs = {"ctx": torch.randn(4, 64), "bias_vectors": torch.zeros(1, 512), "token_prefix": torch.zeros(3, 1, 64),
              "meta_net.linear1.weight": torch.zeros(512, 512), "meta_net.linear1.bias": torch.zeros(512)}
    assert KgCoOp.options_of({k: v for k, v in theirs.items() if k != "token_prefix"}) == {"N_CTX": 4}
    assert KgCoOp.options_of({"ctx": theirs["ctx"]}) == {"N_CTX": 4}
    assert KgCoOp.options_of({"ctx": theirs["ctx"], "w": torch.zeros(1)}) is None
    model = KgCoOp.build(tiny_clip, Classes(NAMES), OPTIONS)
    model.prompt_learner.load_state_dict(dict(theirs))
    assert torch.equal(model.brick("text").ctx, theirs["ctx"])
