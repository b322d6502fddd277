"""The protocol ablation: every variant that a recipe names, each in a folder of its own."""
import pytest
import yaml

from tools import train
from tools.runs import protocols
from tools.runs.recipe import CONFIGS, RecipeError, load_recipe

NAMES = ["CE", "CE + inter", "CE + intra", "CE + inter + intra"]


def variants(recipe="dapt", dataset="digits", shots=16, options=None, **kwargs):
    recipe = load_recipe(recipe)
    return protocols.expand(recipe, recipe.cell(dataset, shots, 1, options, **kwargs), "ablation", None)


def weights(cell):
    """What the two losses of a variant weigh in the merged config: text (inter), image (intra)."""
    c = train.setup_cfg(train.parser().parse_args(cell.arguments("data", "out"))).TRAINER.DAPT
    return c.TXT_BETA, c.VIS_BETA


@pytest.mark.parametrize("dataset, full", [("digits", (0.1, 10.0)), ("eurosat", (10.0, 100.0))])
def test_dapt_is_run_with_none_one_and_both_of_its_losses_at_their_published_weight(dataset, full):
    """The lines of the ablation of DAPT (Cho et al., ICCV 2023)."""
    cells = variants(dataset=dataset)
    assert [cell.variant for cell in cells] == NAMES
    assert [weights(cell) for cell in cells] == [(0, 0), (full[0], 0), (0, full[1]), full]


def test_a_variant_lies_where_the_same_options_by_hand_put_it_and_the_full_method_where_fewshot_has_it():
    recipe, cells = load_recipe("dapt"), variants()
    by_hand = recipe.cell("digits", 16, 1, {"TRAINER.DAPT.TXT_BETA": "0.0"})
    assert [cell.folder for cell in cells][2:] == [by_hand.folder, recipe.cell("digits", 16, 1).folder]
    assert len({cell.folder for cell in cells}) == 4
    tested = variants(dataset="imagenetv2")                         # whose prompts are those of imagenet
    assert [cell.dataset for cell in tested] == ["imagenet", "imagenetv2"] * 4
    assert all(tested[i + 1].train_on is tested[i] for i in range(0, 8, 2))


def test_options_of_the_user_go_to_every_variant_but_not_those_that_it_changes():
    assert all(cell.opts["OPTIM.MAX_EPOCH"] == "2" for cell in variants(options={"OPTIM.MAX_EPOCH": "2"}))
    with pytest.raises(RecipeError, match="TXT_BETA is what the ablation of dapt changes"):
        variants(options={"TRAINER.DAPT.TXT_BETA": "1"})
    with pytest.raises(RecipeError, match="coop names no variants"):
        variants("coop")


def test_published_values_stand_in_the_order_of_the_variants_and_beside_nothing_else(tmp_path):
    table = yaml.safe_load((CONFIGS / "recipes" / "dapt.yaml").read_text())
    ablation = table["protocols"]["ablation"]
    ablation |= {"published": {"dtd": [60.0, 61.5, None, 63.0]}, "published_from": "Table 0"}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(table, sort_keys=False))
    cells = variants(str(path), "dtd")
    assert [cell.published for cell in cells] == [60.0, 61.5, None, 63.0] and cells[0].published_from == "Table 0"
    assert {cell.published for cell in variants(str(path), "dtd", 8)} == {None}
    assert {cell.published for cell in variants(str(path), "dtd", options={"OPTIM.LR": "1"})} == {None}
    ablation["published"]["dtd"].pop()
    path.write_text(yaml.safe_dump(table, sort_keys=False))
    with pytest.raises(RecipeError, match="publishes 3 values for dtd .* takes 4"):
        load_recipe(str(path))
