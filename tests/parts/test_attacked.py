"""Methods that learn from attacked images: beside the authors' numbers, or beside their loops, written out."""
import pytest
import torch
import torch.nn.functional as F

from clip import FrozenCLIP, encode_texts, load_clip
from dassl.config import CfgNode
from dassl.engine import build_trainer
from dassl.utils import UserError
from tests.parts.five_steps import assert_near
from trainers.parts import attacks
from trainers.parts.attacks import pgd
from trainers.parts.classes import Classes
from trainers.tecoa import TeCoA

TECOA = {"LEARN": "prompts", "WIDTH": 4, "N_TOKENS": 3, "TEMPLATE": "This is a photo of a {}"}
TINY = ("TEST.NO_TEST", True, "OPTIM.MAX_EPOCH", 1)


def frame_of(theirs, kind):
    """(3, F) the authors' four pads, in reading order."""
    pads = {side: theirs.value(kind, f"prompter.pad_{side}")[0] for side in ("up", "down", "left", "right")}
    middle = torch.zeros(3, pads["left"].shape[1], pads["up"].shape[2] - 2 * pads["left"].shape[2])
    canvas = torch.cat([pads["up"], torch.cat([pads["left"], middle, pads["right"]], 2), pads["down"]], 1)
    outside = torch.ones(canvas.shape[1:], dtype=torch.bool)
    width = pads["left"].shape[2]
    outside[width:-width, width:-width] = False
    return canvas.flatten(1)[:, outside.flatten()]


def test_tecoas_prompts_learn_as_the_authors_do(tiny_clip, golden):
    """Their attack leaves its gradients on the prompts, divided by the loss scale: here they are added by hand."""
    theirs = golden("tecoa_vp")
    config, labels = theirs.json("meta")["config"], theirs.tensor("labels")
    model = TeCoA.build(tiny_clip, Classes(theirs.classnames), CfgNode(TECOA))
    learned = {"pixel.program": lambda kind: frame_of(theirs, kind),
               "visual.tokens": lambda kind: theirs.value(kind, "add_prompter.prompt")}
    parameters = dict(model.prompt_learner.named_parameters())
    assert parameters.keys() == learned.keys()
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(learned[name]("param").reshape(parameter.shape))
    optim, rates = torch.optim.SGD(parameters.values(), 40.0, 0.9), theirs.data["lrs"]

    def logits(images):
        return model(F.interpolate(images, size=32, mode="bicubic")).logits

    for step in range(5):
        images, left = theirs.tensor("images")[step].float(), []

        def loss(scores, labels, left=left):
            value = F.cross_entropy(scores, labels)
            left.append(torch.autograd.grad(value, list(parameters.values()), retain_graph=True))
            return value

        delta = pgd(logits, images, labels[step], config["train_eps"], config["train_stepsize"],
                    config["train_numsteps"], start=theirs.tensor("uniform")[step], loss=loss)
        assert all(p.grad is None for p in parameters.values()) or step
        if step in (0, 4):
            same = (delta - theirs.tensor(f"delta{step}")).abs() < 1e-6
            assert same.float().mean() > 0.999
            delta = theirs.tensor(f"delta{step}")               # a gradient of nearly 0 may have another sign
        out = logits(images + delta)
        value = F.cross_entropy(out, labels[step])
        assert value.item() == pytest.approx(theirs.data["losses"][step], rel=1e-5 if step in (0, 4) else 1e-4)
        optim.zero_grad()
        value.backward()
        for p, *leaked in zip(parameters.values(), *left, strict=True):
            p.grad.add_(sum(leaked), alpha=1 / config["scaler"])
        if step == 0:
            assert_near(out, theirs.tensor("logits"))
            for name, p in parameters.items():
                assert_near(p.grad, learned[name]("grad"))
        optim.param_groups[0]["lr"] = float(rates[step])
        optim.step()
        for name, p in parameters.items() if step in (0, 4) else ():
            assert_near(p.detach(), learned[name](f"after{step + 1}"), 5e-5)
    with torch.no_grad():
        clean = F.interpolate(theirs.tensor("images")[0].float(), size=32, mode="bicubic")
        assert_near(model.eval()(clean).logits, theirs.tensor("clean_logits_after5"), 5e-5)


def test_tecoas_rate_rises_for_some_steps_and_falls_to_zero(golden, make_cfg):
    trainer = build_trainer(make_cfg("TeCoA", "OPTIM.LR", 40.0, "OPTIM.MAX_EPOCH", 1, "OPTIM.WARMUP_STEPS", 2,
                                     "DATALOADER.TRAIN_X.BATCH_SIZE", 3, "TEST.NO_TEST", True))
    rates = []
    step_left_out = trainer.step_left_out

    def recorded():
        rates.append(trainer.optim.param_groups[0]["lr"])
        step_left_out()

    trainer.step_left_out = recorded
    trainer.train()
    expected = golden("tecoa_vp").data["lrs"].tolist()
    assert len(rates) == trainer.num_batches
    if len(rates) == len(expected):
        assert rates == pytest.approx(expected)
    else:
        assert rates[:3] == pytest.approx([20.0, 40.0, 40.0]) and rates[3:] == sorted(rates[3:], reverse=True)
    assert trainer.optim.param_groups[0]["lr"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("opts", "learned"), [
    ({}, {"pixel.program", "visual.tokens"}), ({"WIDTH": 0}, {"visual.tokens"}), ({"N_TOKENS": 0}, {"pixel.program"})])
def test_tecoa_learns_a_frame_tokens_or_both(tiny_clip, opts, learned):
    model = TeCoA.build(tiny_clip, Classes(["Big-Dog", "air_plane"]), CfgNode({**TECOA, **opts}))
    assert set(model.prompt_learner.state_dict()) == learned
    assert all(0.7 < p.std() < 1.3 for p in model.prompt_learner.parameters())


def test_tecoa_learns_the_whole_image_tower_and_nothing_of_the_texts(tiny_clip_weights):
    clip = FrozenCLIP.from_state_dict(tiny_clip_weights)
    model = TeCoA.build(clip, Classes(["cat", "dog"]), CfgNode({**TECOA, "LEARN": "tower"}))
    assert {name for name, p in clip.named_parameters() if p.requires_grad} == \
        {name for name, _ in clip.named_parameters() if name.startswith("visual.")}
    assert len(model.prompt_learner.state_dict()) == len(list(clip.visual.parameters()))


def trained(make_cfg, method, *opts):
    trainer, steps = build_trainer(make_cfg(method, *TINY, *opts)), []
    gradients = trainer.gradients

    def watched(batch):
        before = {name: p.detach().clone() for name, p in trainer.model.prompt_learner.named_parameters()}
        found = gradients(batch)
        steps.append((batch, before, {name: p.grad.clone() for name, p in
                                      trainer.model.prompt_learner.named_parameters()}, found[1]))
        return found

    trainer.gradients = watched
    return trainer, steps


@pytest.mark.parametrize("mode", ["onfly", "constant", "perturbed"])
def test_apt_learns_from_the_attack_of_its_mode(mode, make_cfg, monkeypatch):
    """Literally, from the authors' loop."""
    trainer, steps = trained(make_cfg, "APT", "TRAINER.APT.MODE", mode, "TRAINER.APT.PROMPT_STEP", 0.5,
                             "TRAINER.APT.N_CTX", 3)
    starts = []
    first = attacks.first_perturbation
    monkeypatch.setattr(attacks, "first_perturbation", lambda *a: starts.append(first(*a)) or starts[-1])
    trainer.train()
    batch, before, grads, _ = steps[0]
    model, eps, alpha = trainer.model.train(), 4 / 255, 2.67 / 255
    ctx, images, labels, delta = model.brick("text").ctx, batch["img"], batch["label"], starts[0]
    sentences = trainer.classes.sentences("a photo of a {}")
    with torch.no_grad():
        ctx.copy_(before["text.ctx"])
    constant = encode_texts(model.clip, sentences)
    for _ in range(3):
        seen = (images + delta).clamp(0, 1).requires_grad_()
        logits = model(seen).logits if mode != "constant" else \
            model.clip.scale * model.image_features(seen) @ constant.t()
        found = torch.autograd.grad(-F.cross_entropy(logits, labels), [seen, ctx][:2 if mode == "perturbed" else 1])
        delta = (delta - alpha * found[0].sign()).clamp(-eps, eps)
        if mode == "perturbed":
            with torch.no_grad():
                ctx.sub_(0.5 * found[1])
    with torch.no_grad():
        ctx.copy_(before["text.ctx"])
    expected, = torch.autograd.grad(F.cross_entropy(model((images + delta).clamp(0, 1)).logits, labels), ctx)
    assert_near(grads["text.ctx"], expected, 1e-3)          # a gradient of nearly 0 may have another sign


def test_fare_brings_attacked_features_to_those_of_the_original_tower(make_cfg, monkeypatch):
    """Literally: squared distances before the normalisation, and an attack that keeps 0.9 of its direction."""
    trainer, steps = trained(make_cfg, "FARE", "TRAINER.FARE.STEPS", 3, "OPTIM.LR", 0.001)
    starts, first = [], attacks.first_perturbation
    monkeypatch.setattr(attacks, "first_perturbation", lambda *a: starts.append(first(*a)) or starts[-1])
    trainer.train()
    batch, before, grads, terms = steps[-1]
    clip, original, images = trainer.model.clip, load_clip(trainer.cfg.MODEL.BACKBONE.NAME), batch["img"]
    with torch.no_grad():
        for name, p in trainer.model.prompt_learner.named_parameters():
            p.copy_(before[name])
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (clip.mean, clip.std))
    with torch.no_grad():
        target = original.encode_image((images - mean) / std, unit_norm=False)

    def distance(seen):
        return (clip.encode_image((seen - mean) / std, unit_norm=False) - target).pow(2).sum(1).mean()

    delta, velocity = starts[-1], 0
    delta = torch.maximum(torch.minimum(delta, 1 - images), -images)
    for _ in range(3):
        seen = (images + delta).requires_grad_()
        gradient, = torch.autograd.grad(distance(seen), seen)
        velocity = (0.9 * velocity + gradient.sign()).sign()
        delta = (images + (delta + velocity / 255).clamp(-4 / 255, 4 / 255)).clamp(0, 1) - images
    value = distance(images + delta)
    assert terms["fare"].item() == pytest.approx(value.item(), rel=1e-3)
    expected, = torch.autograd.grad(value, clip.visual.proj)
    assert_near(grads["tower.visual/proj"], expected, 1e-2)
    assert not torch.equal(before["tower.visual/proj"], load_clip(trainer.cfg.MODEL.BACKBONE.NAME).visual.proj)


def test_fare_asks_for_no_labels(make_cfg):
    trainer = build_trainer(make_cfg("FARE"))
    batch = next(iter(trainer.train_loader_x))
    torch.manual_seed(0)
    one = trainer.gradients(dict(batch))[2]
    torch.manual_seed(0)
    two = trainer.gradients({**batch, "label": torch.zeros_like(batch["label"])})[2]
    assert torch.equal(one, two)


def test_the_pyramid_adds_the_loss_of_the_clean_images_under_the_same_mask(make_cfg):
    trainer, steps = trained(make_cfg, "TeCoA", "TRAINER.TECOA.ATTACK", "pyramid", "TRAINER.TECOA.WIDTH", 0)
    tokens = trainer.model.brick("visual")
    tokens.dropout.p, drops = 0.5, []
    tokens.dropout.register_forward_hook(lambda _, __, y: drops.append((y == 0).clone()))
    trainer.train()
    _, _, _, terms = steps[0]
    assert terms.keys() == {"ce", "clean"}
    a_step = trainer.options.STEPS + 2
    assert all(torch.equal(drops[0], other) for other in drops[1:a_step]) and not torch.equal(drops[0], drops[a_step])


def test_texts_pass_their_tower_once_in_an_attack(make_cfg):
    trainer, passes = build_trainer(make_cfg("APT")), []
    trainer.set_model_mode("train")
    encode = trainer.model.clip.encode_text
    trainer.model.clip.encode_text = lambda *a, **k: passes.append(1) or encode(*a, **k)
    trainer.inputs(next(iter(trainer.train_loader_x)))
    assert len(passes) == 1
    trainer.gradients(next(iter(trainer.train_loader_x)))
    assert len(passes) == 3


@pytest.mark.parametrize(("method", "opts", "found"), [
    ("TeCoA", ("TRAINER.TECOA.EPS", 256.0), "256"), ("TeCoA", ("TRAINER.TECOA.EPS", 0.0), "0.0"),
    ("APT", ("TRAINER.APT.STEP", 0.0), "0.0"), ("FARE", ("TRAINER.FARE.STEPS", 0), "0"),
    ("APT", ("TRAINER.APT.ATTACK", "pgdd"), "'pgdd'"), ("FARE", ("TRAINER.FARE.ATTACK", "pyramid"), "'pyramid'"),
    ("APT", ("TRAINER.APT.MODE", "constent"), "'constent'"), ("APT", ("TRAINER.APT.MODE", "perturbed"), "0.0"),
    ("TeCoA", ("TRAINER.TECOA.LEARN", "all"), "'all'"), ("TeCoA", ("TRAINER.TECOA.WIDTH", -1), "-1"),
    ("TeCoA", ("TRAINER.TECOA.WIDTH", 0, "TRAINER.TECOA.N_TOKENS", 0), "0"),
    ("TeCoA", ("TRAINER.TECOA.PREC", "amp"), "'amp'"),
    ("TeCoA", ("INPUT.TRANSFORMS", ["normalize"]), "normalize")])
def test_what_no_attack_can_train_on_is_refused(make_cfg, method, opts, found):
    with pytest.raises(UserError, match=f"got {found}|which is|{found}"):
        build_trainer(make_cfg(method, *opts))
