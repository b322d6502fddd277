"""What a paper's table costs: the benchmark's operations, measured times, and a document that is up to date."""
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools import costs, scaling
from tools.benchmark import floor, workload
from tools.benchmark.rows import Row, Settings
from tools.recipes import load_recipe


@pytest.mark.parametrize("name", ["CoOp", "CoCoOp", "DAPT", "VPT", "VP", "AR", "AttrVR", "DVPcse"])
def test_the_operations_of_a_step_are_those_of_the_benchmark(name, tmp_path):
    row = Row(name, "tiny", 8, 3)
    trainer = workload.build_trainer(row, Settings(), tmp_path)
    clip = trainer.model.clip
    towers = costs.Towers(clip.image_size, clip.patch_size, clip.vision_width, clip.depth, clip.embed_dim,
                          clip.text_width, clip.text_depth)
    needed = sum(ops.total for ops in floor.operations(row, trainer).values())
    assert costs.step_operations(name, towers, trainer.options, 8, 3) == needed


@pytest.mark.slow
def test_the_operations_of_the_residual_tower_are_as_counted_on_it():
    import torch

    from clip import load_clip

    for name, towers in (("RN50-quickgelu:random", "RN50"), ("ViT-B-32-quickgelu:random", "ViT-B/32")):
        clip = load_clip(name, torch.device("cpu"))
        assert costs.image_operations("CoOp", costs.TOWERS[towers], {}).forward == floor.image_operations(clip).forward
        assert costs.TOWERS[towers].joint == clip.embed_dim


def test_steps_and_tests_of_a_run_are_those_of_its_settings():
    recipe = load_recipe("dvp_cse")                                 # batch 64, short batches kept, 200 epochs
    cost = costs.cost(recipe, recipe.cell("eurosat", 16, 1))        # 10 classes, 8,100 test images
    assert cost.steps == 199 * 3 and cost.passes == 200 * 8100 + 160    # one epoch counts only and is not tested
    recipe = load_recipe("coop")                                    # batch 32, no short batches, 50 epochs
    cost = costs.cost(recipe, recipe.cell("oxford_pets", 1, 1))     # 37 images
    assert cost.steps == 50 * 1 and cost.passes == 3669
    alone = costs.cost(recipe, recipe.cell("imagenet_a", 16, 1))    # prompts of ImageNet, tested only
    assert alone.steps == 0 and alone.passes == 7500


@given(seconds=st.lists(st.floats(0.1, 100), min_size=1, max_size=30), places=st.integers(1, 40))
def test_runs_side_by_side_end_between_the_bounds(seconds, places):
    least = max(max(seconds), sum(seconds) / places)
    assert least <= scaling.together(seconds, places) * (1 + 1e-9)
    assert scaling.together(seconds, places) <= sum(seconds) / places + max(seconds)
    assert scaling.together(seconds, 1) == pytest.approx(sum(seconds))


def test_a_step_that_was_measured_costs_what_was_measured():
    speed, rows = scaling.measured(scaling.STEP_TIMES), json.loads(scaling.STEP_TIMES.read_text())["rows"]
    row, = (row for row in rows if row["trainer"] == "VPT")
    options = costs.settings("VPT", "vit_b16").TRAINER.VPT
    step = costs.step_operations("VPT", costs.TOWERS["ViT-B/16"], options, row["classes"], row["batch"])
    assert speed.seconds(costs.Cost("VPT", 1, step, 0, 0)) == pytest.approx(row["ours"]["ms"]["step"] / 1e3, rel=0.01)
    assert scaling.assumed(2.0).seconds(costs.Cost("VPT", 3, 10 ** 12, 0, 0)) == pytest.approx(1.5)


@pytest.mark.parametrize("trainer, measured", [("AR", "AR"), ("VP", "VP"), ("DVPcls", "DVPcse")])
def test_steps_of_pixel_prompts_cost_what_was_measured_of_pixel_prompts(trainer, measured):
    rows = json.loads(scaling.STEP_TIMES.read_text())["rows"]
    row, = (row for row in rows if row["trainer"] == measured)
    ratio = (row["ours"]["ms"]["step"] - row["ours"]["ms"]["data"]) / row["floor"]["ms"]
    found = scaling.measured(scaling.STEP_TIMES).seconds(costs.Cost(trainer, 1, 10 ** 12, 0, 0))
    assert found == pytest.approx(ratio * 10 ** 3 / row["matrix_rate"]["gflops"])


def test_the_document_has_the_tables_that_the_tool_prints(capsys):
    text = scaling.DOCUMENT.read_text(encoding="utf-8")
    tables = scaling.sections(scaling.measured(scaling.STEP_TIMES), scaling.assumed(scaling.TFLOPS), [1, 8, 64])
    assert scaling.inserted(text, tables) == text, "run `python tools/scaling.py --write`"
    assert scaling.main([]) == 0 and capsys.readouterr().out.strip() in text
    assert scaling.main(["--tflops", "40"]) == 0 and capsys.readouterr().out.strip() in text


def test_what_cannot_be_computed_is_told(tmp_path, capsys):
    (tmp_path / "mine.json").write_text("{}")
    for words, said in ((["--step-times", str(tmp_path / "mine.json")], "is no result of `python tools/bench.py"),
                        (["--recipes", "maple"], "'maple' are not counted"), (["--gpus", "0"], "1 or more")):
        assert scaling.main(words) == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize("seconds, words", [(45, "45 s"), (0.5, "0.5 s"), (3600, "60 min"), (27_000, "7.5 h"),
                                            (86_400 * 12.3, "12 d"), (86_400 * 1817, "1,817 d")])
def test_spans_have_two_or_more_digits_and_a_unit(seconds, words):
    assert scaling.span(seconds) == words
