"""tools/train.py: flags, precedence, suggestions, endings. Runs use the toy dataset and a tiny random CLIP."""
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from dassl.engine import build_trainer
from dassl.utils import UserError
from tools import train
from tools.running import endings, run, tested
from tools.runs import inputs

ROOT = Path(__file__).resolve().parents[2]
COOP = ["--config-file", "configs/trainers/CoOp/vit_b16.yaml", "--trainer", "CoOp"]
PETS = ["--dataset-config-file", "configs/datasets/oxford_pets.yaml"]


def cfg_of(*words):
    return train.setup_cfg(train.parser().parse_args([str(word) for word in words]))


@pytest.fixture(autouse=True)
def _no_data_variable(monkeypatch):
    monkeypatch.delenv("DATA", raising=False)


def test_every_flag_of_coops_train_py_is_there():
    flags = {option for action in train.parser()._actions for option in action.option_strings}
    coop = {"--root", "--output-dir", "--resume", "--seed", "--source-domains", "--target-domains", "--transforms",
            "--config-file", "--dataset-config-file", "--trainer", "--backbone", "--head", "--eval-only", "--model-dir",
            "--load-epoch", "--no-train"}                   # KaiyangZhou/CoOp ff61507, train.py
    assert coop | {"--plugin", "--list", "--print-config"} <= flags


def test_flags_reach_the_config():
    cfg = cfg_of(*COOP, "--root", "r", "--output-dir", "o", "--resume", "p", "--seed", 3, "--backbone", "RN50",
                 "--head", "mlp", "--source-domains", "a", "b", "--target-domains", "c",
                 "--transforms", "random_flip", "normalize")
    assert (cfg.DATASET.ROOT, cfg.OUTPUT_DIR, cfg.RESUME, cfg.SEED) == ("r", "o", "p", 3)
    assert (cfg.TRAINER.NAME, cfg.MODEL.BACKBONE.NAME, cfg.MODEL.HEAD.NAME) == ("CoOp", "RN50", "mlp")
    assert cfg.DATASET.SOURCE_DOMAINS == ("a", "b") and cfg.DATASET.TARGET_DOMAINS == ("c",)
    assert cfg.INPUT.TRANSFORMS == ("random_flip", "normalize")
    assert cfg.is_frozen()


@pytest.mark.parametrize(("words", "seed"), [
    ([], -1), (["--seed", "0"], 0), (["--seed", "7"], 7), (["--seed", "-1"], -1)])
def test_zero_is_a_seed_and_no_flag_means_unseeded(words, seed):
    assert cfg_of(*COOP, *words).SEED == seed


def test_later_sources_win_dataset_yaml_trainer_yaml_flags_options(tmp_path):
    dataset, trainer = tmp_path / "d.yaml", tmp_path / "t.yaml"
    dataset.write_text("OPTIM: {LR: 0.1, MAX_EPOCH: 1, GAMMA: 0.5}\nSEED: 1\nTRAINER: {COOP: {N_CTX: 2}}")
    trainer.write_text("OPTIM: {LR: 0.2, MAX_EPOCH: 2}\nSEED: 2\nTRAINER: {COOP: {N_CTX: 3}}")
    both = ["--config-file", trainer, "--dataset-config-file", dataset]
    cfg = cfg_of(*both, "--seed", 3, "OPTIM.LR", "0.3")
    assert (cfg.OPTIM.LR, cfg.OPTIM.MAX_EPOCH, cfg.OPTIM.GAMMA, cfg.SEED, cfg.TRAINER.COOP.N_CTX) == (0.3, 2, 0.5, 3, 3)
    assert cfg_of(*both, "--seed", 3, "SEED", "4").SEED == 4


def test_the_root_is_the_flag_then_data_then_the_checkouts_folder(monkeypatch, tmp_path):
    assert cfg_of(*COOP).DATASET.ROOT in ("data", str(ROOT / "data"))
    monkeypatch.chdir(tmp_path)
    assert cfg_of(*COOP).DATASET.ROOT == str(ROOT / "data")
    monkeypatch.setenv("DATA", "/of/the/environment")
    assert cfg_of(*COOP).DATASET.ROOT == "/of/the/environment"
    assert cfg_of(*COOP, "--root", "flag").DATASET.ROOT == "flag"


@pytest.mark.parametrize(("words", "suggestion"), [
    (["OPTIM.LRR", "1"], "OPTIM.LR"), (["TRAINER.COOP.NCTX", "4"], "TRAINER.COOP.N_CTX"),
    (["optim.lr", "1"], "OPTIM.LR")])
def test_an_unknown_key_suggests_the_nearest(words, suggestion):
    with pytest.raises(UserError, match=f"(?s){words[0]}.*{suggestion}"):
        cfg_of(*COOP, *words)


@pytest.mark.parametrize(("trainer", "dataset", "suggestion"), [
    ("CoOpp", "Digits", "CoOp"), ("CoOp", "OxfordPet", "OxfordPets")])
def test_an_unknown_name_suggests_the_nearest_and_leaves_no_folder(tmp_path, trainer, dataset, suggestion):
    words = ["--trainer", trainer, "--output-dir", str(tmp_path / "run"), "DATASET.NAME", dataset]
    args = train.parser().parse_args(words)
    with pytest.raises(UserError, match=f"Did you mean {suggestion}"):
        train.main(args)
    assert not (tmp_path / "run").exists()


def test_a_flag_behind_the_options_is_told():
    with pytest.raises(UserError, match="move --seed in front of OPTIM.LR"):
        cfg_of(*COOP, "OPTIM.LR", "1", "--seed", "1")


def test_configs_of_the_checkout_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cfg_of(*COOP, *PETS).DATASET.NAME == "OxfordPets"


def test_two_configs_of_one_process_do_not_share_anything():
    first = cfg_of(*COOP, "OPTIM.LR", "0.5", "TRAINER.COOP.N_CTX", "2")
    second = cfg_of(*COOP)
    assert (first.OPTIM.LR, first.TRAINER.COOP.N_CTX) == (0.5, 2) and second.TRAINER.COOP.N_CTX == 16


def test_a_missing_dataset_is_told_with_missing_weights_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    words = [*COOP, *PETS, "--root", str(tmp_path / "nowhere"), "--output-dir", str(tmp_path / "out" / "a" / "b")]
    assert train.cli(words) == 2
    err = capsys.readouterr().err.strip()
    assert "ViT-B-16.pt" in err and str(tmp_path / "nowhere") in err and len(err.splitlines()) <= 7
    assert "bash scripts/dapt.sh digits 16" in err and not (tmp_path / "out").exists()
    assert train.cli([*words, "MODEL.BACKBONE.NAME", "tiny"]) == 2
    assert "ViT-B-16" not in capsys.readouterr().err


def test_a_plugin_file_registers_a_trainer_with_its_own_keys(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from dassl.engine import TRAINER_REGISTRY, TrainerX\n"
        "from dassl.config import CfgNode\n"
        "def extend_cfg(cfg):\n    cfg.TRAINER.MINE = CfgNode({'KNOB': 3})\n"
        "TRAINER_REGISTRY.register(force=True)(type('MineOfThisTest', (TrainerX,), {}))\n")
    cfg = cfg_of("--plugin", plugin, "--trainer", "MineOfThisTest", "TRAINER.MINE.KNOB", "5")
    assert cfg.TRAINER.MINE.KNOB == 5
    from dassl.engine import TRAINER_REGISTRY

    assert "MineOfThisTest" in TRAINER_REGISTRY


OWN_TRAIN = """
from torch import nn
from torch.nn import functional as F
from dassl.engine import TRAINER_REGISTRY, TrainerX


@TRAINER_REGISTRY.register(force=True)
class OwnTrainOfThisTest(TrainerX):
    def build_model(self):
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, self.num_classes))
        self.register_learner("model", self.model)

    def forward_backward(self, batch):
        loss = F.cross_entropy(self.model(batch["img"]), batch["label"])
        self.model_backward_and_update(loss)
        return {"loss": loss.item()}

    def train(self):
        self.before_train()
        for self.epoch in range(self.start_epoch, self.max_epoch):
            self.before_epoch()
            self.run_epoch()
            self.after_epoch()
        self.after_train()

    def after_train(self):
        self.close_writer()
"""


@pytest.mark.parametrize("no_test", [False, True])
def test_a_trainer_whose_own_train_tests_nothing_is_tested_after_it(tmp_path, no_test):
    """BlackVIP leaves the test to its train.py."""
    (tmp_path / "theirs.py").write_text(OWN_TRAIN)
    assert train.cli(["--plugin", str(tmp_path / "theirs.py"), "--trainer", "OwnTrainOfThisTest", "--seed", "1",
                      "--root", str(tmp_path / "data"), "--output-dir", str(tmp_path / "run"), "--config-file",
                      "configs/trainers/CoOp/tiny.yaml", "--dataset-config-file", "configs/datasets/digits.yaml",
                      "DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "1", "TEST.NO_TEST", str(no_test)]) == 0
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (record["mode"], record["epochs"], record.get("num_test", 0) > 0) == ("train", 1, not no_test)


OWN_TEST = OWN_TRAIN.replace("    def after_train(self):\n        self.close_writer()\n", """
    def test(self, split=None):
        self.evaluator.reset()
        for batch in self.test_loader:
            image, label = self.parse_batch_test(batch)
            self.evaluator.process(self.model(image), label)
        return self.evaluator.evaluate()["accuracy"]
""")


def test_a_trainer_with_a_test_of_its_own_has_results(tmp_path):
    """PromptKD, PDA."""
    (tmp_path / "theirs.py").write_text(OWN_TEST)
    words = ["--plugin", str(tmp_path / "theirs.py"), "--trainer", "OwnTrainOfThisTest", "--seed", "1", "--root",
             str(tmp_path / "data"), "--config-file", "configs/trainers/CoOp/tiny.yaml", "--dataset-config-file",
             "configs/datasets/digits.yaml", "--output-dir"]
    options = ["DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "1"]
    assert train.cli([*words, str(tmp_path / "run"), *options]) == 0
    tests = ["--eval-only", "--model-dir", str(tmp_path / "run")]
    assert train.cli([*words, str(tmp_path / "again"), *tests, *options]) == 0
    first, again = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("run", "again"))
    assert (first["mode"], again["mode"]) == ("train", "eval-only") and first["num_test"] > 0
    assert first["metrics"]["accuracy"] == again["metrics"]["accuracy"]


def test_help_teaches_with_examples():
    text = train.parser().format_help()
    assert "configs/trainers/DAPT/tiny.yaml" in text and "0 is a seed" in text
    assert max(map(len, text.splitlines())) <= 120


def test_list_names_trainers_and_datasets_with_module_and_paper(capsys):
    assert train.cli(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    dapt = next(line for line in lines if line.startswith("DAPT "))
    assert "trainers.dapt" in dapt and "Cho et al., ICCV 2023" in dapt
    assert any(line.startswith("Digits ") and "datasets.digits" in line for line in lines)
    later = [line.split(": ")[1].split(", ") for line in lines if line.startswith("Dassl's, loaded when")]
    named = {line.split(" ")[0] for line in lines}.union(*later)        # what a test before this one named is loaded
    assert {"FixMatch", "OfficeHomeDG"} <= named


def test_print_config_is_yaml_that_can_be_given_back(capsys, tmp_path):
    assert train.cli([*COOP, *PETS, "--print-config", "OPTIM.LR", "0.7"]) == 0
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out)
    assert yaml.safe_load(printed.read_text())["OPTIM"]["LR"] == 0.7
    assert cfg_of("--config-file", printed) == cfg_of(*COOP, *PETS, "OPTIM.LR", "0.7")


def test_what_a_user_can_mend_ends_in_one_paragraph_and_code_2(capsys):
    assert train.cli([*COOP, "OPTIM.LRR", "1"]) == 2
    err = capsys.readouterr().err
    assert "Did you mean OPTIM.LR?" in err and "Traceback" not in err and len(err.strip().splitlines()) == 1


def test_a_run_that_is_taken_back_leaves_the_log_of_another_that_began_beside_it(tmp_path):
    own, other = tmp_path / "out" / "a" / "seed1", tmp_path / "out" / "a" / "seed2"
    first = endings.first_new(own)
    for folder in (own, other):
        folder.mkdir(parents=True)
        (folder / "log.txt").write_text("Stopped: Traceback")
    endings.remove_if_nothing_ran(own, first)
    assert not own.exists() and (other / "log.txt").exists()
    endings.remove_if_nothing_ran(other, first)
    assert first == tmp_path / "out" and not first.exists() and tmp_path.exists()


def test_ctrl_c_is_one_line_and_code_130(monkeypatch, capsys, tmp_path):
    def interrupt(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "main", interrupt)
    (tmp_path / "prompt_learner").mkdir()
    (tmp_path / "prompt_learner" / "checkpoint").write_text("model.pth.tar-1")
    assert train.cli([*COOP, "--output-dir", str(tmp_path)]) == 130
    assert capsys.readouterr().err == f"Interrupted. The same command resumes from what {tmp_path} holds.\n"


def test_inputs_tell_runs_apart_by_what_makes_a_result_and_by_nothing_else(tmp_path):
    config = tmp_path / "trainers" / "CoOp" / "mine.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("OPTIM: {LR: 0.1}")

    def described(*words):
        given = ["--config-file", str(config), "--trainer", "CoOp", *words]
        return inputs.describe(train.parser().parse_args(given))

    base = described("--seed", "1", "--root", "a", "--output-dir", "b", "OPTIM.LR", "0.1")
    moved = described("--seed", "1", "--root", "c", "--resume", "d", "OPTIM.LR", "0.1")
    assert inputs.differences(base, moved) == []
    assert inputs.differences(base, described("--seed", "0", "OPTIM.LR", "0.1")) == ["seed 1, now 0"]
    assert inputs.differences(base, described("--seed", "1")) == ["OPTIM.LR 0.1, now not set"]
    config.write_text("OPTIM: {LR: 0.2}")
    edited = described("--seed", "1", "OPTIM.LR", "0.1")
    assert inputs.differences(base, edited) == ["trainers/CoOp/mine.yaml has changed"]


def test_a_foreign_package_under_one_of_our_names_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trainers", SimpleNamespace(__path__=[str(tmp_path)]))
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ImportError, match=f"trainers was imported from {tmp_path} and not from {ROOT}"):
        train.register()


@pytest.mark.parametrize(("load_model", "given"), [
    (lambda directory, epoch=None: None, []),
    (lambda directory, cfg, epoch=None: given_to.append(cfg), ["cfg"])])
def test_a_load_model_of_public_trainers_may_take_the_config(monkeypatch, load_model, given):
    given_to.clear()
    trainer = SimpleNamespace(engine_hooks=[], load_model=load_model, test=lambda: None, recorded={})
    monkeypatch.setattr("dassl.engine.build_trainer", lambda cfg: trainer)
    monkeypatch.setattr("tools.running.tested.refuse_other_classes", lambda trainer, directory: None)
    args = train.parser().parse_args(["--eval-only", "--model-dir", "run"])
    cfg = SimpleNamespace(SEED=1, DATASET=SimpleNamespace(NAME="Toy"))
    run._train_or_test(cfg, args, SimpleNamespace(replace=lambda: None), SimpleNamespace(as_dict=dict))
    assert given_to == [cfg] * len(given)


given_to = []


def test_none_for_a_value_that_is_none_nowhere_is_refused_before_anything_else():
    for key in ("DATASET.NUM_SHOTS", "DATASET.CORRUPTIONS", "TRAIN.TASKS", "TRAIN.CHECKPOINT_SECONDS", "OPTIM.LR"):
        with pytest.raises(UserError, match=f"{key} has no value"):
            cfg_of("--trainer", "CoOp", key, "None")


def test_a_training_resumes_on_its_own_classes_alone(make_cfg, tmp_path):
    """Also where what was learned serves any: its steps and its optimiser belong to the classes it began with."""
    trainer = build_trainer(make_cfg("CoOp"))
    (tmp_path / "classes.json").write_text(json.dumps({"classnames": ["cat", "dog"]}), encoding="utf-8")
    tested.refuse_other_classes(trainer, str(tmp_path))
    with pytest.raises(UserError, match=r"2 classes \(cat, dog\).*resumes on the classes that it began with"):
        tested.refuse_other_classes(trainer, str(tmp_path), resumes=True)
