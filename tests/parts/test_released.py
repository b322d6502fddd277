"""Methods that learn parameters of the towers themselves: which learn when, and what answers."""
import pytest
import torch
import torch.nn.functional as F

from clip import FrozenCLIP, InputError, encode_texts
from dassl.config import CfgNode
from dassl.engine import build_trainer
from dassl.utils import UserError
from trainers.bitfit import BitFit
from trainers.parts.classes import Classes
from trainers.parts.staged_head import StagedHead
from trainers.vpt_full import VPTFull

NAMES = ["cat", "big dog", "737-200"]
STAGED = ("TRAINER.TWOSFS.ITERATIONS", 0, "OPTIM.MAX_EPOCH", 3, "TEST.NO_TEST", True, "TRAINER.TWOSFS.FIRST_SHARE", 0.7)


@pytest.fixture
def clip(tiny_clip_weights):
    """Of the test's own, since its parameters are released."""
    return FrozenCLIP.from_state_dict(tiny_clip_weights)


@pytest.mark.parametrize(("encoder", "towers"), [("both", {True, False}), ("vision", {True}), ("text", {False})])
def test_bitfit_learns_the_biases_of_the_towers_that_it_names(clip, encoder, towers):
    model = BitFit.build(clip, Classes(NAMES), CfgNode({"ENCODER": encoder, "TEMPLATE": ""}))
    learned = {name for name, p in clip.named_parameters() if p.requires_grad}
    assert {name.startswith("visual.") for name in learned} == towers
    assert all(name.endswith("bias") for name in learned) and "bias" not in learned
    F.cross_entropy(model(torch.randn(2, 3, 32, 32)).logits, torch.tensor([0, 1])).backward()
    assert {name for name, p in clip.named_parameters() if p.grad is not None} == learned
    assert {f"tower.{name.replace('.', '/')}" for name in learned} == set(model.prompt_learner.state_dict())


def test_the_head_is_texts_first_and_its_own_classifier_for_seen_classes_afterwards(tiny_clip):
    texts, images = encode_texts(tiny_clip, NAMES), F.normalize(torch.randn(4, 32), dim=-1)
    head = StagedHead(tiny_clip, 3, [True, False, True]).eval()
    cosines = tiny_clip.scale * images @ texts.t()
    torch.testing.assert_close(head(images, texts, tiny_clip), cosines)
    head.start(texts[[0, 2]])
    torch.testing.assert_close(head(images, texts, tiny_clip), cosines)
    with torch.no_grad():
        head.classifier.mul_(-2)
    theirs = head(images, texts, tiny_clip)
    torch.testing.assert_close(theirs[:, 1], cosines[:, 1])
    torch.testing.assert_close(theirs[:, [0, 2]], -cosines[:, [0, 2]])
    head.seen = None
    with pytest.raises(InputError, match="of these 3 classes it is unknown"):
        head(images, texts, tiny_clip)


def test_norms_learn_in_the_first_stage_and_the_classifier_in_the_second(make_cfg):
    trainer, seen = build_trainer(make_cfg("TwoSFS", *STAGED)), []
    step = trainer.forward_backward

    def watched(batch):
        before = {k: v.detach().clone() for k, v in trainer.model.prompt_learner.named_parameters()}
        summary = step(batch)
        moved = {name.split(".")[0] for name, p in trainer.model.prompt_learner.named_parameters()
                 if not torch.equal(p, before[name])}
        seen.append((trainer.epoch, frozenset(moved)))
        return summary

    trainer.forward_backward = watched
    texts, start = [], trainer.model.head.start
    trainer.model.head.start = lambda text: (texts.append(text), start(text))
    trainer.train()
    assert set(seen) == {(0, frozenset({"tower"})), (1, frozenset({"tower"})), (2, frozenset({"head"}))}
    frozen = build_trainer(make_cfg("ZeroshotCLIP")).model.clip
    frozen = encode_texts(frozen, trainer.classes.sentences("a photo of a {}."))
    assert len(texts) == 1 and not torch.allclose(texts[0], frozen)


def test_a_run_that_stopped_in_its_second_stage_resumes_to_the_same_bits(make_cfg, tmp_path):
    opts = (*STAGED, "OPTIM.MAX_EPOCH", 4, "TRAINER.TWOSFS.FIRST_SHARE", 0.5)
    whole = build_trainer(make_cfg("TwoSFS", *opts, output=tmp_path / "whole"))
    whole.train()
    stopped = build_trainer(make_cfg("TwoSFS", *opts, "TRAIN.CHECKPOINT_FREQ", 1, output=tmp_path / "stopped"))
    after_epoch = stopped.after_epoch

    def interrupted():
        after_epoch()
        if stopped.epoch == 2:
            raise KeyboardInterrupt

    stopped.after_epoch = interrupted
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    resumed = build_trainer(make_cfg("TwoSFS", *opts, "RESUME", tmp_path / "stopped", output=tmp_path / "stopped"))
    resumed.train()
    for ours, theirs in zip(resumed.model.prompt_learner.state_dict().values(),
                            whole.model.prompt_learner.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("opts", [("TRAINER.TWOSFS.LEARN", "heads"), ("TRAINER.TWOSFS.FIRST_SHARE", 1.5),
                                  ("TEST.FINAL_MODEL", "best_val")])
def test_what_two_stages_cannot_do_is_refused(make_cfg, opts):
    with pytest.raises(UserError, match=str(opts[1])):
        build_trainer(make_cfg("TwoSFS", *opts))


def test_full_vpt_reads_the_class_token_before_the_projection(tiny_clip):
    model = VPTFull.build(tiny_clip, Classes(NAMES), CfgNode({"N": 2, "DEPTH": 0, "DROPOUT": 0.0})).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        model.head.weight.normal_()
        wide = tiny_clip.encode_image(images, model.brick("visual"), joint=False, unit_norm=False)
        torch.testing.assert_close(model(images).logits, wide @ model.head.weight.t())
    assert model.brick("visual").tokens.shape == (3, 2, 64)
