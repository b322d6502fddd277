"""Methods that fine-tune whole towers: their losses, what is mixed in the end, and what a checkpoint is good for."""
import random

import pytest
import torch
import torch.nn.functional as F

from clip import FrozenCLIP, encode_texts
from clip.templates import IMAGENET_60, IMAGENET_80
from clip.weights import load_file
from dassl.config import CfgNode
from dassl.engine import build_trainer
from dassl.utils import UserError
from tools import merge
from tools.prediction.rebuild import from_run
from trainers.flyp import FLYP
from trainers.parts.classes import Classes
from trainers.parts.heads import EnsembleHead, ZeroShotHead
from trainers.parts.teacher import context_features
from trainers.wise_ft import WiSEFT

NAMES, FEW = ["cat", "big dog", "737-200"], ("OPTIM.LR", 0.001, "TEST.NO_TEST", True)
OPTIONS = {"LEARN_HEAD": True, "TEMPLATES": (), "ALPHA": 0.5, "MAX_NORM": 1.0, "PREC": "fp32"}


@pytest.fixture
def clip(tiny_clip_weights):
    """Of the test's own, since its parameters are released."""
    return FrozenCLIP.from_state_dict(tiny_clip_weights)


def learned(trainer):
    return {name: value.detach().clone() for name, value in trainer.model.prompt_learner.named_parameters()}


def test_the_eighty_sentences_are_clips():
    assert len(set(IMAGENET_80)) == 80 and IMAGENET_80[:60] == IMAGENET_60
    assert all(template.count("{}") == 1 for template in IMAGENET_80)


def test_wise_ft_starts_as_zero_shot_clip_and_learns_the_image_tower_and_the_classifier(clip):
    images, before = torch.randn(2, 3, 32, 32), clip.encode_image(torch.zeros(1, 3, 32, 32)).shape
    classes = Classes(NAMES, "a photo of a {}.")
    with torch.no_grad():
        wanted = clip.scale * clip.encode_image(images) @ encode_texts(clip, classes.sentences()).t()
    model = WiSEFT.build(clip, classes, CfgNode(OPTIONS))
    torch.testing.assert_close(model(images).logits, wanted)
    names = {name for name, p in clip.named_parameters() if p.requires_grad}
    assert names == {name for name, _ in clip.named_parameters() if name.startswith("visual.")} and before
    assert isinstance(model.head, ZeroShotHead) and model.head.bias.requires_grad


def test_several_sentences_are_averaged_as_clip_averages_them(clip):
    templates = ("a photo of a {}.", "art of the {}.")
    model = FLYP.build(clip, Classes(NAMES), CfgNode({**OPTIONS, "TEMPLATES": templates})).eval()
    each = [encode_texts(clip, [template.format(name) for name in NAMES]) for template in templates]
    mean = F.normalize((each[0] + each[1]) / 2, dim=-1)
    with torch.no_grad():
        out = model(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(out.text_features, mean)
    torch.testing.assert_close(out.logits, clip.scale.detach() * out.image_features @ mean.t())
    assert isinstance(model.head, EnsembleHead)


def test_the_kept_weights_are_the_mixture_of_start_and_end(make_cfg, tmp_path):
    whole = build_trainer(make_cfg("WiSEFT", *FEW, "TRAINER.WISEFT.ALPHA", 1.0, output=tmp_path / "one"))
    start = learned(whole)
    whole.train()
    end = learned(whole)
    mixed = build_trainer(make_cfg("WiSEFT", *FEW, "TRAINER.WISEFT.ALPHA", 0.25, output=tmp_path / "mixed"))
    mixed.train()
    for name, value in learned(mixed).items():
        torch.testing.assert_close(value, 0.75 * start[name] + 0.25 * end[name], rtol=1e-6, atol=1e-7)
        assert not torch.equal(end[name], start[name])
    again = build_trainer(make_cfg("WiSEFT", output=tmp_path / "again"))
    again.load_model(str(tmp_path / "mixed"))
    assert all(torch.equal(value, learned(mixed)[name]) for name, value in learned(again).items())


@pytest.mark.parametrize("name", ["WiSEFT", "FLYP"])
def test_a_stopped_run_resumes_to_the_same_bits(make_cfg, tmp_path, name):
    opts = (*FEW, "OPTIM.MAX_EPOCH", 3, f"TRAINER.{name.upper()}.ALPHA", 0.5, f"TRAINER.{name.upper()}.TEMPLATES",
            "('a photo of a {}.', 'a {}')")
    whole = build_trainer(make_cfg(name, *opts, output=tmp_path / "whole"))
    whole.train()
    stopped = build_trainer(make_cfg(name, *opts, "TRAIN.CHECKPOINT_FREQ", 1, output=tmp_path / "stopped"))
    after_epoch = stopped.after_epoch

    def interrupted():
        after_epoch()
        if stopped.epoch == 1:
            raise KeyboardInterrupt

    stopped.after_epoch = interrupted
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    resumed = build_trainer(make_cfg(name, *opts, "RESUME", tmp_path / "stopped", output=tmp_path / "stopped"))
    resumed.train()
    assert all(torch.equal(value, learned(whole)[name]) for name, value in learned(resumed).items())


def test_gradients_are_cut_to_their_norm_before_a_step(make_cfg):
    trainer = build_trainer(make_cfg("WiSEFT", "OPTIM.NAME", "sgd", "OPTIM.MOMENTUM", 0.0, "OPTIM.LR", 1.0,
                                     "OPTIM.WEIGHT_DECAY", 0.0, "TRAINER.WISEFT.MAX_NORM", 0.01))
    before, trainer.num_batches = learned(trainer), 9
    trainer.forward_backward(next(iter(trainer.train_loader_x)))
    moved = torch.stack([(value - before[name]).norm() for name, value in learned(trainer).items()]).norm()
    assert moved.item() == pytest.approx(0.01, rel=1e-2)


def test_car_ft_adds_the_divergence_of_contexts_from_the_towers_it_began_with(make_cfg):
    contexts = ["a photo of a {}.", "art of the {}.", "a sketch of a {}."]
    trainer = build_trainer(make_cfg("CARFT", "TRAINER.CARFT.BETA", 3.0, "TRAINER.CARFT.CONTEXTS", str(contexts)))
    frozen = trainer.model.clip.frozen_copy()
    with torch.no_grad():
        for parameter in trainer.model.prompt_learner.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    batch = next(iter(trainer.train_loader_x))
    out = trainer.output(batch)
    terms = trainer.loss(out, batch)
    means = [sum(encode_texts(frozen, [s]) for s in trainer.classes.sentences(t)) for t in contexts]
    C = torch.cat([F.normalize(mean, dim=-1) for mean in means])                                   # (K, D)
    torch.testing.assert_close(context_features(frozen, trainer.classes, contexts), C)
    literal = 0
    for image, ours in zip(frozen.encode_image(batch["img"]), out.image_features, strict=True):
        p, q = ((frozen.scale * C @ f).softmax(0) for f in (image, ours))
        literal += (p * (p / q).log()).sum() / len(batch["img"])
    assert terms["context"].item() == pytest.approx(3 * literal.item(), rel=1e-3) and literal > 1e-4
    assert set(terms) == {"ce", "context"}


def test_flyp_pairs_each_image_with_a_sentence_of_its_class_and_classmates_are_negatives(make_cfg):
    trainer = build_trainer(make_cfg("FLYP", "TRAINER.FLYP.TEMPLATES", "('a photo of a {}.', 'art of the {}.')"))
    batch = next(iter(trainer.train_loader_x))
    random.seed(3)
    out = trainer.output(batch)
    random.seed(3)
    captions, names = trainer.captions(batch), trainer.classes.names
    assert all(names[label].replace("_", " ") in caption
               for caption, label in zip(captions, batch["label"].tolist(), strict=True))
    assert len(set(captions)) > len(set(batch["label"].tolist()))           # both sentences were drawn
    clip = trainer.model.clip
    images, texts = clip.encode_image(batch["img"]), encode_texts(clip, captions)
    scores, B = (clip.scale * images @ texts.t()).detach(), len(captions)
    literal = sum(-scores[i].softmax(0)[i].log() - scores[:, i].softmax(0)[i].log() for i in range(B)) / (2 * B)
    assert trainer.loss(out, batch)["contrastive"].item() == pytest.approx(literal.item(), rel=1e-4)
    assert "whole batch" in trainer.one_process_only


def test_cyclip_keeps_the_scale_in_its_range_and_adds_both_losses(make_cfg):
    trainer = build_trainer(make_cfg("CyCLIP", "TRAINER.CYCLIP.CROSS_MODAL", 0.5))
    trainer.num_batches = 9
    with torch.no_grad():
        trainer.model.clip.logit_scale.fill_(4.9)
    trainer.forward_backward(next(iter(trainer.train_loader_x)))
    assert trainer.model.clip.logit_scale.item() == pytest.approx(4.6052)
    _, terms, _ = trainer.gradients(next(iter(trainer.train_loader_x)))
    assert set(terms) == {"contrastive", "in_modal", "cross_modal"} and trainer.consistency_weights == (0.25, 0.5)


@pytest.mark.parametrize(("name", "opts"), [("FLYP", ()), ("WiSEFT", ("TRAINER.WISEFT.LEARN_HEAD", False))])
def test_a_run_predicts_serves_other_classes_and_merges_into_a_plain_clip(make_cfg, tmp_path, name, opts):
    cfg = make_cfg(name, *opts, "OPTIM.MAX_EPOCH", 1, "OPTIM.LR", 0.001)
    build_trainer(cfg).train()
    run, images = tmp_path / "run", torch.randn(3, 3, 32, 32)
    (run / "config.yaml").write_text(cfg.dump())
    assert merge.cli([str(run), str(tmp_path / "merged.safetensors")]) == 0
    plain, names = load_file(tmp_path / "merged.safetensors"), ["green bird", "car"]
    classifier = from_run(run, classes=names, device="cpu", float32=True)
    if name == "WiSEFT":
        former = build_trainer(make_cfg("ZeroshotCLIP")).model.clip.state_dict()
        tuned = {key for key, value in plain.state_dict().items() if not torch.equal(value, former[key])}
        assert tuned and all(key.startswith("visual.") for key in tuned)
    with torch.no_grad():
        own = classifier.model(images).logits
        texts = classifier.model.text_features()
        again = encode_texts(plain, [f"a photo of a {n}." for n in names]) if name == "FLYP" else texts
        theirs = plain.scale * plain.encode_image(images) @ again.t()
    torch.testing.assert_close(theirs, own, rtol=0, atol=2e-5 * float(own.abs().max()))


def test_a_learned_classifier_is_no_weight_of_the_towers(make_cfg, tmp_path, capsys):
    cfg = make_cfg("WiSEFT", "OPTIM.MAX_EPOCH", 1)
    build_trainer(cfg).train()
    (tmp_path / "run" / "config.yaml").write_text(cfg.dump())
    assert merge.cli([str(tmp_path / "run"), str(tmp_path / "m.pt")]) == 2
    assert "ZeroShotHead" in capsys.readouterr().err and not (tmp_path / "m.pt").exists()
    with pytest.raises(UserError, match="a linear classifier"):
        from_run(tmp_path / "run", classes=["a", "b"], device="cpu")


@pytest.mark.parametrize(("name", "opts", "said"), [
    ("WiSEFT", ("TRAINER.WISEFT.ALPHA", 0.0), "got 0.0"), ("WiSEFT", ("TRAINER.WISEFT.ALPHA", 1.5), "got 1.5"),
    ("FLYP", ("TRAINER.FLYP.MAX_NORM", -1.0), "got -1.0"), ("FLYP", ("TRAINER.FLYP.PREC", "fp8"), "got 'fp8'"),
    ("WiSEFT", ("TEST.FINAL_MODEL", "best_val"), "ALPHA 0.5"),
    ("CARFT", ("TRAINER.CARFT.BETA", -2.0), "got -2.0"), ("CARFT", ("TRAINER.CARFT.CONTEXTS", "['a {}']"), "and 1"),
    ("CARFT", ("TRAINER.CARFT.CONTEXTS", "['a', 'b']"), "'a'")])
def test_settings_that_cannot_work_are_refused(make_cfg, name, opts, said):
    with pytest.raises(UserError, match=said):
        build_trainer(make_cfg(name, *opts))
