"""Every row of every recipe expands to a run that the real config accepts."""
import re

import pytest
import yaml

from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from tools import train
from tools.runs.recipe import CONFIGS, RecipeError, load_recipe, zeroshot_cell
from trainers.method import Method

BENCHMARK = {"imagenet", "caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101", "fgvc_aircraft",
             "sun397", "dtd", "eurosat", "ucf101"}
VARIANTS = {"imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"}
EMBEDDED = {"digits", "digits_lowcontrast", "shapes", "shapes_noise", "shapes_clutter", "shapes_sketch",
            "shapes_recoloured", "shapes_lowcontrast"}
OF_SOME = {"shapes_tasks", "shapes_domains", "moving_shapes"}      # embedded, of a few recipes alone
REPROGRAMMING = ("vp", "ar", "attrvr", "dvp_cse", "dvp_cls")
CELLS = {"dapt": (11 + 8) * 5 * 3 + 4 * 3, "coop": (11 + 8) * 5 * 3 + 4 * 3, "vpt": (11 + 8) * 5 * 3 + 4 * 3,
         "cocoop": (11 + 8) * 5 * 3 + 4 * 3, **dict.fromkeys(REPROGRAMMING, (11 + 8) * 3),
         **dict.fromkeys(("coop_rn50", "ivlp_promptsrc"), 11 * 5 * 3),
         **dict.fromkeys(("maple", "plot"), (11 + 8) * 5 * 3), "linear_probe": (11 + 9) * 5 * 3,
         **dict.fromkeys(("ivlp", "promptsrc", "mmrl", "upt", "dpt"), (11 + 8) * 5 * 3),
         **dict.fromkeys(("kgcoop", "prograd", "tcp", "lasp", "coprompt", "atprompt"), (11 + 8) * 5 * 3),
         "atprompt_maple": 11 * 5 * 3, **dict.fromkeys(("dept", "plotpp", "proda", "rpo"), (11 + 8) * 5 * 3),
         **dict.fromkeys(("mma", "bitfit", "two_sfs", "vqt", "vpt_full"), (11 + 8) * 5 * 3),
         **dict.fromkeys(("wise_ft", "car_ft", "flyp", "cyclip"), (11 + 8) * 5 * 3), "evp": (11 + 8) * 3,
         "mvlpt": (11 + 8) * 3 * 3, "task_bias": 3,
         **dict.fromkeys(("l2p", "dualprompt", "coda_prompt"), (3 + 8) * 3),
         **dict.fromkeys(("noah", "subnet", "adapter", "lora", "vpt_blocks"), (5 + 8) * 5 * 3),
         "zeroshot": 11 + 4 + 9, **dict.fromkeys(("tecoa", "fare"), (11 + 8) * 3), "apt": (11 + 8) * 3 * 3,
         **dict.fromkeys(("st_adapter", "temporal_prompt"), (1 + 1 + 5 + 1) * 3),
         **dict.fromkeys(("promptkd", "dpl"), (11 + 8) * 3),
         **dict.fromkeys(("tpt", "ctpt", "zero", "tda", "vdp", "prompt_align"), (11 + 4 + 8) * 3),
         **dict.fromkeys(("lpplusplus", "gda", "ape", "ape_t", "clap", "zslp", "taskres", "cross_modal", "protonet"),
                         (11 + 8) * 5 * 3), **dict.fromkeys(("clip_adapter", "prolip"), (11 + 8) * 5 * 3 + 4 * 3),
         "clip_lora": (11 + 8) * 5 * 3 + 4 * 3, "tip_adapter": (11 + 8) * 5 * 3, "tip_adapter_f": (11 + 8) * 5 * 3}

# DAPT (mlvlab/DAPT cacb311) configs/datasets/*.yaml: lr, beta of the visual term, beta of the text term.
DAPT_SETTINGS = {
    "caltech101": (0.2, 10, 0.01), "dtd": (20, 100, 0.01), "eurosat": (20, 100, 10), "fgvc_aircraft": (2, 100, 0.01),
    "food101": (20, 10, 0.01), "imagenet": (2, 0.01, 0.01), "oxford_flowers": (0.002, 10, 0.01),
    "oxford_pets": (0.02, 10, 0.1), "stanford_cars": (0.002, 100, 0.1), "sun397": (20, 100, 0.01),
    "ucf101": (20, 0.1, 0.1)}


def cells_of(recipe):
    """Every cell of its table: rows x shots x seeds."""
    return [recipe.cell(dataset, shots, seed) for dataset in recipe.datasets
            for shots in (recipe.row(dataset).get("shots", recipe.table["shots"]) or [None])
            for seed in recipe.table["seeds"]]


def test_the_recipes_are_those_that_are_checked_here():
    assert {path.stem for path in (CONFIGS / "recipes").glob("*.yaml")} == set(CELLS)


@pytest.fixture(scope="module")
def names_of_datasets():
    """Each dataset's DATASET.NAME, by its word, once a cell of it was merged."""
    return {}


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_of_a_recipe_merges_into_a_real_config(name, names_of_datasets):
    """One for each setting of the recipe, and one for each dataset of all recipes, which bring the same file."""
    seen, backbones, names = 0, {}, names_of_datasets
    for cell in cells_of(load_recipe(name)):
        seen += 1
        setting = cell.config_file, *((key, str(value)) for key, value in cell.opts.items() if key != "OPTIM.MAX_EPOCH")
        if setting not in backbones or cell.dataset not in names:
            cfg = train.setup_cfg(train.parser().parse_args(cell.arguments("data", "output")))
            assert cfg.TRAINER.NAME == cell.trainer and cfg.SEED == cell.seed
            assert cfg.DATASET.NUM_SHOTS == (-1 if cell.shots is None else cell.shots)
            assert cfg.DATASET.NAME in DATASET_REGISTRY and cfg.TRAINER.NAME in TRAINER_REGISTRY
            backbones[setting], names[cell.dataset] = cfg.MODEL.BACKBONE.NAME, cfg.DATASET.NAME
        assert (backbones[setting] == "tiny") == (cell.dataset in EMBEDDED | OF_SOME)
    assert seen == CELLS[name] and len(set(names.values())) == len(names)


@pytest.mark.parametrize("name", ["dapt", "coop", "cocoop", "vpt", "clip_lora", "zeroshot"])
def test_a_recipe_has_the_eleven_datasets_the_variants_and_the_embedded_ones(name):
    assert set(load_recipe(name).datasets) - OF_SOME == BENCHMARK | VARIANTS | EMBEDDED


@pytest.mark.parametrize("dataset", DAPT_SETTINGS)
def test_dapt_runs_with_the_authors_rate_and_loss_weights(dataset):
    for shots, epochs in {1: 50, 2: 100, 4: 100, 8: 200, 16: 200}.items():
        cell = load_recipe("dapt").cell(dataset, shots, 1)
        cfg = train.setup_cfg(train.parser().parse_args(cell.arguments("data", "output")))
        assert (cfg.OPTIM.LR, cfg.TRAINER.DAPT.VIS_BETA, cfg.TRAINER.DAPT.TXT_BETA) == DAPT_SETTINGS[dataset]
        assert cfg.OPTIM.MAX_EPOCH == (50 if dataset == "imagenet" else epochs)
        assert cfg.OPTIM.NAME == "sgd" and cfg.OPTIM.WEIGHT_DECAY == 5e-4 and cfg.DATALOADER.TRAIN_X.BATCH_SIZE == 32


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_an_imagenet_variant_tests_the_last_prompts_of_the_imagenet_run(variant):
    args = train.parser().parse_args(load_recipe("dapt").cell(variant, 16, 2).arguments("data", "out"))
    assert args.eval_only and args.model_dir == "out/imagenet/DAPT/vit_b16_16shots/seed2" and args.load_epoch == 50


def test_options_of_the_user_win_and_get_a_folder_of_their_own():
    recipe = load_recipe("dapt")
    plain, own = recipe.cell("dtd", 16, 1), recipe.cell("dtd", 16, 1, {"OPTIM.LR": "0.5", "OPTIM.MAX_EPOCH": "3"})
    cfg = train.setup_cfg(train.parser().parse_args(own.arguments("data", "output")))
    assert cfg.OPTIM.LR == 0.5 and cfg.OPTIM.MAX_EPOCH == 3 and cfg.TRAINER.DAPT.VIS_BETA == 100
    assert plain.folder.parts == ("dtd", "DAPT", "vit_b16_16shots", "seed1")
    assert own.folder.parts == ("dtd", "DAPT", "vit_b16_16shots-OPTIM.LR=0.5,OPTIM.MAX_EPOCH=3", "seed1")


def test_folders_differ_for_options_that_look_alike_in_a_file_name():
    recipe = load_recipe("coop")
    options = [{"MODEL.BACKBONE.NAME": name} for name in ("ViT-B/16", "ViT-B_16", "x" * 200, "x" * 201)]
    folders = {recipe.cell("dtd", 16, 1, o).folder for o in options}
    assert len(folders) == 4
    assert all(len(f.parts) == 4 and len(f.parts[2]) < 130 for f in folders)


def test_a_published_value_stands_only_beside_runs_with_the_published_settings():
    recipe = load_recipe("coop_rn50")
    assert recipe.cell("oxford_pets", 16, 1).published == 87.01 and recipe.cell("oxford_pets", 16, 1).published_from
    assert recipe.cell("oxford_pets", 8, 1).published is None
    assert recipe.cell("oxford_pets", 16, 1, {"OPTIM.LR": "0.1"}).published is None
    assert recipe.cell("oxford_pets", 16, 1, config="vit_b16").published is None


# DVP (caichengyi/DecoupledVP 4976ad4) cfg.py: clusters, where they are not 3.
CLUSTERS = {"eurosat": 1, "food101": 2, "ucf101": 2}
BACKBONES = {"vit_b16": "ViT-B/16", "vit_b32": "ViT-B/32", "rn50": "RN50", "rn101": "RN101"}


@pytest.mark.parametrize("name", REPROGRAMMING)
def test_visual_reprogramming_runs_with_the_authors_settings(name):
    recipe, seen = load_recipe(name), 0
    for dataset in recipe.main_datasets(16):
        for config, backbone in BACKBONES.items():
            seen += 1
            cell = recipe.cell(dataset, 16, 1, config=config)
            cfg = train.setup_cfg(train.parser().parse_args(cell.arguments("data", "output")))
            o, i = cfg.OPTIM, cfg.INPUT
            assert (o.NAME, o.LR, o.MOMENTUM, o.WEIGHT_DECAY, o.MAX_EPOCH, o.LR_SCHEDULER, o.WARMUP_EPOCH) == \
                ("sgd", 40, 0.9, 0, 200, "cosine", -1)
            assert cfg.MODEL.BACKBONE.NAME == backbone and cfg.DATALOADER.TRAIN_X.BATCH_SIZE == 64
            assert i.SIZE == ((224, 224) if name == "vp" else (192, 192)) and i.RRCROP_SCALE == (0.08, 1.0)
            assert set(i.TRANSFORMS) - {"normalize"} == {"resize_short_side", "random_resized_crop", "random_flip"}
            if name == "dvp_cls":
                assert cfg.TRAINER.DVPCLS.NUM_CLUSTERS == CLUSTERS.get(dataset, 3)
    assert seen == 4 * 11


def test_published_values_belong_to_their_backbone():
    recipe = load_recipe("dvp_cls")
    assert [recipe.cell("dtd", 16, 1, config=c).published for c in (None, "rn50", "rn101", "vit_b32")] == \
        [65.5, 55.9, 58.0, 57.2]
    assert recipe.cell("dtd", 16, 1, config="rn50").published_from.startswith("RVP, Table 2")
    assert recipe.cell("dtd", 8, 1).published is None and recipe.cell("dtd", 16, 1, {"OPTIM.LR": "1"}).published is None
    assert load_recipe("dvp_cse").cell("dtd", 16, 1, config="rn50").published is None
    zero = zeroshot_cell(recipe.cell("dtd", 16, 1, config="rn101"))
    assert zero.config_file.parts[-2:] == ("ZeroshotCLIP", "rn101.yaml") and zero.published is None


def test_every_published_value_names_its_source():
    seen = 0
    for name in CELLS:
        for cell in cells_of(load_recipe(name)):
            assert cell.published is None or cell.published_from, cell
            seen += cell.published is not None
    assert seen >= 15 + 11 * 3


def test_the_zeroshot_row_uses_the_same_backbone_and_images_and_ignores_what_only_training_knows():
    cell = load_recipe("dapt").cell("oxford_pets", 16, 1, {"OPTIM.LR": "1.0", "DATASET.SUBSAMPLE_CLASSES": "new"})
    zero = zeroshot_cell(cell)
    assert zero.opts == {"DATASET.SUBSAMPLE_CLASSES": "new"} and zero.shots is None and zero.published is None
    assert zeroshot_cell(load_recipe("dapt").cell("oxford_pets", 4, 3)).published == 89.13
    assert zeroshot_cell(load_recipe("coop_rn50").cell("oxford_pets", 4, 3)).published is None
    deep = zeroshot_cell(load_recipe("vpt").cell("oxford_pets", 16, 1, config="vit_b16_deep"))
    assert deep.config_file.parts[-2:] == ("VPT", "vit_b16_deep.yaml") and deep.config == "VPT-vit_b16_deep"


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(RecipeError, match="Did you mean dapt"):
        load_recipe("dappt")
    with pytest.raises(RecipeError, match="Did you mean oxford_pets"):
        load_recipe("dapt").cell("OxfordPet", 16, 1)
    with pytest.raises(RecipeError, match="Did you mean vit_b16"):
        load_recipe("dapt").cell("dtd", 16, 1, config="vitb16")


@pytest.mark.parametrize(("change", "message"), [
    ({"shot": [1]}, "unknown key 'shot'. Did you mean shots"),
    ({"datasets": {"dtd": {"opt": {}}}}, "unknown key 'opt' in the row dtd. Did you mean opts"),
    ({"trainer": None}, "lacks trainer")])
def test_a_malformed_recipe_is_named_with_the_way_out(tmp_path, change, message):
    table = {"trainer": "CoOp", "paper": "p", "source": "s", "config": "vit_b16", "seeds": [1], "shots": [1],
             "datasets": {"dtd": {}}, **change}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in table.items() if v is not None}))
    with pytest.raises(RecipeError, match=message.replace(".", r"\.")):
        load_recipe(str(path))


@pytest.mark.parametrize(("text", "message"), [
    ("", "takes KEY: VALUE lines and has nothing"), ("- 1", "KEY: VALUE lines and has [1]"),
    ("trainer: CoOp\nseeds: [1, 2\nshots: x", "line 3, is not yaml"), ("\xff", "is not yaml"),
    ("{trainer: CoOp, config: tiny, seeds: [1], shots: [1], datasets: }", "lines in datasets and has nothing"),
    ("{trainer: CoOp, config: tiny, seeds: [1], shots: [1], datasets: {dtd: 5}}", "in the row dtd and has 5"),
    ("{trainer: CoOp, config: tiny, seeds: [1], shots: [0], datasets: {}}", "has shots: [0]"),
    ("{trainer: CoOp, config: tiny, seeds: [1, -1], shots: [1], datasets: {}}", "has seeds: [1, -1]"),
    ("{trainer: CoOp, config: tiny, seeds: 3, shots: [1], datasets: {}}", "has seeds: 3")])
def test_a_recipe_that_is_no_recipe_is_told_with_its_file_and_place(text, message, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(RecipeError) as told:
        load_recipe(str(path))
    assert str(path) in str(told.value) and message in str(told.value)


def test_every_recipe_of_the_checkout_names_its_paper_and_its_source():
    for name in CELLS:
        assert load_recipe(name).table["paper"] and load_recipe(name).table["source"]


def test_an_option_may_depend_on_the_number_of_shots():
    cells = [load_recipe("prograd").cell("dtd", shots, 1).opts["TRAINER.PROGRAD.LAMBDA"] for shots in (1, 4, 8, 16)]
    assert cells == [1.0, 1.0, 0.8, 0.8]


def test_epochs_between_the_listed_shots_are_those_of_the_next_smaller():
    recipe = load_recipe("coop")
    assert [recipe.epochs({}, shots) for shots in (1, 2, 3, 7, 8, 16, 32)] == [50, 100, 100, 100, 200, 200, 200]


# Whose files have the layout of another method, which is the one that a bare file is taken for.
OF_ANOTHER = {"APT": "CoOp", "FARE": "WiSEFT", "MVLPT": "UPT", "NOAH": "SubNet", "TaskBias": "VPT"}


def test_every_method_has_a_recipe_a_row_in_the_zoo_and_knows_its_checkpoints():
    train.register()
    trainers = [load_recipe(name).trainer for name in CELLS]
    rows = [line for line in (CONFIGS.parent / "docs" / "methods.md").read_text().splitlines() if line.startswith("|")]
    methods = [method for name in TRAINER_REGISTRY.registered_names()
               if (method := TRAINER_REGISTRY.get(name)).__module__.startswith("trainers.") and method.__name__ == name]
    assert len(methods) >= 16
    for method in methods:
        name = method.__name__
        assert name in trainers and any(re.search(rf"\b{name}\b", row) for row in rows), name
        assert method.learns == "nothing" or name in OF_ANOTHER or \
            method.options_of.__func__ is not Method.options_of.__func__, name
