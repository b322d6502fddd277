"""CoPrompt against the authors' steps."""
import random
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from clip import FrozenCLIP, InputError, encode_texts
from dassl.config import CfgNode
from dassl.engine import build_trainer
from dassl.utils import UserError
from tests.parts.five_steps import assert_near, follow
from trainers.coprompt import CoPrompt
from trainers.maple import MaPLe
from trainers.parts.adapter_head import Adapter, AdapterHead
from trainers.parts.classes import Classes

NAMES = ["cat", "yorkshire_terrier", "737-200"]


def options(**changes):
    return CfgNode({"N_CTX": 2, "CTX_INIT": "a photo of a", "PROMPT_DEPTH": 3, "W": 2.0, "IMAGE_SHARE": 0.1,
                    "TEXT_SHARE": 0.2, "DESCRIPTIONS": "", "NUM_DESCRIPTIONS": 0, **changes})


def test_five_steps_are_the_authors(golden, monkeypatch):
    from random_clip import state_dict

    theirs = golden("coprompt")
    clip = FrozenCLIP.from_state_dict(state_dict(theirs.json("clip")))
    names, of_class = theirs.classnames, theirs.json("descriptions")
    classes = Classes(names, describe=lambda kind, path: [of_class[name.replace("_", " ")] for name in names])
    model = CoPrompt.build(clip, classes, options())
    trainer = SimpleNamespace(options=options(), model=model, classes=classes, on_device=lambda *values: values,
                              cfg=CfgNode({"SEED": 1}))
    trainer.descriptions = CoPrompt.descriptions.func(trainer)
    assert_near(trainer.descriptions, theirs.tensor("ori_embedding"))
    drawn, views = iter(theirs.data["description_index"].tolist()), iter(theirs.tensor("images2"))
    monkeypatch.setattr(random, "randrange", lambda m: next(drawn))

    def loss(out, images, labels):
        return sum(CoPrompt.loss(trainer, out, {"label": labels, "img2": next(views)}).values())

    follow(model, theirs, loss)


def test_an_adapter_mixes_what_it_makes_before_the_normalisation(tiny_clip):
    torch.manual_seed(0)
    head, images, texts = AdapterHead(tiny_clip, 0.3, 0.6), torch.randn(2, 32), torch.randn(3, 32)
    mixed = []
    for x, adapter, share in ((images, head.image, 0.3), (texts, head.text, 0.6)):
        made = (adapter.fc[2].weight @ (adapter.fc[0].weight @ x.T).clamp(min=0)).clamp(min=0).T
        mixed.append(share * made + (1 - share) * x)
    logits, found = head(images, texts, tiny_clip)
    expected = torch.stack([torch.stack([F.cosine_similarity(i, t, dim=0) for t in mixed[1]]) for i in mixed[0]])
    torch.testing.assert_close(logits, tiny_clip.scale * expected)
    torch.testing.assert_close(found["image_features"], F.normalize(mixed[0], dim=-1))
    plain, _ = AdapterHead(tiny_clip, 0.0)(images, texts, tiny_clip)
    torch.testing.assert_close(plain, tiny_clip.scale * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T)
    for share in (-0.1, 1.1):
        with pytest.raises(InputError, match=f"0 to 1, got {share}"):
            Adapter(32, share)


def test_each_image_comes_in_two_views_drawn_for_itself(make_cfg):
    trainer = build_trainer(make_cfg("CoPrompt"))
    batch, out = next(iter(trainer.train_loader_x)), SimpleNamespace()
    assert batch["img"].shape == batch["img2"].shape == (8, 3, 32, 32)
    assert all(not torch.equal(a, b) for a, b in zip(batch["img"], batch["img2"], strict=True))
    clip = trainer.model.clip
    out = trainer.model(batch["img"])
    terms = trainer.loss(out, batch)
    seen = clip.encode_image(batch["img2"])
    expected = 1 - F.cosine_similarity(out.image_features, seen).mean()
    torch.testing.assert_close(terms["image"], trainer.options.W * expected)


def test_the_sentences_are_read_once_and_one_number_is_drawn_for_all_classes(make_cfg, monkeypatch):
    trainer = build_trainer(make_cfg("CoPrompt", "TRAINER.COPROMPT.NUM_DESCRIPTIONS", 3))
    batch, clip = next(iter(trainer.train_loader_x)), trainer.model.clip
    out = trainer.model(batch["img"])
    assert trainer.descriptions.shape == (3, 4, 32)
    sentences = [f"the des of a {name}, told in sentence {i}" for name in trainer.classes.names for i in range(25)]
    every = encode_texts(clip, sentences).unflatten(0, (4, 25))
    nearest = (trainer.descriptions[:, :, None] - every).square().sum(-1).amin(-1)      # (3, 4)
    assert nearest.max() < 1e-6                                                 # each is a sentence of its own class
    monkeypatch.setattr(random, "randrange", lambda m: 2)
    monkeypatch.setattr(FrozenCLIP, "encode_text", None)                        # no text is encoded any more
    text = trainer.loss(out, batch)["text"]
    expected = 1 - F.cosine_similarity(out.text_features, trainer.descriptions[2]).mean()
    torch.testing.assert_close(text, trainer.options.W * expected)


def test_missing_or_uneven_descriptions_are_refused_before_anything_is_written(make_cfg, tmp_path):
    trainer = build_trainer(make_cfg("CoPrompt", "TRAINER.COPROMPT.DESCRIPTIONS", tmp_path / "none"))
    with pytest.raises(UserError, match="no descriptions des in .*none"):
        trainer.train()
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())
    uneven = build_trainer(make_cfg("CoPrompt", "TRAINER.COPROMPT.NUM_DESCRIPTIONS", 0))
    first, *rest = uneven.classes.describe("des", "")
    object.__setattr__(uneven.classes, "describe", lambda kind, path: [first[:7], *rest])
    with pytest.raises(UserError, match="as many sentences about each class, got 7 to 25.*NUM_DESCRIPTIONS"):
        uneven.train()


def test_the_authors_checkpoint_is_known_by_its_adapters(tiny_clip):
    weights = CoPrompt.build(tiny_clip, Classes(NAMES), options()).prompt_learner.state_dict()
    assert {"ctx", "proj.weight", "adapter_image.fc.0.weight", "adapter_text.fc.2.weight"} <= weights.keys()
    theirs = weights | {"model_distill.visual.proj": torch.zeros(1)}
    assert CoPrompt.options_of(theirs) == {"N_CTX": 2, "PROMPT_DEPTH": 3}
    assert MaPLe.options_of(theirs) is None
    assert CoPrompt.options_of(MaPLe.build(tiny_clip, Classes(NAMES), options()).prompt_learner.state_dict()) is None


@pytest.mark.parametrize(("opts", "message"), [
    (("TRAINER.COPROMPT.IMAGE_SHARE", 0.0), "above 0, got .0.0, 0.2"), (("TRAINER.COPROMPT.PROMPT_DEPTH", 4), "1 to 3"),
    (("TRAINER.COPROMPT.TEXT_SHARE", 1.5), "0 to 1, got 1.5"), (("DATALOADER.K_TRANSFORMS", 2), "K_TRANSFORMS 2")])
def test_what_it_cannot_do_is_refused(make_cfg, opts, message):
    with pytest.raises(UserError, match=message):
        build_trainer(make_cfg("CoPrompt", *opts))


def test_an_image_tower_without_tokens_is_refused(golden):
    from random_clip import state_dict

    resnet = FrozenCLIP.from_state_dict(state_dict(golden("plot_n4").json("clip")))
    with pytest.raises(InputError, match="vision transformer"):
        CoPrompt.build(resnet, Classes(NAMES), options())
