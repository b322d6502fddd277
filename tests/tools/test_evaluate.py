"""What breaks a run's classifier: numbers, what is kept beside the run, and what is refused before anything runs."""
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dassl.engine import build_trainer
from dassl.utils import UserError
from tools import evaluate
from tools.evaluating import corrupting, masking, measure, patches, record
from tools.evaluating.corrupting import ALEXNET, mean_corruption_error
from trainers.parts.attack_names import Attack
from trainers.under_attack import Attackable


def measured(folder, *words):
    return evaluate.evaluate(folder, evaluate.parser().parse_args([str(folder), *words]))


@pytest.mark.parametrize("name", ["CoOp", "AR", "TipAdapterF"])     # normalised by the loader, the model; of features
def test_an_attack_lowers_the_accuracy_of_any_trainers_run(toy_run, name):
    folder = toy_run(name)
    found = measured(folder, "--attack", "pgd:1/255:3", "--attack", "pgd:32/255:5")
    accuracies = [found["attacks"][text]["accuracy"] for text in ("pgd:1/255:3", "pgd:32/255:5")]
    assert found["clean"] == pytest.approx(json.loads((folder / "results.json").read_text())["metrics"]["accuracy"])
    assert found["clean"] >= accuracies[0] >= accuracies[1] and accuracies[1] < max(found["clean"], 1)
    assert found["attacks"]["pgd:1/255:3"]["eps"] == "1/255"
    assert json.loads((folder / "robustness.json").read_text()) == json.loads(json.dumps(found))
    assert (folder / "plots" / "robustness.png").is_file()


def test_what_was_measured_before_stays_unless_it_is_measured_again(toy_run):
    folder = toy_run("CoOp")
    measured(folder, "--shuffle", "4", "--no-figure")
    measured(folder, "--occlude", "random", "0", "0.5", "--occlude", "salient", "0.5", "--patches", "0.1",
             "--no-figure")
    found = measured(folder, "--shuffle", "16", "--attack", "random:1/255:2", "--no-figure")
    assert set(found["shuffle"]) == {"4", "16"} and set(found["occlusion"]) == {"random", "salient"}
    assert found["occlusion"]["random"]["0"] == found["clean"] and set(found["patches"]) == {"0.1"}
    table = record.table({"a": found})
    assert "random, eps 1/255, 2 tries" in table and "16 pieces" in table and "random 50% covered" in table
    panels = record.curves(found)
    assert panels["pieces that are shuffled"]["shuffled"][0] == (1.0, found["clean"]) and len(panels) == 4
    again = measured(folder, "--shuffle", "4", "--images", "8", "--no-figure")
    assert again["of"]["images"] == 8 and "occlusion" not in again or not again["occlusion"]


def test_corruptions_are_held_against_zero_shot_clip_of_the_same_backbone(toy_run):
    folder = toy_run("CoOp")
    found = measured(folder, "--corrupt", "contrast", "fog:5", "--images", "12", "--no-figure")["corruptions"]
    assert set(found["accuracy"]) == {*(f"contrast:{s}" for s in range(1, 6)), "fog:5"}
    assert set(found["ce"]) == {"contrast"} and found["mce"] == found["ce"]["contrast"]
    assert "zero-shot" in found["reference"]
    alexnet = measured(folder, "--corrupt", "contrast", "--images", "12", "--reference", "alexnet",
                       "--no-figure")["corruptions"]
    errors = [100 - alexnet["accuracy"][f"contrast:{s}"] for s in range(1, 6)]
    assert alexnet["mce"] == pytest.approx(100 * sum(errors) / (5 * ALEXNET["contrast"]))


def test_what_was_measured_before_ctrl_c_is_kept_and_joined_by_the_rest(toy_run, monkeypatch, capsys):
    folder, accuracy, left = toy_run("CoOp"), measure.Images.accuracy, [5]

    def interrupted(*args, **options):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return accuracy(*args, **options)

    monkeypatch.setattr(measure.Images, "accuracy", interrupted)
    words = ["--shuffle", "4", "--corrupt", "fog:1", "fog:2", "--images", "8", "--no-figure"]
    assert evaluate.cli([str(folder), *words]) == 130           # of clean, 4 pieces, fog:1 twice, fog:2
    assert "robustness.json" in capsys.readouterr().err
    kept = json.loads((folder / "robustness.json").read_text())
    assert set(kept["shuffle"]) == {"4"} and set(kept["corruptions"]["accuracy"]) == {"fog:1"}
    left[0] = 100
    found = measured(folder, "--corrupt", "fog:2", "fog:3", "fog:4", "fog:5", *words[-3:])
    assert found["shuffle"] == kept["shuffle"] and set(found["corruptions"]["ce"]) == {"fog"}


def test_mce_is_hendrycks_and_dietterichs():
    errors = {f"{name}:{s}": 10.0 * s for name in ("fog", "snow") for s in range(1, 6)}
    mce, each = mean_corruption_error({**errors, "frost:1": 3.0}, {})
    assert each == pytest.approx({"fog": 100 * 150 / (5 * 81.9324), "snow": 100 * 150 / (5 * 86.6816)})
    assert mce == pytest.approx(sum(each.values()) / 2)
    assert mean_corruption_error(errors, {key: 2 * value for key, value in errors.items()})[0] == pytest.approx(50)
    assert mean_corruption_error({"fog:1": 3.0}, {}) == (None, {})
    with pytest.raises(UserError, match="no error under fog"):
        mean_corruption_error(errors, dict.fromkeys(errors, 0.0))


class Pretended:
    """A trainer whose answers a function gives."""

    adapts, device = "", torch.device("cpu")

    def __init__(self, answer, make_cfg):
        self.cfg, self._answer, self.module = make_cfg("ZeroshotCLIP"), answer, nn.Linear(1, 1)

    def model_inference(self, images):
        return self._answer(images)

    def registered(self):
        return []


def model_of(make_cfg, answer):
    model = Attackable(Pretended(answer, make_cfg))
    model.normalised = False
    return model


def test_masked_gradients_are_noticed(make_cfg):
    weights = torch.randn(48, 3, generator=torch.Generator().manual_seed(0))
    images = torch.rand(32, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.25

    def plain(x):
        return (x.flatten(1) - 0.5) @ weights

    labels, attack = plain(images).argmax(dim=1), Attack.parse("pgd:0.2:5")
    assert masking.check(model_of(make_cfg, plain), attack, images, labels, 0)["warnings"] == []

    def steps(x):                               # a staircase, whose gradient is 0 nearly everywhere
        return plain((8 * x).round() / 8) + 0 * plain(x)

    found = masking.check(model_of(make_cfg, steps), attack, images, labels, 0)
    assert found["without_gradient"] == 1 and any("no gradient" in text for text in found["warnings"])

    def turned(x):                              # the gradient leads away from what the model says
        return plain(x).detach() - (plain(x) - plain(x).detach())

    found = masking.check(model_of(make_cfg, turned), attack, images, labels, 0)
    assert any("Random changes" in text for text in found["warnings"])


def test_shuffled_pieces_are_the_same_pixels_in_another_order():
    images = torch.rand(5, 3, 9, 9)
    for pieces in (1, 4, 16):
        changed = patches.shuffle(images, pieces, seed=2)
        assert torch.equal(changed.flatten(1).sort().values, images.flatten(1).sort().values)
        assert torch.equal(changed, patches.shuffle(images, pieces, seed=2))
        assert torch.equal(changed, images) == (pieces == 1)
    size = 4                                    # of 4 pieces; the last row and column are left over
    parts = {tuple(images[0, :, y:y + size, x:x + size].flatten().tolist()) for y in (0, 4) for x in (0, 4)}
    changed = patches.shuffle(images, 4, seed=2)
    assert {tuple(changed[0, :, y:y + size, x:x + size].flatten().tolist()) for y in (0, 4) for x in (0, 4)} == parts
    assert torch.equal(changed[..., 8, :], images[..., 8, :])


def test_covered_patches_are_black_and_as_many_as_was_asked_for():
    images = torch.rand(4, 3, 8, 8) + 0.1
    order = patches.random_order(images, 4, seed=1)
    for share in (0.0, 0.25, 0.5, 1.0):
        black = (patches.occlude(images, order, share) == 0).all(dim=1).flatten(1).sum(dim=1)
        assert (black == round(share * 16) * 4).all()
    assert torch.equal(patches.occlude(images, order, 0), images)
    assert torch.equal(order.sort().values, torch.arange(16).expand(4, -1))


def test_salient_patches_are_those_that_the_answer_depends_on(make_cfg):
    weights = torch.zeros(3, 8, 8)
    weights[:, 2:4, 4:6] = 5.0
    model = model_of(make_cfg, lambda x: torch.stack([(x * weights).sum((1, 2, 3)), x.sum((1, 2, 3)) * 0.01], dim=1))
    order = patches.salient_order(model, torch.rand(3, 3, 8, 8), 4)
    assert (order[:, 0] == 1 * 4 + 2).all()


def test_a_patch_has_its_share_and_stays_inside():
    where = patches.square(torch.rand(20, 3, 10, 10), 0.09, seed=3)
    assert (where.flatten(1).sum(dim=1) == 9).all() and len({tuple(w.flatten().tolist()) for w in where}) > 3


@pytest.mark.parametrize(("words", "found"), [
    (["--attack", "pgd:4:10"], "4 in"), (["--attack", "pgd:1/255:10:step=0"], "size of 0"),
    (["--attack", "pgdd:1/255"], "pgdd"), (["--corrupt", "fogg"], "fogg"), (["--corrupt", "fog:6"], "fog:6"),
    (["--occlude", "some", "0.5"], "some"), (["--occlude", "random"], "random"), (["--occlude", "random", "x"], "x"),
    ([], "--attack")])
def test_what_cannot_be_asked_is_refused_before_the_run_is_looked_at(words, found, tmp_path):
    with pytest.raises(UserError, match=found):
        measured(tmp_path / "no_run", *words)


@pytest.mark.parametrize(("words", "found"), [
    (["--occlude", "random", "1.5"], "1.5"), (["--shuffle", "5"], "got 5"), (["--shuffle", "4096"], "4096"),
    (["--patches", "0"], "got 0"), (["--patches", "2"], "got 2")])
def test_what_the_images_do_not_allow_leaves_nothing_behind(toy_run, words, found):
    folder = toy_run("ZeroshotCLIP")
    with pytest.raises(UserError, match=found):
        measured(folder, *words)
    assert not (folder / "robustness.json").exists()


def test_a_trainer_that_learns_while_it_is_tested_is_refused(toy_run, make_cfg):
    folder = toy_run("TPT", "TEST.NO_TEST", True)
    with pytest.raises(UserError, match="TPT learns while it is tested"):
        measured(folder, "--attack", "pgd:1/255:2")
    with pytest.raises(UserError, match="TPT learns while it is tested"):
        build_trainer(make_cfg("TPT", "TEST.ATTACK", "pgd:1/255"))


class Passes:
    """Counts passes of the image tower, those that go back to the images, and passes of the text tower."""

    def __init__(self, clip):
        self.forward = self.back = self.texts = 0
        clip.visual.register_forward_pre_hook(self._seen)
        encode = clip.encode_text
        clip.encode_text = lambda *a, **k: (setattr(self, "texts", self.texts + 1), encode(*a, **k))[1]

    def _seen(self, _, inputs):
        self.forward += 1
        if inputs[0].requires_grad:
            inputs[0].register_hook(lambda gradient: setattr(self, "back", self.back + 1))


@pytest.mark.parametrize("name", ["CoOp", "MaPLe", "APT"])
def test_pgd_of_10_steps_takes_11_passes_and_10_back_and_texts_pass_once(make_cfg, name):
    trainer = build_trainer(make_cfg(name))
    trainer.set_model_mode("eval")
    passes, model = Passes(trainer.model.clip), Attackable(trainer)
    images = model.pixels(next(iter(trainer.test_loader))["img"])
    attack = Attack.parse("pgd:1/255:10")
    with model.frozen():
        delta = attack(model, images, torch.zeros(len(images), dtype=torch.long))
        with torch.no_grad():
            model(images + delta)
    assert (passes.forward, passes.back, passes.texts) == (11, 10, 1)
    assert all(p.requires_grad for p in trainer.model.prompt_learner.parameters())


def test_a_test_under_attack_is_recorded_as_one(make_cfg, tmp_path):
    trainer = build_trainer(make_cfg("CoOp", "OPTIM.MAX_EPOCH", 1, "TEST.ATTACK", "pgd:32/255:3", output=tmp_path))
    trainer.train()
    results = json.loads((tmp_path / "results.json").read_text())
    clean = build_trainer(make_cfg("CoOp"))
    clean.load_model(str(tmp_path))
    assert results["attack"] == "pgd:32/255:3" and results["metrics"]["accuracy"] < clean.test()
    batch = next(iter(trainer.train_loader_x))
    assert torch.equal(trainer.parse_batch_train(batch)[0], batch["img"])
    features = build_trainer(make_cfg("TipAdapterF", "TEST.ATTACK", "pgd:32/255:3"))
    assert features.test() < build_trainer(make_cfg("TipAdapterF")).test()


def test_an_attack_that_is_none_is_refused_by_a_run(make_cfg):
    for text, found in (("pgd:4", "got 4"), ("pgdd:1/255", "pgdd"), ("pgd:1/255:0", "0 steps")):
        with pytest.raises(UserError, match=found):
            build_trainer(make_cfg("CoOp", "TEST.ATTACK", text))


def test_images_that_are_normalised_already_are_refused(make_cfg):
    trainer = build_trainer(make_cfg("TeCoA"))
    batch = next(iter(trainer.train_loader_x))
    with pytest.raises(UserError, match="normalised already"):
        trainer.forward_backward({**batch, "img": batch["img"] * 4 - 2})
    with pytest.raises(UserError, match="normalize"):
        build_trainer(make_cfg("TeCoA", "INPUT.TRANSFORMS", ["normalize"]))


def test_alexnets_errors_are_of_the_fifteen_corruptions():
    assert len(ALEXNET) == 15 and corrupting.chosen(["all"]) == [f"{n}:{s}" for n in ALEXNET for s in range(1, 6)]
    assert F.l1_loss(torch.tensor(list(ALEXNET.values())).mean(), torch.tensor(78.80)) < 0.2
