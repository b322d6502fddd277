"""Losses of image-caption pairs beside CyCLIP's own code, and the place where they join any method's loss."""
import pytest
import torch
import torch.nn.functional as F

from clip import InputError
from dassl.engine import build_trainer
from dassl.utils import UserError
from trainers.parts.pairs import consistency, contrastive, pairs_of

CASES = [(mode, a, b) for mode in ("plain", "inmodal") for a in (0.25, 0.0) for b in (0.25, 0.0)]


@pytest.mark.parametrize(("mode", "in_weight", "cross_weight"), CASES)
def test_the_losses_are_those_of_cyclips_code(golden, mode, in_weight, cross_weight):
    theirs, key = golden("cyclip_losses"), f"{mode}_{in_weight}_{cross_weight}"
    images, texts, more_images, more_texts = (theirs.tensor(name).requires_grad_() for name in (
        "image_embeds", "text_embeds", "aug_image_embeds", "aug_text_embeds"))
    log_scale = torch.tensor(1 / 0.07).log().requires_grad_()
    scale = log_scale.exp()

    def one_way(queries, others):
        return F.cross_entropy(scale * queries @ others.t(), torch.arange(len(queries)))

    plain = contrastive(images, texts, scale)
    within = (one_way(images, more_images) + one_way(texts, more_texts)) / 2
    loss = (plain + within) / 2 if mode == "inmodal" else plain
    cyclic = sum(consistency(images, texts, (in_weight, cross_weight)).values())
    assert loss.item() == pytest.approx(theirs.data[f"{key}/contrastive"].item(), rel=1e-5)
    assert torch.as_tensor(cyclic).item() == pytest.approx(theirs.data[f"{key}/cyclic"].item(), rel=1e-5)
    (loss + cyclic).backward()
    for name, parts in (("image", (images, more_images)), ("text", (texts, more_texts))):
        ours = torch.cat([part.grad for part in parts if part.grad is not None])
        wanted = theirs.tensor(f"{key}/grad_{name}")
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
    assert log_scale.grad.item() == pytest.approx(theirs.data[f"{key}/grad_logit_scale"].item(), rel=1e-5)


def test_a_pair_is_an_image_and_the_text_of_its_class_or_its_own():
    images, texts, labels = torch.randn(3, 4), torch.randn(5, 4), torch.tensor([4, 0, 4])
    assert torch.equal(pairs_of(images, texts, labels)[1], texts[[4, 0, 4]])
    own = torch.randn(3, 5, 4)
    assert torch.equal(pairs_of(images, own, labels, by_image=True)[1], torch.stack([own[0, 4], own[1, 0], own[2, 4]]))
    for text in (None, own):
        with pytest.raises(InputError, match="one text of each class"):
            pairs_of(images, text, labels)
    with pytest.raises(InputError, match="one feature of each image"):
        pairs_of(torch.randn(2, 3, 4), texts, labels)


@pytest.mark.parametrize("name", ["CoOp", "CoCoOp", "MaPLe", "BitFit"])
def test_they_join_the_loss_of_any_method(make_cfg, name):
    trainer = build_trainer(make_cfg(name, "TRAIN.CYCLIP_IN_MODAL", 0.5, "TRAIN.CYCLIP_CROSS_MODAL", 2.0))
    trainer.num_batches = 1
    batch = next(iter(trainer.train_loader_x))
    out, terms, loss = trainer.gradients(batch)
    texts, B = out.text_features, len(batch["label"])
    literal = {"in_modal": 0.0, "cross_modal": 0.0}
    for i in range(B):
        for j in range(B):
            t = [texts[b, batch["label"][b]] if texts.dim() == 3 else texts[batch["label"][b]] for b in (i, j)]
            x = out.image_features[[i, j]]
            literal["in_modal"] += 0.5 / B * (x[0] @ x[1] - t[0] @ t[1]) ** 2
            literal["cross_modal"] += 2.0 / B * (x[0] @ t[1] - x[1] @ t[0]) ** 2
    for term, value in literal.items():
        assert terms[term].item() == pytest.approx(value.item(), rel=1e-4)
    assert loss.item() == pytest.approx(sum(term.item() for term in terms.values()), rel=1e-6)
    assert "whole batch" in trainer.one_process_only and not type(trainer).one_process_only


@pytest.mark.parametrize(("name", "opts", "said"), [
    ("CoOp", ("TRAIN.CYCLIP_IN_MODAL", -0.5), "at least 0, got -0.5"),
    ("ProGrad", ("TRAIN.CYCLIP_IN_MODAL", 0.5), "ProGrad takes steps of its own"),
    ("GDA", ("TRAIN.CYCLIP_CROSS_MODAL", 0.5), "GDA takes none"),
    ("TDA", ("TRAIN.CYCLIP_CROSS_MODAL", 0.5), "TDA takes none"),
    ("CyCLIP", ("TRAIN.CYCLIP_IN_MODAL", 0.5), "got 0.5 and 0.0"),
    ("CyCLIP", ("TRAINER.CYCLIP.IN_MODAL", -1.0), "got -1.0 and 0.25")])
def test_weights_that_cannot_work_are_refused_before_training(make_cfg, name, opts, said):
    with pytest.raises(UserError, match=said):
        build_trainer(make_cfg(name, *opts))


def test_a_method_without_texts_says_so_in_its_first_step(make_cfg):
    trainer = build_trainer(make_cfg("VPTFull", "TRAIN.CYCLIP_IN_MODAL", 0.5))
    with pytest.raises(UserError, match="no texts"):
        trainer.gradients(next(iter(trainer.train_loader_x)))
