"""Visual reprogramming: DVP step by step as the authors' run (origin: tests/golden/README.md), others by formula."""
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip import encode_texts
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.utils import UserError

NO_TEST = ("TEST.NO_TEST", True)
SIX = ("TRAINER.DVPCSE.NUM_DESCRIPTIONS", 6)                  # fewer sentences, less time


def assert_near(ours, theirs, tolerance):
    torch.testing.assert_close(ours, theirs.reshape(ours.shape), rtol=0, atol=tolerance * float(theirs.abs().max()))


def dense(weights):
    """(C, m) -> the authors' (C*m, C) matrix, zero but for each class's own rows."""
    C, m = weights.shape
    matrix = torch.zeros(C * m, C)
    for c in range(C):
        matrix[c * m:(c + 1) * m, c] = weights[c]
    return matrix


@pytest.fixture
def golden_trainer(make_cfg, golden):
    """DVPcse with the golden file's class names, batches and sentences: 2 epochs of 5 batches."""
    theirs = golden("dvp_cse")
    make_cfg("DVPcse")                                         # registers the toy sets
    if "ToyPets" not in DATASET_REGISTRY.registered_names():
        DATASET_REGISTRY.register()(type("ToyPets", (DATASET_REGISTRY.get("Toy"),), {"names": theirs.classnames}))
    trainer = build_trainer(make_cfg("DVPcse", "DATALOADER.TRAIN_X.BATCH_SIZE", 4, "OPTIM.NAME", "sgd",
                                     "OPTIM.LR", 40.0, dataset="ToyPets"))
    assert len(trainer.train_loader_x) == 5
    images, labels = theirs.tensor("images"), theirs.tensor("labels")
    trainer.train_loader_x = [{"img": x, "label": y} for x, y in zip(images, labels)]
    causes = [theirs.json(f"causes_txt/{i}") for i in range(3)]
    trainer.model.head.draw = lambda: [sum((cause[c] for cause in causes), []) for c in range(5)]
    return trainer, theirs


def test_dvp_cse_follows_the_authors_run(golden_trainer):
    """Tolerance: an independent fused implementation agrees to 1.6e-6 relative to max|.|."""
    trainer, theirs = golden_trainer
    prompts, prm = trainer.model.prompt_learner["pixel"], trainer.model.head.mapping
    whole = [lambda i=i: prompts[i].on_canvas(prompts[i].program.detach()) for i in range(3)]
    for i, prompt in enumerate(prompts):
        prompt.load_state_dict({"program": theirs.tensor(f"param/{i}"), "mask": theirs.tensor(f"mask/{i}")})
    for i in range(3):
        ours = trainer.model.head.features[:, 20 * i:20 * (i + 1)].flatten(0, 1)
        assert_near(ours, theirs.tensor(f"causes_emb/{i}"), 1e-5)
    assert torch.equal(dense(prm.weights), theirs.tensor("prm_init"))

    picked, losses, rates, step = [], [], [], trainer.forward_backward
    observe = prm.observe

    def observed(scores, labels):
        rows = torch.arange(len(labels))
        picked.append(scores[rows, labels].topk(3, dim=1).indices)
        observe(scores, labels)

    def recorded(batch):
        rates.append(trainer.get_current_lr())
        losses.append(step(batch)["loss"])
        if len(losses) in (1, 5):
            for i in range(3):
                assert_near(whole[i](), theirs.tensor(f"after{len(losses)}/{i}"), 1e-5 if len(losses) == 1 else 5e-5)
        if len(losses) == 1:
            for i in range(3):
                assert_near(prompts[i].on_canvas(prompts[i].program.grad), theirs.tensor(f"grad/{i}"), 1e-5)
        return {"loss": losses[-1]}

    prm.observe, trainer.forward_backward = observed, recorded
    trainer.epoch = 0
    trainer.run_epoch()
    assert not losses and all(not p.program.any() for p in prompts)         # the first epoch only counts
    assert torch.equal(torch.cat(picked), theirs.tensor("topk_V/epoch0"))
    assert_near(dense(prm.weights), theirs.tensor("prm_epoch0"), 1e-6)
    with torch.no_grad():
        out = trainer.model(theirs.tensor("images")[0])
        views = (prompts(theirs.tensor("images")[0]) - trainer.model.mean) / trainer.model.std
    assert_near(out.aux["scores"], theirs.tensor("fx"), 1e-5)
    assert_near(out.logits, theirs.tensor("logits"), 1e-5)
    for i in range(3):
        assert_near(views[i], theirs.tensor(f"prompted/{i}"), 1e-6)
    picked.clear()
    trainer.epoch = 1
    trainer.run_epoch()
    np.testing.assert_allclose(rates, theirs.data["lrs"], rtol=1e-12)
    np.testing.assert_allclose(losses, theirs.data["losses"], rtol=1e-5)
    assert torch.equal(torch.cat(picked), theirs.tensor("topk_V/epoch1"))
    assert_near(dense(prm.weights), theirs.tensor("prm_epoch1"), 1e-6)
    with torch.no_grad():
        assert_near(trainer.model_inference(theirs.tensor("test_images")[0]), theirs.tensor("test_logits"), 5e-5)


def test_each_prompt_has_an_optimiser_and_a_schedule_of_its_own(make_cfg):
    trainer = build_trainer(make_cfg("DVPcse", *SIX, "OPTIM.NAME", "sgd", "OPTIM.LR", 40.0, "OPTIM.MAX_EPOCH", 3,
                                     *NO_TEST))
    names = ["pixel_prompt_1", "pixel_prompt_2", "pixel_prompt_3"]
    assert trainer.get_model_names() == [*names, "prompt_learner"]
    assert len({id(trainer._optims[n]) for n in names}) == len({id(trainer._scheds[n]) for n in names}) == 3
    trainer.train()
    batches = len(trainer.train_loader_x)
    assert batches == 2                                        # 16 images in batches of 8
    for name in names:                                         # T_max counts the first epoch, which takes no step
        steps, t_max = 2 * batches, 3 * batches
        assert trainer.get_current_lr(name) == pytest.approx(20 * (1 + math.cos(math.pi * steps / t_max)), rel=1e-6)


def test_no_short_batch_is_dropped(make_cfg):
    trainer = build_trainer(make_cfg("AR", "DATALOADER.TRAIN_X.BATCH_SIZE", 6))
    assert [len(batch["label"]) for batch in trainer.train_loader_x] == [6, 6, 4]


def test_dvp_cls_scores_as_the_authors_masks_do(make_cfg):
    """fs_dvp_cls.py: a tower pass per prompt, other clusters' embeddings set to zero, scores summed, times the PRM."""
    trainer = build_trainer(make_cfg("DVPcls", "OPTIM.MAX_EPOCH", 3, *NO_TEST))
    trainer.train()
    model, bank = trainer.model, trainer.model.head
    images = next(iter(trainer.test_loader))["img"]
    texts = encode_texts(model.clip, sum(bank.sentences, []))                              # (C*m, D)
    from sklearn.cluster import KMeans
    labels = KMeans(n_clusters=3, random_state=0, n_init=1).fit(texts.numpy()).labels_
    total = 0
    with torch.no_grad():
        for i, prompt in enumerate(model.prompt_learner["pixel"]):
            view = (prompt(images) - model.mean) / model.std
            mask = torch.tensor(labels == i)[:, None]
            total = total + model.clip.scale * model.clip.encode_image(view) @ (texts * mask).T
        torch.testing.assert_close(trainer.model_inference(images), total @ dense(bank.mapping.weights))
    assert set(labels) == {0, 1, 2} and bank.prompt_of.flatten().tolist() == labels.tolist()


@pytest.mark.parametrize("causes", [(2,), (3, 1)])
def test_any_number_of_causes_has_as_many_prompts(make_cfg, causes):
    trainer = build_trainer(make_cfg("DVPcse", *SIX, "TRAINER.DVPCSE.CAUSES", causes, *NO_TEST))
    trainer.train()
    assert len(trainer.model.prompt_learner["pixel"]) == len(causes)
    told = [sentence.split()[1] for sentence in trainer.model.head.sentences[0]]
    assert told == [f"cse_{i}" for i in causes for _ in range(6)]
    assert trainer.model.head.prompt_of[0].tolist() == [i for i in range(len(causes)) for _ in range(6)]


def test_attrvr_averages_the_best_of_both_kinds(make_cfg):
    trainer = build_trainer(make_cfg("AttrVR", "TRAINER.ATTRVR.ALPHA", 0.25, *NO_TEST))
    trainer.train()
    model, images = trainer.model, next(iter(trainer.test_loader))["img"]
    with torch.no_grad():
        view = (model.prompt_learner["pixel"](images) - model.mean) / model.std
        features = model.clip.encode_image(view)
        columns = []
        for sentences in trainer.model.head.sentences:
            scores = model.clip.scale * features @ encode_texts(model.clip, sentences).T   # (B, 40)
            best = [part.sort(descending=True).values[:, :3].mean(1) for part in scores.split(20, dim=1)]
            columns.append(0.25 * best[0] + 0.75 * best[1])
        torch.testing.assert_close(trainer.model_inference(images), torch.stack(columns, 1))


@pytest.mark.parametrize("name", ["AttrVR", "DVPcse", "DVPcls"])
def test_testing_needs_no_descriptions_and_gives_the_same_accuracy(name, make_cfg, tmp_path, monkeypatch):
    trained = build_trainer(make_cfg(name))
    trained.train()
    loaded = build_trainer(make_cfg(name, seed=7, output=tmp_path / "again"))
    monkeypatch.delattr(loaded.dm.dataset, "descriptions")
    loaded.load_model(str(tmp_path / "run"))
    loaded.test()
    ours, theirs = (json.loads((tmp_path / f / "results.json").read_text())["metrics"] for f in ("again", "run"))
    assert ours == theirs
    texts = json.loads((tmp_path / "run" / "descriptions.json").read_text())
    assert list(texts) == trained.classes.names and list(texts.values()) == loaded.model.head.sentences


@pytest.mark.parametrize("name", ["AR", "DVPcls"])
def test_a_resumed_run_equals_an_uninterrupted_one(name, make_cfg, tmp_path, monkeypatch):
    opts = ("OPTIM.MAX_EPOCH", 4, "TRAIN.CHECKPOINT_FREQ", 2, f"TRAINER.{name.upper()}.TEST_EVERY_EPOCH", True)
    whole = build_trainer(make_cfg(name, *opts, output=tmp_path / "whole"))
    whole.train()
    part = build_trainer(make_cfg(name, *opts, output=tmp_path / "part"))
    save = part.save_model

    def interrupted(epoch, *args, **kwargs):
        save(epoch, *args, **kwargs)
        raise KeyboardInterrupt

    part.save_model = interrupted
    with pytest.raises(KeyboardInterrupt):
        part.train()
    resumed = build_trainer(make_cfg(name, *opts, "RESUME", str(tmp_path / "part"), output=tmp_path / "part"))
    resumed.train()
    one, two = (t.model.prompt_learner.state_dict() for t in (whole, resumed))
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)
    assert whole.get_current_lr() == resumed.get_current_lr() and whole.best_test == resumed.best_test


def test_the_best_test_epoch_stands_beside_the_result_and_changes_nothing(make_cfg, tmp_path, caplog):
    records = {}
    for every in (True, False):
        trainer = build_trainer(make_cfg("AR", "OPTIM.MAX_EPOCH", 3, "TRAINER.AR.TEST_EVERY_EPOCH", every,
                                         output=tmp_path / str(every)))
        with caplog.at_level("INFO"):
            trainer.train()
        records[every] = json.loads((tmp_path / str(every) / "results.json").read_text())
    best = records[True]["best_test_epoch"]
    assert best["accuracy"] >= records[True]["metrics"]["accuracy"] == records[False]["metrics"]["accuracy"]
    assert 1 <= best["epoch"] <= 3 and "best_test_epoch" not in records[False]
    assert "selected on the test set, as in the authors' code" in caplog.text


def test_vp_adds_its_frame_to_the_normalised_image(make_cfg):
    trainer = build_trainer(make_cfg("VP", *NO_TEST))
    trainer.train()
    model, images = trainer.model, next(iter(trainer.test_loader))["img"]
    frame = model.prompt_learner["pixel"].border()
    names = [f"This is a photo of {name.replace('_', ' ')}." for name in trainer.classes.names]
    with torch.no_grad():
        literal = model.clip.scale * model.clip.encode_image(images + frame) @ encode_texts(model.clip, names).T
        torch.testing.assert_close(trainer.model_inference(images), literal)
    assert frame.any() and F.pad(torch.ones(3, 24, 24), (4, 4, 4, 4)).bool().logical_not().count_nonzero() == \
        trainer.learned_parameters


@pytest.mark.parametrize(("alias", "name"), [("DVP-cse", "DVPcse"), ("DVP-cls", "DVPcls"), ("DVP-PRM", "DVPcls")])
def test_the_papers_spellings_are_understood_and_recorded_as_one(make_cfg, alias, name):
    assert TRAINER_REGISTRY.get(alias) is TRAINER_REGISTRY.get(name)
    assert make_cfg(name, "TRAINER.NAME", alias).TRAINER.NAME == name


@pytest.mark.parametrize(("trainer", "opts", "words"), [
    ("AR", ("INPUT.TRANSFORMS", ["normalize"]), 'take "normalize" out of INPUT.TRANSFORMS'),
    ("VP", ("INPUT.TRANSFORMS", ["random_flip"]), 'add "normalize" to INPUT.TRANSFORMS'),
    ("AttrVR", ("INPUT.SIZE", (32, 32)), r'INPUT.SIZE is \(32, 32\).*INPUT.SIZE "\(27, 27\)"'),
    ("DVPcls", ("INPUT.SIZE", (24, 20)), "a smaller square image"),
    ("VP", ("TRAINER.VP.WIDTH", 17), "1 to 16 pixels wide, got 17"),
    ("DVPcls", ("TRAINER.DVPCLS.TOP_K", 21), "1 to 20, got TOP_K 21"),
    ("DVPcls", ("TRAINER.DVPCLS.NUM_CLUSTERS", 0), "At least 1 pixel prompt")])
def test_settings_that_do_not_fit_are_told(make_cfg, trainer, opts, words):
    with pytest.raises(UserError, match=words):
        build_trainer(make_cfg(trainer, *opts))


def test_missing_descriptions_are_told_before_anything_is_written(make_cfg, tmp_path, monkeypatch):
    trainer = build_trainer(make_cfg("DVPcls", "TRAINER.DVPCLS.DESCRIPTIONS", str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match="nowhere"):
        trainer.train()
    assert not (tmp_path / "run").exists()
