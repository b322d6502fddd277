"""Sub-networks of NOAH against the authors' numbers, and the search for one under a limit."""
import json
import random
import signal
from itertools import product

import pytest
import torch
import torch.nn.functional as F
import yaml
from vit_weights import draw

from clip import InputError
from dassl import stop
from dassl.config import CfgNode
from dassl.engine import build_trainer
from dassl.utils import UserError
from tests.parts.five_steps import assert_near
from tests.parts.timm_vit import vit_of
from tools import train
from tools.runs.recipe import load_recipe
from trainers import searching
from trainers.parts.classes import Classes
from trainers.parts.evolution import Evolution
from trainers.parts.mixing import Mixing
from trainers.parts.subnet import PARTS, BlockParts, parameters_of
from trainers.subnet import SubNet

KINDS = ("visual_prompt_dim", "lora_dim", "adapter_dim")


def their_name(own):
    """visual.down.1.weight -> blocks.1.adapter.ln1.weight"""
    kind, *rest = own.removeprefix("visual.").split(".")
    table = {"prompts": "visual_prompt_token", "A": "attn.LoRA_a.weight", "B": "attn.LoRA_b.weight",
             "down": "adapter.ln1", "up": "adapter.ln2"}
    if kind == "head":
        return own
    name = f"blocks.{rest[0]}.{'.'.join([table[kind], *rest[1:]])}"
    return name.replace("ln2.bias", "sampled_bias_1")


@pytest.fixture
def noah(golden, tiny_clip_weights):
    theirs = golden("noah")
    clip = vit_of(draw(theirs.json("weights_order")), tiny_clip_weights)
    model = SubNet.build(clip, Classes([str(i) for i in range(10)]),
                         CfgNode({"PROMPT": (6,), "LORA": (6,), "ADAPTER": (6,), "DROPOUT": 0.0, "HEAD": "linear"}))
    with torch.no_grad():
        for own, parameter in model.prompt_learner.named_parameters():
            parameter.copy_(theirs.tensor(f"param/{their_name(own)}").reshape(parameter.shape))
    return theirs, model, [[config[kind] for kind in KINDS] for config in theirs.json("meta")["config"]["configs"]]


def test_sub_networks_answer_and_learn_as_the_authors_do(noah):
    theirs, model, configs = noah
    images, labels, parts = theirs.tensor("images").float(), theirs.tensor("labels"), model.brick("visual")
    with torch.no_grad():
        for config, logits in zip(configs, theirs.tensor("logits"), strict=True):
            parts.choose(config)
            assert_near(model.eval()(images[0]).logits, logits)
    learned = dict(model.prompt_learner.named_parameters())
    optim = torch.optim.AdamW(learned.values(), 0.001, weight_decay=1e-4)
    for step, config in enumerate(theirs.json("meta")["config"]["step_configs"]):
        parts.choose(configs[config])
        loss = F.cross_entropy(model.train()(images[step]).logits, labels[step])
        assert loss.item() == pytest.approx(theirs.data["losses"][step], rel=1e-5)
        optim.zero_grad()
        loss.backward()
        for own, p in learned.items() if step == 0 else ():
            name = f"grad/{their_name(own)}"
            assert (p.grad is not None) == (name in theirs.data.files)
            if p.grad is not None:
                assert_near(p.grad, theirs.tensor(name))
        optim.step()
        for own, p in learned.items() if step in (0, 4) else ():
            assert_near(p.detach(), theirs.tensor(f"after{step + 1}/{their_name(own)}"), 5e-5)
    parts.choose(configs[0])
    with torch.no_grad():
        assert_near(model.eval()(images[0]).logits, theirs.tensor("logits_after5"), 5e-5)


def test_dropout_falls_on_prompts_on_what_updates_read_and_within_adapters(noah):
    _, model, configs = noah
    parts, x = model.brick("visual"), torch.randn(2, 9, 64)
    parts.choose(configs[2])
    y, hidden = torch.randn(2, 9, 192), torch.randn(2, 9, 64)
    plain = [parts.enter(0, x), parts.project(0, "qkv", x, y), parts.project(0, "proj", x, hidden)]
    parts.dropout = torch.nn.Dropout(1.0)                   # drops all, as none is scaled to infinity
    without = [parts.enter(0, x), parts.project(0, "qkv", x, y), parts.project(0, "proj", x, hidden)]
    assert torch.equal(without[0][:, :9], plain[0][:, :9]) and not without[0][:, 9:].any()
    assert torch.equal(without[1], y) and torch.equal(without[2], hidden + parts.up["0"].bias)
    parts.dropout.eval()
    assert torch.equal(parts.enter(0, x), plain[0])


def test_parameters_are_the_authors_without_the_tokens_that_reach_no_attention(noah):
    theirs, model, configs = noah
    for config, theirs_count in zip(configs, theirs.data["numel"], strict=True):
        first = config[0][0]
        assert parameters_of(config, 64) == theirs_count - 64 * (first + 6 if first else 0)
    parts = model.brick("visual")
    parts.choose(configs[2])                            # all of it
    assert parts.count() == sum(p.numel() for p in parts.parameters()) == sum(p.numel() for p in parts.in_use())
    parts.choose(configs[3])
    assert parts.count() == 0 and not parts.in_use()


def evolution(**own):
    return Evolution(**{"choices": (0, 1, 3), "length": 4, "cost": sum, "limit": 6, "size": 12, "parents": 3,
                        "mutated": 4, "crossed": 3, **own})


@pytest.mark.parametrize("limit", [0, 2, 6, 12])
def test_no_candidate_exceeds_the_limit_and_a_population_has_no_twins(limit):
    search, former = evolution(limit=limit), []
    possible = [genes for genes in product((0, 1, 3), repeat=4) if sum(genes) <= limit]
    for generation in range(4):
        found = search.population(generation, former)
        assert len(found) == len(set(found)) <= min(12, len(possible)) and set(found) <= set(possible)
        assert found[:3] == former[:3] or not former
        former = sorted(found, key=lambda genes: (-genes[0], genes))
    assert len(found) == min(12, len(possible))


def test_a_search_finds_the_best_of_all_that_a_limit_allows():
    weights = [5, 1, 4, 2, 3, 1]
    score = lambda genes: sum(w * min(g, 2) for w, g in zip(weights, genes, strict=True))   # noqa: E731
    search, former = evolution(length=6, limit=7, size=30, parents=6, mutated=10, crossed=8), []
    for generation in range(12):
        former = sorted(search.population(generation, former), key=lambda genes: -score(genes))
    best = max((genes for genes in product((0, 1, 3), repeat=6) if sum(genes) <= 7), key=score)
    assert score(former[0]) == score(best)


def test_mutations_change_about_their_share_of_the_genes():
    search = evolution(length=200, limit=600, size=2, parents=1, mutated=1, crossed=0, mutation=0.3)
    parent = tuple(random.Random(0).choice((0, 1, 3)) for _ in range(200))
    children = [search.population(generation, [parent])[1] for generation in range(1, 21)]
    changed = sum(a != b for child in children for a, b in zip(parent, child, strict=True)) / 20
    assert 0.15 * 200 < changed < 0.25 * 200                        # 0.3 of them, of which a third draws what it had


@pytest.mark.parametrize("own, got", [({"choices": (2, 3), "limit": 7}, "limit of 7 parameters: the smallest has 8"),
                                      ({"choices": (3, 1)}, r"got \[3, 1\]"), ({"choices": ()}, r"got \[\]"),
                                      ({"size": 9}, "size of 9"), ({"parents": 0}, "for 0")])
def test_impossible_searches_are_refused(own, got):
    with pytest.raises(InputError, match=got):
        evolution(**own)


SMALL = ["TRAINER.NOAH.CHOICES", "(0, 1, 2)", "TRAINER.NOAH.LIMIT", 900, "TRAINER.NOAH.GENERATIONS", 2,
         "TRAINER.NOAH.POPULATION", 6, "TRAINER.NOAH.PARENTS", 2, "TRAINER.NOAH.MUTATED", 2, "TRAINER.NOAH.CROSSED", 1]


def run(make_cfg, folder, resume="", stop_at=None, monkeypatch=None):
    cfg = make_cfg("NOAH", *SMALL, "OPTIM.MAX_EPOCH", 2, "TRAINER.NOAH.SHARE", 0.5,
                   "TRAINER.NOAH.RETRAIN_LR", 0.02, output=folder)
    cfg.defrost()
    cfg.RESUME = resume
    trainer, count, accuracy = build_trainer(cfg), [], searching._fitness

    def counted(trainer, genes):
        count.append(genes)
        if len(count) == stop_at:
            signal.raise_signal(signal.SIGTERM)
        return accuracy(trainer, genes)

    monkeypatch.setattr(searching, "_fitness", counted)
    try:
        with stop.on_signals():
            trainer.train()
    except SystemExit:
        trainer.close_loaders()
    monkeypatch.setattr(searching, "_fitness", accuracy)
    return trainer, count


def test_a_search_resumes_with_what_it_compared_and_its_result_is_a_recipe(make_cfg, tmp_path, monkeypatch):
    whole, all_of_them = run(make_cfg, tmp_path / "whole", monkeypatch=monkeypatch)
    assert len(all_of_them) == len(set(all_of_them)) > 6
    _, first = run(make_cfg, tmp_path / "cut", stop_at=3, monkeypatch=monkeypatch)
    assert len(first) == 3 and not (tmp_path / "cut" / "found.yaml").exists()
    again, rest = run(make_cfg, tmp_path / "cut", str(tmp_path / "cut"), monkeypatch=monkeypatch)
    assert first + rest == all_of_them
    states = [trainer.model.prompt_learner.state_dict() for trainer in (whole, again)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    for file in ("search.json", "found.yaml"):
        assert (tmp_path / "whole" / file).read_text() == (tmp_path / "cut" / file).read_text()
    record = json.loads((tmp_path / "cut" / "results.json").read_text())
    found = [record["found"][part] for part in PARTS]
    assert record["found_parameters"] == parameters_of(found, 64) <= record["limit"] == 900
    dims = [item for part, row in zip(PARTS, found) for item in (f"TRAINER.SUBNET.{part.upper()}", str(tuple(row)))]
    alone = build_trainer(make_cfg("SubNet", *dims, output=tmp_path / "alone"))
    assert record["learned_parameters"] == alone.learned_parameters < whole.learned_parameters
    search = json.loads((tmp_path / "cut" / "search.json").read_text())
    best = max(search["population"], key=lambda one: (one["accuracy"], -one["loss"]))
    assert searching.rows(best["genes"]) == found and all(one["parameters"] <= 900 for one in search["compared"])
    recipe = load_recipe(str(tmp_path / "cut" / "found.yaml"))
    cfg = train.setup_cfg(train.parser().parse_args(recipe.cell("digits", 4, 1).arguments("data", "output")))
    c = cfg.TRAINER.SUBNET
    assert recipe.cell("digits", 4, 1).folder.parts[2].startswith("cut-subnet_")
    assert (cfg.OPTIM.LR, cfg.MODEL.BACKBONE.NAME) == (0.02, again.cfg.MODEL.BACKBONE.NAME)
    assert again.sched.base_lrs == whole.sched.base_lrs == [0.02] != [again.cfg.OPTIM.LR]
    assert cfg.TRAINER.NAME == "SubNet" and [list(c.PROMPT), list(c.LORA), list(c.ADAPTER)] == found
    assert yaml.safe_load((tmp_path / "cut" / "found.yaml").read_text())["epochs"] == 1


def test_the_found_network_starts_from_the_weights_before_the_search_and_learns_alone(make_cfg, tmp_path, monkeypatch):
    starts, steps = [], []
    from trainers.noah import NOAH
    enter, output = NOAH.enter_stage, NOAH.output

    def entered(self, first):
        enter(self, first)
        starts.append({k: v.clone() for k, v in self.model.prompt_learner.state_dict().items()})

    def answered(self, batch):
        found = output(self, batch)
        steps.append((self.epoch, tuple(map(tuple, self.parts.dims))))
        return found

    monkeypatch.setattr(NOAH, "enter_stage", entered)
    monkeypatch.setattr(NOAH, "output", answered)
    trainer, _ = run(make_cfg, tmp_path / "run", monkeypatch=monkeypatch)
    assert all(torch.equal(v, starts[1][k]) for k, v in starts[0].items() if k != "visual.chosen")
    assert len({dims for epoch, dims in steps if epoch == 0}) > 1 and len({d for e, d in steps if e == 1}) == 1
    in_use, now = set(map(id, trainer.parts.in_use())), trainer.model.prompt_learner.state_dict()
    for name, parameter in trainer.model.prompt_learner.named_parameters():
        if name.startswith("visual."):
            assert parameter.requires_grad == (id(parameter) in in_use)
            assert id(parameter) in in_use or torch.equal(now[name], starts[1][name])


@pytest.mark.parametrize("name, opts, got", [
    ("NOAH", ["TRAINER.NOAH.CHOICES", "(4, 8)", "TRAINER.NOAH.LIMIT", 100], "limit of 100 parameters"),
    ("NOAH", ["TRAINER.NOAH.CHOICES", "()"], r"above 0.*\(\)"),
    ("NOAH", ["TRAINER.NOAH.LIMIT", 0], "got 0"), ("NOAH", ["TRAINER.NOAH.SHARE", 0.1], "need an epoch"),
    ("SubNet", ["TRAINER.SUBNET.DROP_PATH", 1.0], "got 1.0"), ("SubNet", ["TRAINER.SUBNET.MIXUP", -1.0], "got -1.0"),
    ("NOAH", ["TRAINER.NOAH.RETRAIN_LR", -1.0], "got -1.0"), ("NOAH", ["TRAINER.NOAH.DROPOUT", 1.0], "got 1.0"),
    ("NOAH", ["TRAINER.NOAH.MUTATION", 2.0], "at most 1, got 2.0"),
    ("NOAH", ["TRAINER.NOAH.CHOICES", "(0,)"], r"\(0,\)"),
    ("NOAH", ["TRAIN.TASKS", 2], "two stages"),
    ("SubNet", ["TRAINER.SUBNET.LORA", "(1, 2)"], r"3 blocks.*got .1, 2."),
    ("SubNet", ["TRAINER.SUBNET.ADAPTER", "(65,)"], "0 to 64"), ("SubNet", ["TRAINER.SUBNET.HEAD", "x"], "got 'x'")])
def test_impossible_settings_are_the_users(make_cfg, name, opts, got):
    with pytest.raises(UserError, match=got):
        build_trainer(make_cfg(name, *opts))


def test_validation_images_that_are_test_images_choose_nothing(make_cfg):
    from dassl.data.datasets import DATASET_REGISTRY

    make_cfg("NOAH")

    class NoVal(DATASET_REGISTRY.get("Toy")):
        def __init__(self, cfg):
            super().__init__(cfg)
            self._val = None

    DATASET_REGISTRY.register(force=True)(NoVal)
    with pytest.raises(UserError, match="NoVal has none"):
        build_trainer(make_cfg("NOAH", dataset="NoVal"))


@pytest.mark.parametrize("mixup, cutmix", [(0.8, 0.0), (0.0, 1.0)])
def test_every_image_is_mixed_with_the_next_one_and_its_label_alike(mixup, cutmix):
    torch.manual_seed(0)
    images, labels = torch.rand(5, 3, 8, 8), torch.tensor([0, 1, 2, 1, 0])
    mixed, shares = Mixing(mixup, cutmix, 3)(images, labels)
    own, other = F.one_hot(labels, 3).float(), F.one_hot(labels, 3).float().roll(1, 0)
    share = shares[1, 1].item()                                 # of an image of class 1, after one of class 0
    torch.testing.assert_close(shares, share * own + (1 - share) * other)
    if mixup:
        torch.testing.assert_close(mixed, share * images + (1 - share) * images.roll(1, 0))
    else:
        kept = (mixed == images).all(dim=1)
        assert torch.equal(mixed, torch.where(kept.unsqueeze(1), images, images.roll(1, 0)))
        assert kept.float().mean().item() == pytest.approx(share, abs=1e-6)


def test_mixed_images_learn_shares_of_smoothed_labels(make_cfg):
    trainer = build_trainer(make_cfg("SubNet", "TRAINER.SUBNET.MIXUP", 0.8, "TRAINER.SUBNET.CUTMIX", 1.0,
                                     "TRAINER.SUBNET.SMOOTHING", 0.1))
    met, loss = [], trainer.loss
    trainer.loss = lambda out, batch: met.append((out.logits.detach(), batch, loss(out, batch))) or met[-1][2]
    trainer.set_model_mode("train")
    trainer.num_batches, trainer.batch_idx = 2, 0
    plain = next(iter(trainer.train_loader_x))
    trainer.forward_backward(plain)
    (logits, batch, terms), = met
    C = logits.shape[1]
    wanted = 0.9 * batch["shares"] + 0.1 / C
    torch.testing.assert_close(terms["ce"].detach(), -(wanted * logits.log_softmax(1)).sum(1).mean())
    assert not torch.equal(batch["img"], plain["img"]) and torch.equal(batch["label"], plain["label"])


def test_paths_are_dropped_of_whole_images_in_training_and_more_often_in_later_blocks(tiny_clip):
    parts, y = BlockParts(tiny_clip, [0, 0, 0], drop_path=0.5), torch.ones(4000, 2, 3)
    torch.manual_seed(0)
    for block, rate in enumerate((0.0, 0.25, 0.5)):
        for site in ("out", "proj"):
            found = parts.project(block, site, y, y)
            dropped = (found == 0).flatten(1).float().mean(1)
            assert set(dropped.tolist()) <= {0.0, 1.0} and dropped.mean().item() == pytest.approx(rate, abs=0.03)
            torch.testing.assert_close(found[dropped == 0], torch.full_like(found[dropped == 0], 1 / (1 - rate)))
        assert parts.project(block, "qkv", y, y) is y
    assert parts.eval().project(2, "out", y, y) is y
