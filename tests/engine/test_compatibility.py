"""dassl/COMPATIBILITY.md: every row has a test here or elsewhere; the rows that no other file pins are pinned here."""
import ast
import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.transforms import InterpolationMode

from dassl.config import get_cfg_default
from dassl.data.transforms import INTERPOLATION_MODES, build_transform
from dassl.data.transforms import transforms as module
from dassl.engine import build_trainer
from dassl.modeling import BACKBONE_REGISTRY
from dassl.utils import UserError, setup_logger

ROOT = Path(__file__).resolve().parents[2]
ENGINE = "tests/engine/"

PINS = {
    "Random streams of images": ENGINE + "test_resume.py::test_the_number_of_workers_changes_nothing",
    "Global random stream": ENGINE + "test_loaders.py::test_with_streams_dassl_every_pass_draws_what_dassls_draw",
    "`NUM_WORKERS`": ENGINE + "test_data.py::test_more_workers_than_cores_are_not_started",
    "`DATALOADER.CACHE_MB`": ENGINE + "test_image_cache.py::"
                             "test_cached_batches_are_those_without_a_cache_bit_for_bit",
    "`random_crop`": ENGINE + "test_transforms.py::test_an_image_smaller_than_the_crop_gets_a_frame",
    "`INTERPOLATION_MODES`": ENGINE + "test_compatibility.py::test_interpolation_modes_are_torchvisions",
    "`randaugment*`, `cutout`, `gaussian_noise`, `random_translation`":
        ENGINE + "test_transforms.py::test_equal_streams_give_dassls_augmentation",
    "`imagenet_policy`, `cifar10_policy`, `svhn_policy`": ENGINE + "test_compatibility.py::"
                                                          "test_policies_are_torchvisions",
    "Images before training": ENGINE + "test_check.py::test_a_missing_or_corrupt_image_is_named_before_training",
    "Reading images": ENGINE + "test_read_image.py::test_a_photo_stands_as_the_camera_noted_it",
    "Labels and names": ENGINE + "test_check.py::test_labels_and_class_names_that_disagree_are_named",
    "`get_num_classes`, `get_lab2cname`": ENGINE + "test_datasets.py::"
                                          "test_a_label_with_two_names_is_told_with_the_image",
    "Scheduler in checkpoints": ENGINE + "test_checkpoints.py::"
                                "test_an_old_dassl_checkpoint_with_a_scheduler_object_loads",
    "Resuming": ENGINE + "test_resume.py::test_resumed_equals_uninterrupted",
    "The same command again": ENGINE + "test_compatibility.py::"
                              "test_checkpoints_in_the_output_folder_are_not_taken_unasked",
    "Stopped between two models' checkpoints":
        ENGINE + "test_resume.py::test_models_whose_checkpoints_are_of_different_epochs_resume_at_the_earlier",
    "Loading checkpoints": ENGINE + "test_checkpoints_are_safe.py::test_code_in_a_checkpoint_is_refused_and_not_run",
    "`load_model` without an epoch": ENGINE + "test_compatibility.py::"
                                     "test_without_an_epoch_the_best_or_else_the_latest_checkpoint_is_loaded",
    "Model selection": ENGINE + "test_loop.py::test_best_val_without_a_validation_split_is_refused",
    "RAdam": ENGINE + "test_optimizer.py::test_radam_follows_the_paper_with_decay_of_the_weights",
    "Macro-F1, confusion matrix": ENGINE + "test_evaluation.py::test_the_confusion_matrix_is_scikit_learns",
    "Metrics as text": ENGINE + "test_run_log.py::"
                       "test_results_are_printed_where_no_log_is_open_and_no_logging_configured",
    "Console": ENGINE + "test_compatibility.py::test_the_console_gets_results_and_the_log_everything",
    "log.txt of an earlier run": ENGINE + "test_run_log.py::test_an_earlier_log_is_kept_beside_the_new_one",
    "Results": ENGINE + "test_results.py::test_results_json_says_what_was_run_and_found",
    "Wrong key, type or name": ENGINE + "test_config.py::test_wrong_options_are_named_with_the_way_out",
    "NaN loss": ENGINE + "test_loop.py::test_a_broken_loss_names_its_term_epoch_batch_and_images",
    "`extend_cfg` that makes a section again":
        "tests/tools/test_foreign_config.py::"
        "test_a_section_that_is_made_anew_keeps_what_it_leaves_out_and_takes_the_new_defaults",
    "Where checkpoints lie": "tests/test_others_checkpoints.py::"
                             "test_a_run_its_folder_a_renamed_one_and_a_file_are_all_found",
    "Config files": ENGINE + "test_compatibility.py::test_a_python_file_is_no_config",
    "Backbones, networks": ENGINE + "test_compatibility.py::test_the_backbones_are_residual_networks",
    "Trainers of adaptation, generalisation, semi-supervision":
        ENGINE + "test_domains.py::test_baseline_trainers_are_found_by_name_and_learn",
    "Datasets of several domains": ENGINE + "test_domains.py::"
                                   "test_vlcs_reads_upper_case_domains_and_knows_its_classes",
    "Names that are left out": ENGINE + "test_domains.py::"
                               "test_names_that_are_left_out_point_to_the_table_of_differences",
    "wilds, gdown, TensorBoard, scikit-learn":
        ENGINE + "test_startup.py::"
                 "test_importing_clip_and_the_engine_warns_of_nothing_and_spares_slow_packages",
    "Several GPUs": ENGINE + "test_compatibility.py::test_the_default_model_is_not_wrapped_for_several_gpus",
    "CTX_INIT with the class name in front or inside": "tests/parts/test_text_prompt.py::"
        "test_of_words_with_several_tokens_the_last_ones_stay_fixed",
    "CSC True with CTX_INIT": "tests/parts/test_text_prompt.py::test_a_context_starts_from_the_given_words",
}


def rows() -> list[str]:
    """First cells of the file's tables, without their heads."""
    text = (ROOT / "dassl" / "COMPATIBILITY.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (.+?) \|", text, re.MULTILINE)
    return [cell for cell in cells if cell != "Subject"]


def test_every_row_has_a_test_and_every_test_a_row():
    assert len(rows()) == len(set(rows())) >= 30
    assert set(rows()) == set(PINS)


@pytest.mark.parametrize("subject", PINS)
def test_the_test_of_a_row_exists(subject):
    file, name = PINS[subject].split("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_interpolation_modes_are_torchvisions():
    assert {word: mode.value for word, mode in INTERPOLATION_MODES.items()} \
        == {"bilinear": "bilinear", "bicubic": "bicubic", "nearest": "nearest"}
    assert all(isinstance(mode, InterpolationMode) for mode in module.INTERPOLATION_MODES.values())


@pytest.mark.parametrize("name", ["imagenet", "cifar10", "svhn"])
def test_policies_are_torchvisions(name):
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    cfg = get_cfg_default()
    cfg.INPUT.TRANSFORMS = (f"{name}_policy",)
    step = build_transform(cfg).transforms[1]
    assert type(step._policy) is AutoAugment and step._policy.policy is AutoAugmentPolicy(name)


def test_checkpoints_in_the_output_folder_are_not_taken_unasked(engine_cfg):
    first = build_trainer(engine_cfg(OPTIM__MAX_EPOCH=2))
    first.train()
    again = build_trainer(engine_cfg(OPTIM__MAX_EPOCH=2))
    again.train()
    assert again.start_epoch == 0 and len(again.rates) == 2
    asked = build_trainer(engine_cfg(OPTIM__MAX_EPOCH=2, RESUME=first.output_dir))
    asked.train()
    assert asked.start_epoch == 2 and not asked.rates


def test_without_an_epoch_the_best_or_else_the_latest_checkpoint_is_loaded(engine_cfg):
    trainer = build_trainer(engine_cfg(OPTIM__MAX_EPOCH=3))
    trainer.train()
    latest = trainer.model[2].weight.clone()
    nn.init.zeros_(trainer.model[2].weight)
    trainer.load_model(trainer.output_dir)
    assert torch.equal(trainer.model[2].weight, latest)
    nn.init.ones_(trainer.model[2].weight)
    trainer.save_model(0, trainer.output_dir, model_name="model-best.pth.tar")
    nn.init.zeros_(trainer.model[2].weight)
    trainer.load_model(trainer.output_dir)
    assert (trainer.model[2].weight == 1).all()
    with pytest.raises(UserError, match="No checkpoint at"):
        trainer.load_model(trainer.output_dir + "/nowhere")


def test_the_console_gets_results_and_the_log_everything(engine_cfg, capfd):
    trainer = build_trainer(engine_cfg(OPTIM__MAX_EPOCH=2))
    with setup_logger(trainer.output_dir) as log:
        trainer.train()
    out, written = capfd.readouterr().out, Path(log.path).read_text()
    assert "* accuracy:" in out and "epoch [1/2]" not in out and "Checkpoint saved" not in out
    assert all(words in written for words in ("* accuracy:", "epoch [1/2]", "Checkpoint saved", "Finish training"))
    assert {"results.json", "classes.json", "predictions.csv"} <= {p.name for p in Path(trainer.output_dir).iterdir()}
    assert json.loads((Path(trainer.output_dir) / "results.json").read_text())["split_hash"]


def test_a_python_file_is_no_config(tmp_path):
    from dassl.config import merge_file

    file = tmp_path / "config.py"
    file.write_text(f"cfg = {{}}\nopen({str(tmp_path / 'was_run')!r}, 'w')\n")
    with pytest.raises(UserError):
        merge_file(get_cfg_default(), file)
    assert not (tmp_path / "was_run").exists()


def test_the_backbones_are_residual_networks():
    ours = [name for name in BACKBONE_REGISTRY.registered_names()
            if BACKBONE_REGISTRY.get(name).__module__.startswith("dassl.")]
    assert len(ours) == 23 and all(name.startswith("resnet") for name in ours)
    with pytest.raises(UserError, match="Unknown backbone 'vgg16'"):
        BACKBONE_REGISTRY.get("vgg16")


def test_the_default_model_is_not_wrapped_for_several_gpus(engine_cfg, monkeypatch):
    from dassl.engine.dg import Vanilla

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    trainer = Vanilla(engine_cfg(MODEL__BACKBONE__NAME="resnet18", MODEL__BACKBONE__PRETRAINED=False))
    assert not isinstance(trainer.model, nn.DataParallel) and trainer.device.type == "cpu"
