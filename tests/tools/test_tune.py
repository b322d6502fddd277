"""A search of settings: its space, its study, its trials, and what it leaves."""
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dassl.data.transforms import build_transform
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import UserError
from tools import train, tune
from tools.runs.cell import RecipeError
from tools.runs.recipe import load_recipe
from tools.sweeping.cells import Planned
from tools.tuning import elevater, found, space, study
from tools.tuning.trials import Search, Trials, base_cell, read_validation, value_of

pytest.importorskip("optuna")
OF = {"recipe": "coop", "dataset": "digits"}


@pytest.mark.parametrize("words, got", [
    (["OPTIM.LR=log:1:0.1"], "empty.*1.0 and 0.1"), (["OPTIM.LR=log:0:1"], "above 0, got 0.0"),
    ([], "--space is empty"),
    (["OPTIM.LR=log:a:b"], "'a:b'"), (["OPTIM.LR=lg:1:2"], "'lg'.*log"), (["OPTIM.LR"], "'OPTIM.LR'"),
    (["TEST.SPLIT=choice:val,test"], "TEST.SPLIT"), (["OPTIM.LR=log:1:2", "OPTIM.LR=log:1:2"], "twice"),
    (["OPTIM.NAME=choice:sgd"], "at least two"), (["A.B=int:1:1"], "empty"), (["A.B=uniform:nan:1"], "empty")])
def test_a_space_that_cannot_be_searched_is_refused(words, got):
    with pytest.raises(RecipeError, match=got):
        space.parse(words)


@pytest.mark.parametrize("word, got", [("OPTIM.LRR=log:0.1:1", "OPTIM.LRR.*OPTIM.LR"),
                                       ("TRAINER.COOP.N_CTX=uniform:1:4", "whole numbers.*uniform:1:4")])
def test_unknown_keys_and_wrong_types_are_refused_before_the_first_trial(word, got):
    arguments = load_recipe("coop").cell("digits", 1, 1).arguments("data", "out")
    with pytest.raises(UserError, match=got):
        space.check(space.parse([word]), arguments)
    space.check(space.parse(["OPTIM.LR=log:0.0001:1", "TRAINER.COOP.N_CTX=int:1:4"]), arguments)


@pytest.fixture
def trials(tmp_path):
    ranges = space.parse(["OPTIM.LR=log:0.0001:1"])
    base = Planned(base_cell(load_recipe("coop").cell("digits", 1, 1), True), "data", str(tmp_path / "runs"))
    return Trials(study.open_study("s", tmp_path, None, OF, 1), ranges, base, 4)


def finish(monkeypatch, trials, planned, accuracy):
    monkeypatch.setattr(Planned, "record", property(lambda self: SimpleNamespace(
        accuracy=accuracy, __contains__=lambda key: False)))
    monkeypatch.setattr("tools.tuning.trials.value_of", lambda record: record.accuracy)
    trials.succeeded(planned)


def test_a_trial_is_a_run_on_validation_images_with_a_folder_of_its_own(trials):
    first, second = trials.next(), trials.next()
    assert first.folder != second.folder and "OPTIM.LR=" in str(first.folder)
    for planned in (first, second):
        words = planned.arguments
        assert words[words.index("TEST.SPLIT") + 1] == "val"
        assert 0.0001 <= float(words[words.index("OPTIM.LR") + 1]) <= 1


def test_a_study_goes_on_with_what_it_has_and_tries_again_what_was_interrupted(trials, monkeypatch, tmp_path):
    first, second = trials.next(), trials.next()
    finish(monkeypatch, trials, first, 50.0)
    trials.interrupted()
    again = Trials(study.open_study("s", tmp_path, None, OF, 1), trials.ranges, trials.base, 4)
    assert len(study.counted(again.study)) == 1
    assert again.next().folder == second.folder             # its settings first, and so its checkpoint
    while (planned := again.next()) is not None:
        finish(monkeypatch, again, planned, 60.0)
    assert len(study.counted(again.study)) == 4 and again.study.best_value == 60.0


def test_a_study_of_another_recipe_is_refused_and_left_as_it_is(trials, tmp_path):
    before = (tmp_path / study.FILE).read_bytes()
    with pytest.raises(RecipeError, match="recipe is coop, not vpt"):
        study.open_study("s", tmp_path, None, {**OF, "recipe": "vpt"}, 1)
    assert (tmp_path / study.FILE).read_bytes() == before


def test_a_run_that_is_the_users_to_mend_ends_the_search_and_is_not_lost(trials):
    planned = trials.next()
    trials.failed(planned, by_user=True)
    assert trials.refused and trials.next() is None and study.counted(trials.study) == []


def test_the_best_settings_become_a_recipe_and_a_config(trials, monkeypatch, tmp_path):
    rates = {}
    for accuracy in (40.0, 70.0):
        planned = trials.next()
        rates[accuracy] = float(planned.cell.opts["OPTIM.LR"])
        finish(monkeypatch, trials, planned, accuracy)
    trials.ended_early(trials.next())
    text = found.write(tmp_path, trials.study, trials.ranges, trials.base.cell, [1, 2], elevater.final(5))
    assert "70.0" in text and "ended early" in text and (tmp_path / found.FIGURE).stat().st_size > 1000
    recipe = load_recipe(str(tmp_path / found.RECIPE))
    cell = recipe.cell("digits", 1, 1)
    assert float(cell.opts["OPTIM.LR"]) == rates[70.0] and "TEST.SPLIT" not in cell.opts and cell.max_epoch == 50
    content = yaml.safe_load((tmp_path / found.CONFIG).read_text())
    assert content["OPTIM"]["LR"] == rates[70.0]
    assert cell.opts["DATASET.TRAIN_ON_VAL"] is content["DATASET"]["TRAIN_ON_VAL"] is True
    assert len((tmp_path / found.TABLE).read_text().splitlines()) == 4


def test_no_best_settings_without_a_finished_trial(trials, tmp_path):
    with pytest.raises(RecipeError, match="None of the 0"):
        found.write(tmp_path, trials.study, trials.ranges, trials.base.cell, [1])


def test_a_run_below_the_median_is_asked_to_end_and_counts_as_ended_early(trials, monkeypatch):
    sent, search = [], Search.__new__(Search)
    search.schedule, search._read, search.free, search.overview = trials, {}, [], SimpleNamespace(say=sent.append)
    search.outcome = SimpleNamespace(stopped_by=0)
    planned = trials.next()
    active = SimpleNamespace(planned=planned, run=SimpleNamespace(send=sent.append), place=3,
                             status=SimpleNamespace(label="trial"))
    search.active = [active]
    planned.folder.mkdir(parents=True)
    (planned.folder / space.FILE).write_text("1,10.0\n")
    trial = trials.trials[planned.folder]
    monkeypatch.setattr(trial, "should_prune", lambda: False)
    search._prune(active)
    assert sent == [] and trial.study.trials[trial.number].intermediate_values == {1: 10.0}
    (planned.folder / space.FILE).write_text("1,10.0\n2,9.0\n")
    monkeypatch.setattr(trial, "should_prune", lambda: True)
    search._prune(active)
    search._prune(active)
    assert sent == [signal.SIGTERM]
    search._ended(active, 143)
    assert trials.study.trials[trial.number].state.name == "PRUNED" and search.free == [3] and search.active == []


def test_test_images_and_methods_that_learn_nothing_are_refused():
    cell = load_recipe("coop").cell("digits", 1, 1, {"TEST.SPLIT": "test"})
    with pytest.raises(RecipeError, match="TEST.SPLIT"):
        base_cell(cell, True)
    with pytest.raises(RecipeError, match="ZeroshotCLIP"):
        base_cell(load_recipe("zeroshot").cell("digits", None, 1), False)


def test_half_written_validations_are_not_read(tmp_path):
    (tmp_path / space.FILE).write_text("1,50.0\n2,60.0\n1,51.0\n3,7")
    assert read_validation(tmp_path) == [(1, 51.0), (2, 60.0)] and read_validation(tmp_path / "none") == []


def test_validations_of_several_domains_count_by_their_mean():
    assert value_of({"mean_error": 40.0}) == 60.0


def test_elevaters_search_goes_from_coarse_to_fine_and_ends_at_the_best_decay():
    scores, rounds = {}, 0
    while points := elevater.wanted(scores):
        rounds += 1
        for rate, step in points:
            scores[rate, step] = -abs(step - 37)
    assert rounds == 5 and {point for point in scores if point[0] == 3 and scores[point] == 0} == {(3, 37)}
    assert len(scores) <= elevater.RATES * 15 and elevater.decay(48) == 1.0 and elevater.rate(5) == 0.1


@pytest.mark.parametrize("name, views, crops", [("zslp", ["TRAINER.CLAP.VIEWS"], "normalize"), ("vp", [], "normalize"),
                                                ("attrvr", [], "")])
def test_elevaters_schedule_is_its_toolkits(name, views, crops):
    arguments = load_recipe(name).cell("digits", 1, 1).arguments("data", "out")
    cfg = space.check([], arguments)
    found = elevater.schedule(cfg)
    assert [key for key in found if key.endswith("VIEWS")] == views
    assert ("normalize" in found["INPUT.TRANSFORMS"]) == bool(crops) == ("normalize" in cfg.INPUT.TRANSFORMS)
    cfg = train.setup_cfg(train.parser().parse_args([*arguments, *(word for pair in found.items() for word in pair)]))
    weight = torch.nn.Parameter(torch.ones(1))
    optimiser = build_optimizer([weight], cfg.OPTIM)
    schedule, rates = build_lr_scheduler(optimiser, cfg.OPTIM), []
    for _ in range(cfg.OPTIM.MAX_EPOCH):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert type(optimiser) is torch.optim.SGD and rates == [cfg.OPTIM.LR] * 10
    image = Image.fromarray(np.arange(2 * 6 * 3, dtype=np.uint8).reshape(2, 6, 3))
    cfg.defrost()
    cfg.INPUT.SIZE = (2, 2)
    assert torch.equal(build_transform(cfg, is_train=True)(image), build_transform(cfg, is_train=False)(image))


def test_an_elevater_trial_counts_by_its_best_epoch(trials, monkeypatch):
    trials.count, trials.ranges = None, tune.ranges_of(SimpleNamespace(protocol="elevater", space=None))
    planned = trials.next()
    planned.folder.mkdir(parents=True)
    (planned.folder / space.FILE).write_text("1,40.0\n2,80.0\n")
    finish(monkeypatch, trials, planned, 60.0)
    assert trials.study.best_value == 80.0


def test_a_rate_of_a_method_without_steps_is_refused():
    arguments = load_recipe("linear_probe").cell("digits", 1, 1).arguments("data", "out")
    with pytest.raises(UserError, match="closed form.*OPTIM.LR"):
        space.check(space.parse(["OPTIM.LR=log:0.1:1"]), arguments)


def test_the_command_refuses_what_cannot_be(capsys):
    for words, got in ((["--space", "OPTIM.LR=log:1:2"], "--dataset"), (
            ["--dataset", "digits", "--space", "OPTIM.LR=log:1:2", "OPTIM.LR", "3"], "OPTIM.LR is in --space"), (
            ["--dataset", "digits", "--protocol", "elevater", "--space", "OPTIM.LR=log:1:2"], "space of its own")):
        assert tune.main(["--recipe", "coop", *words]) == 2
        assert got in capsys.readouterr().err


def test_a_folder_of_images_can_be_searched_on_and_its_settings_are_the_recipes_default(tmp_path):
    args = tune.parser().parse_args(["--recipe", "coop", "--dataset", str(tmp_path), "--config", "tiny"])
    cell = tune.cell_of(args, load_recipe("coop"), {})
    assert cell.own[:2] == ("--dataset-dir", str(tmp_path)) and cell.shots == 16
    made = found.recipe(cell, {"OPTIM.LR": 0.1}, [1])
    assert made["datasets"] == {} and made["default"]["opts"]["OPTIM.LR"] == 0.1
