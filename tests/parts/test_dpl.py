"""DPL follows the authors' own run: three domains, five steps, and a test batch whose mean makes the words."""
import json

import pytest
import torch
import torch.nn.functional as F

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import build_trainer
from dassl.utils import UserError
from trainers.dpl import DPL
from trainers.parts.classes import Classes


def assert_near(ours, theirs, tolerance):
    torch.testing.assert_close(ours, theirs.reshape(ours.shape), rtol=0, atol=tolerance * float(theirs.abs().max()))


def built(golden):
    from tiny_clip import tiny_clip_state_dict

    theirs = golden("dpl")
    meta = json.loads(str(theirs.data["meta"]))["config"]
    clip = FrozenCLIP.from_state_dict(tiny_clip_state_dict(**meta["tiny_clip"]))
    options = CfgNode({"N_CTX": meta["num_domain_tokens"], "WIDTH": meta["mlp_width"], "DEPTH": meta["mlp_depth"],
                       "DROPOUT": meta["mlp_dropout"], "UPSTREAM_COMPAT": True})
    model = DPL.build(clip, Classes(theirs.classnames), options)
    names = [name.removeprefix("param/") for name in theirs.data.files if name.startswith("param/")]
    model.prompt_learner.load_state_dict({name: theirs.tensor(f"param/{name}") for name in names})
    return theirs, meta, model, names


class OfDomains(DPL):
    """`output` without data or loop."""

    def __init__(self, model, options, domains):
        self.model, self.device, self._options = model, torch.device("cpu"), options
        item = type("Item", (), {"domain": domains - 1})()
        self.dm = type("Manager", (), {"dataset": type("Set", (), {"train_x": [item]})()})()

    options = property(lambda self: self._options)


def test_five_steps_over_all_domains_and_the_answers_are_the_authors(golden):
    theirs, meta, model, names = built(golden)
    images, labels = theirs.tensor("images").float(), theirs.tensor("labels")
    trainer = OfDomains(model, CfgNode({"UPSTREAM_COMPAT": True}), len(images))
    learned = {f"network.{name}": p for name, p in model.brick("text").network.named_parameters()}
    assert set(names) == set(learned)
    with torch.no_grad():
        assert_near(model(theirs.tensor("test_images").float()).logits, theirs.tensor("logits"), 1e-5)
    sgd = torch.optim.SGD(learned.values(), meta["lr"], meta["momentum"], weight_decay=meta["weight_decay"])
    domains = torch.arange(len(images)).repeat_interleave(images.shape[2])
    for step in range(5):
        out = trainer.output({"img": images[:, step].flatten(0, 1), "domain": domains})
        assert_near(out.logits.detach(), theirs.tensor("train_logits")[step], 1e-5 if step == 0 else 5e-5)
        loss = F.cross_entropy(out.logits, labels[:, step].flatten())
        assert loss.item() == pytest.approx(theirs.data["losses"][step], rel=1e-5)
        sgd.zero_grad()
        loss.backward()
        for name, p in learned.items() if step == 0 else ():
            assert_near(p.grad, theirs.tensor(f"grad/{name}"), 1e-5)
        sgd.step()
        for name, p in learned.items() if step in (0, 4) else ():
            assert_near(p.detach(), theirs.tensor(f"after{step + 1}/{name}"), 1e-5 if step == 0 else 5e-5)
    with torch.no_grad():
        assert_near(model(theirs.tensor("test_images").float()).logits, theirs.tensor("logits_after5"), 5e-5)


def test_by_default_images_meet_the_texts_of_their_own_domain(golden):
    theirs, _, model, _ = built(golden)
    images = theirs.tensor("images").float()[:, 0]
    trainer = OfDomains(model, CfgNode({"UPSTREAM_COMPAT": False}), len(images))
    shuffled = torch.randperm(images[..., 0, 0, 0].numel(), generator=torch.Generator().manual_seed(0))
    domains = torch.arange(len(images)).repeat_interleave(images.shape[1])[shuffled]
    with torch.no_grad():
        together = trainer.output({"img": images.flatten(0, 1)[shuffled], "domain": domains}).logits
        for domain, own in enumerate(images):
            mine = together[domains == domain].sort(0).values
            torch.testing.assert_close(mine, model(own).logits.sort(0).values, rtol=1e-5, atol=1e-4)


def test_a_test_batch_of_one_image_has_no_mean(make_cfg):
    with pytest.raises(UserError, match="at least 2 images"):
        build_trainer(make_cfg("DPL", "DATALOADER.TEST.BATCH_SIZE", 1))
