"""LASP against a slow literal reading of its description."""
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from clip import FrozenCLIP, InputError, TextTokens, tokenize
from clip.templates import MIXED_35
from dassl.config import CfgNode
from dassl.engine import build_trainer
from dassl.utils import UserError
from trainers.lasp import LASP
from trainers.parts.classes import Classes
from trainers.parts.losses import text_to_text

SEEN, NEW = ["cat", "yorkshire_terrier"], ["737-200", "dog"]
TEMPLATES = ["a photo of a {}.", "{} texture.", "art of the {}."]


def options(**changes):
    return CfgNode({"N_CTX": 4, "CTX_INIT": "a photo of a", "TEMPLATES": TEMPLATES, "W": 5.0, "NOISE": 0.05,
                    "NORMS": True, "NAMES": "references", "PREC": "fp32", **changes})


@pytest.fixture
def clip(tiny_clip):
    """Towers of its own, because LASP releases some of their weights."""
    return tiny_clip.frozen_copy()


def literal_features(clip, names, sentence, ctx=None, w=0):
    found = []
    for name in names:
        ids = tokenize(sentence.replace("{}", name.replace("_", " ")))
        words = clip.embed_tokens(ids)
        if ctx is not None:
            words = torch.cat([words[:, :1], ctx[None], words[:, 1 + len(ctx):]], dim=1)
        feature = clip.encode_text(TextTokens(words, ids.argmax(dim=-1)), unit_norm=False)[0] + w
        found.append(feature / feature.norm())
    return torch.stack(found)


@pytest.mark.parametrize(("names", "seed"), [("seen", 1), ("references", 0), ("all", 0)])
def test_the_loss_and_its_gradients_are_those_of_the_description(clip, names, seed):
    torch.manual_seed(3)
    c = options(NAMES=names)
    classes = Classes(SEEN, others=NEW)
    model = LASP.build(clip, classes, c)
    ctx, w = model.brick("text").ctx, model.head.w
    with torch.no_grad():
        ctx += 0.3 * torch.randn_like(ctx)
        w += 0.1 * torch.randn_like(w)
    images, labels = torch.randn(5, 3, 32, 32), torch.tensor([0, 1, 1, 0, 1])
    known = SEEN if names == "seen" else SEEN + NEW
    learned = literal_features(clip, known, "X X X X {}.", ctx, w[0])
    fixed = torch.stack([literal_features(clip, known, template) for template in TEMPLATES]).detach()
    torch.manual_seed(seed)                 # their order: whether there is noise, then the noise
    fixed = fixed + 0.05 * torch.randn(fixed.shape) if torch.rand(1) < 0.5 else fixed
    text = 0
    for reference in fixed:
        for j in range(len(known)):
            text -= (clip.scale * learned @ reference[j]).log_softmax(0)[j] / len(known) / len(TEMPLATES)
    compared = learned if names == "all" else learned[:2]
    expected = F.cross_entropy(clip.scale * clip.encode_image(images) @ compared.T, labels) + 5 * text
    trainer = SimpleNamespace(options=c, model=model, classes=classes)
    trainer.references = LASP.references.func(trainer)
    torch.manual_seed(seed)
    found = sum(LASP.loss(trainer, model.train()(images), {"label": labels}).values())
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=0)
    parameters = [*model.prompt_learner.parameters()]
    assert len(parameters) == 2 + 4 * clip.depth
    for ours, theirs in zip(*(torch.autograd.grad(x, parameters, retain_graph=True) for x in (found, expected)),
                            strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=3e-5 * float(theirs.abs().max()))
    assert model.eval()(images).logits.shape == (5, 2)                           # of the classes that have images


def test_the_soft_max_runs_over_learned_prompts_and_noise_comes_in_every_other_step():
    learned, references = F.normalize(torch.randn(3, 8), dim=-1), torch.randn(2, 3, 8)
    scaled = 7 * torch.einsum("id,rjd->rij", learned, references)
    expected = -torch.stack([scaled[r].softmax(0).diagonal().log() for r in range(2)]).mean()
    torch.testing.assert_close(text_to_text(learned, references, torch.tensor(7.0)), expected)


def test_the_published_references_are_35_of_which_one_comes_twice():
    assert len(MIXED_35) == 35 and len(set(MIXED_35)) == 34 and all(t.count("{}") == 1 for t in MIXED_35)


def test_norms_learn_at_a_tenth_of_the_rate(make_cfg):
    trainer = build_trainer(make_cfg("LASP", "OPTIM.LR", 0.02, "OPTIM.WARMUP_EPOCH", -1))
    rates = {id(p): group["lr"] for group in trainer.optim.param_groups for p in group["params"]}
    for name, parameter in trainer.model.prompt_learner.named_parameters():
        assert rates[id(parameter)] == pytest.approx(0.002 if name.startswith("tower") else 0.02)
    assert len(rates) == 2 + 4 * trainer.model.clip.depth and trainer.optim.param_groups[0]["lr"] == 0.02


def test_the_authors_whole_model_is_read_with_its_norms(clip):
    model = LASP.build(clip, Classes(SEEN), options())
    theirs = {f"image_encoder.{k.removeprefix('visual.')}": torch.randn_like(v) for k, v in clip.state_dict().items()
              if k.startswith("visual.")}
    theirs |= {"prompt_learner.ctx": torch.randn(4, 64), "prompt_learner.w": torch.randn(1, 32),
               "prompt_learner.class_text_features": torch.zeros(35, 4, 32), "logit_scale": torch.zeros(())}
    before = clip.visual.conv1.weight.clone()
    model.prompt_learner.load_state_dict(dict(theirs))
    assert torch.equal(model.head.w, theirs["prompt_learner.w"])
    norm = clip.visual.transformer.resblocks[1].ln_2.weight
    assert torch.equal(norm, theirs["image_encoder.transformer.resblocks.1.ln_2.weight"])
    assert torch.equal(clip.visual.conv1.weight, before)
    assert LASP.options_of({"ctx": torch.zeros(4, 64), "w": torch.zeros(1, 32),
                            "class_text_features": torch.zeros(1)}) == {"N_CTX": 4}
    assert LASP.options_of({"ctx": torch.zeros(4, 64)}) is None


def test_names_of_the_other_half_are_known_and_without_them_it_refuses(make_cfg):
    from dassl.data.datasets import DATASET_REGISTRY
    from datasets.few_shot import few_shot_splits

    make_cfg("LASP")
    toy = DATASET_REGISTRY.get("Toy")

    class Halved(toy):
        def __init__(self, cfg):
            toy.__init__(self, cfg)
            self._train_x, self._val, self._test = few_shot_splits(self, cfg, self.train_x, self.val, self.test)
            self._num_classes = self.get_num_classes(self._train_x)
            self._lab2cname, self._classnames = self.get_lab2cname(self._train_x)

    DATASET_REGISTRY.register(Halved)
    try:
        opts = ("DATASET.SUBSAMPLE_CLASSES", "new", "TRAINER.LASP.NAMES", "references", "TRAINER.LASP.TEMPLATES",
                '["a {}."]')
        trainer = build_trainer(make_cfg("LASP", *opts, dataset="Halved"))
        assert trainer.classes.others == ["red_square", "green_square"] and trainer.references.shape == (1, 4, 32)
        assert len(trainer.model.text_features()) == 4
    finally:
        DATASET_REGISTRY._obj_map.pop("Halved")
    refused = build_trainer(make_cfg("LASP", "TRAINER.LASP.NAMES", "all"))
    with pytest.raises(UserError, match="NAMES all needs the names of the classes that training does not see"):
        refused.loss(refused.model(next(iter(refused.train_loader_x))["img"]), {})


def test_what_it_cannot_do_is_refused(make_cfg, golden, clip):
    from random_clip import state_dict

    with pytest.raises(UserError, match="NAMES must be seen, references or all, got 'new'"):
        build_trainer(make_cfg("LASP", "TRAINER.LASP.NAMES", "new"))
    with pytest.raises(InputError, match="one {} for the class name"):
        LASP.build(clip, Classes(SEEN), options(TEMPLATES=["a photo"]))
    resnet = FrozenCLIP.from_state_dict(state_dict(golden("plot_n4").json("clip")))
    with pytest.raises(InputError, match="tunes the norms .* vision transformer"):
        LASP.build(resnet, Classes(SEEN), options())
    assert LASP.build(resnet, Classes(SEEN), options(NORMS=False)).brick("tower") is None
