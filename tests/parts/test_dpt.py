"""DPT's class-aware prompts and losses against the authors' numbers and a slow literal reading of the description."""
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from clip import FrozenCLIP, InputError, encode_texts, tokenize
from dassl.config import CfgNode
from dassl.engine import build_trainer
from dassl.utils import UserError
from tests.parts.five_steps import assert_near, follow, names_of, take_parameters
from trainers.dpt import DPT
from trainers.parts.class_aware import layer_loss
from trainers.parts.classes import Classes

NAMES = ["cat", "yorkshire_terrier", "737-200", "sparrow"]
BRICKS = {part: f"image_encoder.transformer.{part}" for part in ("ctx_learner.", "extractor.")}


def options(n=3, n_vision=2, first=2, top=2):
    return CfgNode({"N_CTX": n, "CTX_INIT": "", "N_CTX_VISION": n_vision, "FIRST_CLASS_AWARE": first,
                    "TOP_CLASSES": top, "GUIDED_EPOCHS": 30, "ALPHA": 0.3, "PREC": "fp32"})


def build(clip, **kwargs):
    torch.manual_seed(3)
    model = DPT.build(clip, Classes(NAMES), options(**kwargs))
    with torch.no_grad():
        for parameter in model.prompt_learner.parameters():
            parameter += torch.randn_like(parameter) * 0.2
    return model


def slow_literal(clip, learned, images, n, n_vision, first, top):
    """Logits, and the class-aware blocks' scores, image by image, with the authors' names of the parameters."""
    def norm(x, name):
        mean, std = x.mean(-1, keepdim=True), (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return (x - mean) / std * learned[f"{name}.weight"] + learned[f"{name}.bias"]

    texts = []
    for name in NAMES:
        ids = tokenize(" ".join(["X"] * n) + f" {name.replace('_', ' ')}.")[0]
        words = clip.embed_tokens(ids)
        x = torch.cat([words[:1], learned["ctx"], words[1 + n:]]) + clip.positional_embedding
        for block in clip.transformer.resblocks:
            x = block(x[None], causal=True)[0]
        texts.append(clip.ln_final(x)[ids.argmax()] @ clip.text_projection)
    texts = torch.stack(texts)
    sentences = encode_texts(clip, [f"a photo of a {name.replace('_', ' ')}." for name in NAMES])
    features, scores = [], []
    for image in images:
        likeliest = sorted(range(len(NAMES)), key=lambda c: -float(sentences[c] @ clip.encode_image(image[None])[0]))
        asking = texts[likeliest[:top]]
        patches = clip.visual.conv1(image[None])[0].flatten(1).T
        x = torch.cat([clip.visual.class_embedding[None], patches]) + clip.visual.positional_embedding
        x, own = clip.visual.ln_pre(x), []
        for i, block in enumerate(clip.visual.transformer.resblocks):
            if i < first - 1:
                x = block(torch.cat([x, learned["ctx_learner.ctx"][i]])[None])[0][:-n_vision]
                continue
            e, j = "extractor", i - first + 1
            keys = torch.cat([x.detach(), learned["extractor.ctx"][j]])
            queries = asking @ learned[f"{e}.meta_nets.{j}.weight"].T + learned[f"{e}.meta_nets.{j}.bias"]
            weights = (queries @ learned[f"{e}.attns.{j}.qmlp.weight"].T) @ (
                keys @ learned[f"{e}.attns.{j}.kmlp.weight"].T).T / 32 ** 0.5
            found = weights.softmax(-1) @ keys @ learned[f"{e}.attns.{j}.vmlp.weight"].T
            own.append(norm(found, f"{e}.lns.{j}") @ learned[f"{e}.classfiers.{j}.weight"].T)
            x = block(torch.cat([x, norm(found + queries, f"{e}.lns2.{j}")])[None])[0][:-top]
        features.append(clip.visual.ln_post(x[0]) @ clip.visual.proj)
        scores.append(torch.stack(own))
    logits = clip.scale * F.normalize(torch.stack(features), dim=-1) @ F.normalize(texts, dim=-1).T
    return logits, torch.stack(scores, dim=1)


@pytest.mark.parametrize("kwargs", [{}, {"first": 3, "top": 4, "n_vision": 3}, {"first": 1}])
def test_logits_scores_and_gradients_are_those_of_the_description(tiny_clip, kwargs):
    model, c = build(tiny_clip, **kwargs), options(**kwargs)
    learned = {k: v.detach().clone().requires_grad_() for k, v in model.prompt_learner.state_dict().items()}
    images = torch.randn(2, 3, 32, 32)
    out = model(images)
    theirs = slow_literal(tiny_clip, learned, images, c.N_CTX, c.N_CTX_VISION, c.FIRST_CLASS_AWARE, c.TOP_CLASSES)
    for ours, other in zip((out.logits, out.aux["layer_scores"]), theirs):
        assert_near(ours.detach(), other.detach())
    weights = [torch.randn_like(x) for x in theirs]
    for values in ((out.logits, out.aux["layer_scores"]), theirs):
        sum((x * w).sum() for x, w in zip(values, weights)).backward()
    saved = model.prompt_learner.saved_as
    grads = {name: (p.grad, learned[saved[name]].grad) for name, p in model.prompt_learner.named_parameters()
             if p.numel()}                                              # from block 1 on there are no lower ones
    largest = max(float(ours.abs().max()) for ours, _ in grads.values())
    for name, (ours, other) in grads.items():
        torch.testing.assert_close(ours, other, rtol=0, atol=1e-5 * largest, msg=name)


def of_the_authors(golden, file="dpt_guided"):
    from random_clip import state_dict

    theirs = golden(file)
    clip = FrozenCLIP.from_state_dict(state_dict(theirs.json("clip")))
    model = DPT.build(clip, Classes(theirs.classnames, "a photo of a {}, a type of pet."), options(16, 4, 2, 4))
    names = {}
    for own, saved in model.prompt_learner.saved_as.items():
        part = next((part for part in BRICKS if saved.startswith(part)), None)
        names[own] = BRICKS[part] + saved.removeprefix(part) if part else f"prompt_learner.{saved}"
    return theirs, model, names


def test_it_takes_the_authors_steps(golden):
    theirs, model, names = of_the_authors(golden)
    method = SimpleNamespace(model=model, options=options(16, 4, 2, 4), epoch=0)

    def loss(out, images, labels):
        return sum(DPT.loss(method, out, {"img": images, "label": labels}).values())

    def optimiser(learned):
        rates = [{"params": [p], "lr": 0.002 if name.startswith("text.") else 0.02} for name, p in learned.items()]
        return torch.optim.SGD(rates, 0.02, 0.9, weight_decay=5e-4)

    take_parameters(model, theirs, names)
    with torch.no_grad():
        out = model(theirs.tensor("images")[0])
    assert torch.equal(out.aux["top"], theirs.tensor("indices"))
    assert_near(out.aux["layer_scores"].transpose(1, 2), theirs.tensor("layer_logits"))
    assert_near(model.head(out.aux["frozen_images"], out.text_features, model.clip), theirs.tensor("logits_text_only"))
    assert_near(model.head(out.image_features, model.frozen_text, model.clip), theirs.tensor("logits_image_only"))
    follow(model, theirs, loss, names, optimiser=optimiser)


def test_after_the_guided_epochs_the_two_sides_learn_from_each_other_alone(tiny_clip):
    model, images, label = build(tiny_clip), torch.randn(2, 3, 32, 32), torch.tensor([1, 3])
    out = model(images)
    terms = [DPT.loss(SimpleNamespace(model=model, options=options(), epoch=epoch), out, {"label": label})
             for epoch in (29, 30)]
    assert terms[0].keys() == {"words", "tokens", "both", "layers"} and terms[1].keys() == {"ce", "layers"}
    assert terms[0]["both"].item() == pytest.approx(0.1 * terms[1]["ce"].item())
    assert terms[1]["ce"].item() == pytest.approx(F.cross_entropy(out.logits, label).item())


def test_blocks_learn_from_images_whose_class_asks():
    scores, top, labels = torch.randn(2, 3, 2, 5), torch.tensor([[0, 4], [1, 2], [3, 2]]), torch.tensor([4, 0, 3])
    chosen = [(scores[k, b, t], int(labels[b])) for k in range(2) for b, t in ((0, 1), (2, 0))]
    literal = sum(-x.log_softmax(0)[label] for x, label in chosen) / 4
    torch.testing.assert_close(layer_loss(scores, top, labels), literal)
    assert layer_loss(scores, top, torch.tensor([1, 0, 4])).item() == 0


def test_the_authors_three_files_are_read(golden, make_cfg, tmp_path, tiny_clip_file):
    trainer = build_trainer(make_cfg("DPT", "TRAINER.DPT.N_CTX", 3, "TRAINER.DPT.CTX_INIT", ""))
    own = {name: torch.randn_like(value) for name, value in trainer.model.prompt_learner.state_dict().items()}
    for folder, part in (("image_encoder.transformer.ctx_learner", "ctx_learner."),
                         ("image_encoder.transformer.extractor", "extractor."), ("prompt_learner", "")):
        state = {name.removeprefix(part): value for name, value in own.items()
                 if (name.startswith(part) if part else "." not in name)}
        (tmp_path / "theirs" / folder).mkdir(parents=True)
        torch.save({"state_dict": state, "epoch": 60}, tmp_path / "theirs" / folder / "model.pth.tar-60")
    trainer.load_model(str(tmp_path / "theirs"), epoch=60)
    for name, value in trainer.model.prompt_learner.state_dict().items():
        assert torch.equal(value, own[name])
    assert len(trainer.loaded) == 3


def test_scores_of_other_classes_are_left_aside_and_the_rest_is_taken(tiny_clip):
    trained, other = build(tiny_clip), DPT.build(tiny_clip, Classes(NAMES[:2]), options())
    before = other.brick("visual").upper[0].classify.weight.clone()
    other.prompt_learner.load_state_dict(trained.prompt_learner.state_dict())
    assert torch.equal(other.brick("visual").upper[0].classify.weight, before)
    assert torch.equal(other.brick("visual").tokens, trained.brick("visual").tokens)
    assert torch.equal(other.brick("text").ctx, trained.brick("text").ctx)


def test_words_have_a_rate_and_a_warm_up_of_their_own(make_cfg):
    trainer = build_trainer(make_cfg("DPT", "TEST.NO_TEST", True, "OPTIM.LR", 0.5, "TRAINER.DPT.TEXT_LR", 0.25,
                                     "OPTIM.WARMUP_EPOCH", 2, "OPTIM.WARMUP_TYPE", "constant",
                                     "TRAINER.DPT.TEXT_WARMUP_EPOCH", 1, "OPTIM.MAX_EPOCH", 3))
    rates, step = [], trainer.forward_backward

    def recorded(batch):
        rates.append((trainer.epoch, *(trainer.get_current_lr(name) for name in ("image_prompt", "text_prompt"))))
        return step(batch)

    trainer.forward_backward = recorded
    trainer.train()
    after = 0.25 * (1 + math.cos(math.pi / 3)) / 2
    assert sorted(set(rates)) == [(0, 1e-5, 1e-5), (1, 1e-5, 0.25), (2, 0.5, pytest.approx(after))]


def test_a_checkpoint_tells_what_its_shapes_tell(tiny_clip):
    weights = build(tiny_clip, first=3).prompt_learner.state_dict()
    assert DPT.options_of(weights) == {"N_CTX": 3, "N_CTX_VISION": 2, "FIRST_CLASS_AWARE": 3}
    assert DPT.options_of({}) is None and DPT.options_of({"ctx": weights["ctx"]}) is None
    assert names_of(build(tiny_clip), SimpleNamespace(data={}))["text.ctx"] == "ctx"


@pytest.mark.parametrize(("kwargs", "message"), [
    ({"first": 4}, "one of the 3 blocks.*got 4"), ({"first": 0}, "got 0"), ({"top": 5}, "1 to all 4.*got 5"),
    ({"top": 0}, "got 0"), ({"n_vision": 0}, "1 to 1024 tokens, got 0")])
def test_what_cannot_work_is_refused(tiny_clip, kwargs, message):
    with pytest.raises(InputError, match=message):
        DPT.build(tiny_clip, Classes(NAMES), options(**kwargs))


def test_a_negative_rate_of_the_words_is_refused(make_cfg):
    with pytest.raises(UserError, match="TEXT_LR must be at least 0, got -1.0"):
        build_trainer(make_cfg("DPT", "TRAINER.DPT.TEXT_LR", -1.0))
