"""Checkpoints of the authors' code evaluate to their logits, whatever wrote the file and whatever the classes."""
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import build_trainer
from dassl.utils import UserError
from dassl.utils.portable import write_portable
from tools import train

sys.path.insert(0, str(Path(__file__).parent / "tools"))
from old_files import Call, tensor, write_legacy, write_zip  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
METHODS = {     # ours: the file of reference numbers, and the settings that it was made with
    "CoOp": ("coop_end", ("TRAINER.COOP.N_CTX", 16)),
    "CoPrompt": ("coprompt", ("TRAINER.COPROMPT.N_CTX", 2, "TRAINER.COPROMPT.PROMPT_DEPTH", 3)),
    "DAPT": ("dapt", ("TRAINER.DAPT.VIS_DEPTH", 1)),
    "MaPLe": ("maple", ("TRAINER.MAPLE.N_CTX", 2, "TRAINER.MAPLE.PROMPT_DEPTH", 3)),
    "PLOT": ("plot_n4", ("TRAINER.PLOT.N", 4, "TRAINER.PLOT.N_CTX", 16, "TRAINER.PLOT.POOLED", False)),
    "PromptSRC": ("promptsrc", ("TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT", 3, "TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION", 3)),
    "VPT": ("vpt_shallow", ("TRAINER.VPT.N_CTX_VISION", 8, "TRAINER.VPT.PROMPT_DEPTH_VISION", 1)),
}
WAYS = [        # PyTorch 1.6 and later, 0.2 to 1.5, of DataParallel, of the whole model, in half precision
    (write_zip, {}), (write_legacy, {}), (write_zip, {"prefix": "module."}), (write_zip, {"own": "prompt_learner."}),
    (write_zip, {"dtype": np.float16})]


@pytest.fixture
def pets(golden, make_cfg, tmp_path):
    """pets("CoOp") -> (our trainer on a dataset with the classes of the reference, the reference)."""
    make_cfg("CoOp")
    toy = DATASET_REGISTRY.get("Toy")

    def make(name):
        file, opts = METHODS[name]
        reference = golden(file)
        if "clip" in reference.data:                                    # towers of its own
            from random_clip import state_dict

            torch.save(state_dict(reference.json("clip")), tmp_path / "clip.pt")
            side = reference.data["images"].shape[-1]
            opts = (*opts, "MODEL.BACKBONE.NAME", tmp_path / "clip.pt", "INPUT.SIZE", f"({side}, {side})")
        DATASET_REGISTRY.register(type("ToyOfTheReference", (toy,), {"names": reference.classnames}), force=True)
        return build_trainer(make_cfg(name, *opts, "DATASET.NUM_SHOTS", 1, dataset="ToyOfTheReference")), reference

    yield make
    DATASET_REGISTRY._obj_map.pop("ToyOfTheReference", None)


def checkpoint(reference, dtype=np.float32, prefix="", own=""):
    """As the authors' Dassl saves it: all registered weights, and a schedule object; other weights are zeros."""
    layout, = reference.json("registered_models").values()
    whole = any(name.startswith("prompt_learner.") for name in layout)
    learned = {key.removeprefix("param/").removeprefix("" if whole else "prompt_learner."): reference.data[key]
               for key in reference.data.files if key.startswith("param/")}
    assert learned.keys() <= layout.keys()
    own = "" if whole else own
    weights = {name: np.zeros(shape, dtype) for name, (shape, _) in layout.items()} | learned
    state = Call("collections.OrderedDict", [[prefix + own + name, tensor(array.astype(dtype))]
                                             for name, array in weights.items()])
    schedule = {"successor": Call("torch.optim.lr_scheduler.CosineAnnealingLR", state={"T_max": 50}), "last_epoch": 50}
    return {"state_dict": state, "epoch": 50, "optimizer": {"state": {}, "param_groups": []}, "scheduler": schedule,
            "val_result": Call("numpy.core.multiarray.scalar", Call("numpy.dtype", "f8", False, True),
                               Call("_codecs.encode", "\0" * 8, "latin1"))}


def save(path, write, state):
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, state)


def logits(trainer, reference):
    trainer.set_model_mode("eval")
    with torch.no_grad():
        return trainer.model_inference(reference.tensor("images")[0])


@pytest.mark.parametrize("name", METHODS)
def test_the_authors_checkpoint_gives_the_authors_logits_however_it_was_saved(name, pets, tmp_path):
    trainer, reference = pets(name)
    registered, = reference.json("registered_models")
    theirs = reference.tensor("logits")
    for number, (write, how) in enumerate(WAYS):
        folder = tmp_path / f"theirs{number}"
        save(folder / registered / "model.pth.tar-50", write, checkpoint(reference, **how))
        with torch.no_grad():
            for parameter in trainer.model.prompt_learner.parameters():
                parameter.add_(torch.randn_like(parameter))
        assert not torch.allclose(logits(trainer, reference), theirs, atol=1e-3)
        trainer.load_model(str(folder), epoch=50)
        tolerance = (2e-5 if "dtype" not in how else 3e-3) * float(theirs.abs().max())
        torch.testing.assert_close(logits(trainer, reference), theirs, rtol=0, atol=tolerance)


def test_cocoops_checkpoint_has_the_authors_names_and_serves_other_classes(make_cfg, tmp_path):
    trained = build_trainer(make_cfg("CoCoOp"))
    learned = {name: value.numpy() for name, value in trained.model.prompt_learner.state_dict().items()}
    assert set(learned) == {"ctx", *(f"meta_net.linear{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias"))}
    fixed = {"token_prefix": np.zeros((19, 1, 64), np.float32), "token_suffix": np.zeros((19, 60, 64), np.float32)}
    state = Call("collections.OrderedDict", [[name, tensor(value)] for name, value in (learned | fixed).items()])
    save(tmp_path / "theirs" / "prompt_learner" / "model.pth.tar-10", write_legacy, {"state_dict": state, "epoch": 10})
    other = build_trainer(make_cfg("CoCoOp", seed=2, output=tmp_path / "other"))
    images = next(iter(other.test_loader))["img"]
    assert not torch.equal(other.model_inference(images), trained.model_inference(images))
    other.load_model(str(tmp_path / "theirs"), epoch=10)
    assert torch.equal(other.model_inference(images), trained.model_inference(images))
    elsewhere = build_trainer(make_cfg("CoCoOp", output=tmp_path / "elsewhere", dataset="ToyOther"))
    elsewhere.load_model(str(tmp_path / "theirs"), epoch=10)
    assert elsewhere.model_inference(images).shape[1] == 3


@pytest.fixture
def ctx(tmp_path):
    """A run folder of CoOp with epochs 3 and 12, and the context of each."""
    values = {epoch: torch.full((16, 64), float(epoch)) for epoch in (3, 12)}
    for epoch, value in values.items():
        path = tmp_path / "run" / "prompt_learner" / f"model.pth.tar-{epoch}"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state_dict": {"ctx": value}, "epoch": epoch}, path)
    return values


def loaded(make_cfg, path, **more):
    trainer = build_trainer(make_cfg("CoOp"))
    trainer.load_model(str(path), **more)
    return trainer.model.prompt_learner["text"].ctx


def test_a_run_its_folder_a_renamed_one_and_a_file_are_all_found(make_cfg, ctx, tmp_path):
    folder = tmp_path / "run" / "prompt_learner"
    assert torch.equal(loaded(make_cfg, tmp_path / "run"), ctx[12])                  # no pointer: the latest
    assert torch.equal(loaded(make_cfg, tmp_path / "run", epoch=3), ctx[3])
    assert torch.equal(loaded(make_cfg, folder, epoch=3), ctx[3])
    assert torch.equal(loaded(make_cfg, folder / "model.pth.tar-3"), ctx[3])
    (folder / "checkpoint").write_text("model.pth.tar-3\n")
    assert torch.equal(loaded(make_cfg, tmp_path / "run"), ctx[3])
    folder.rename(tmp_path / "run" / "MultiModalPromptLearner")
    assert torch.equal(loaded(make_cfg, tmp_path / "run", epoch=12), ctx[12])


def test_weights_without_a_checkpoint_around_them_and_safetensors_load(make_cfg, ctx, tmp_path):
    torch.save({"ctx": ctx[3]}, tmp_path / "bare.pth")
    assert torch.equal(loaded(make_cfg, tmp_path / "bare.pth"), ctx[3])
    torch.save({"model": {"ctx": ctx[3]}, "epoch": 3}, tmp_path / "inside.pth")
    assert torch.equal(loaded(make_cfg, tmp_path / "inside.pth"), ctx[3])
    torch.save({"state_dict": {"module._orig_mod.ctx": ctx[3]}}, tmp_path / "wrapped.pth")
    assert torch.equal(loaded(make_cfg, tmp_path / "wrapped.pth"), ctx[3])
    torch.save({"ctx": ctx[3].to(torch.int8)}, tmp_path / "rounded.pth")
    with pytest.raises(UserError, match="ctx in .*rounded.pth is int8, not floating point"):
        loaded(make_cfg, tmp_path / "rounded.pth")
    torch.save({"model": {"ctx": ctx[3]}, "ema": {"ctx": ctx[12]}}, tmp_path / "two.pth")
    with pytest.raises(UserError, match="two.pth is not a checkpoint"):
        loaded(make_cfg, tmp_path / "two.pth")
    write_portable(tmp_path / "safe" / "prompt_learner" / "w.safetensors", {"ctx": ctx[12]}, {"epoch": 12})
    assert torch.equal(loaded(make_cfg, tmp_path / "safe"), ctx[12])


def test_what_is_not_there_is_told_with_what_is(make_cfg, ctx, tmp_path):
    with pytest.raises(UserError, match="model.pth.tar-50. Epochs that were saved there: 3, 12"):
        loaded(make_cfg, tmp_path / "run", epoch=50)
    with pytest.raises(UserError, match="No checkpoint at .*nowhere"):
        loaded(make_cfg, tmp_path / "nowhere")
    for name in ("one", "two"):
        (tmp_path / "both" / name).mkdir(parents=True)
        torch.save({"ctx": ctx[3]}, tmp_path / "both" / name / "model.pth.tar-1")
    with pytest.raises(UserError, match="has no prompt_learner, but checkpoints of one, two"):
        loaded(make_cfg, tmp_path / "both")


def test_the_command_evaluates_a_foreign_checkpoint_on_other_classes(tmp_path):
    """--eval-only --model-dir on the digits, with fixed words of 19 other classes in the file."""
    state = {name: torch.randn(size) for name, size in
             dict(ctx=(4, 128), token_prefix=(19, 1, 128), token_suffix=(19, 72, 128)).items()}
    words = ["--root", str(tmp_path / "data"), "--trainer", "CoOp", "--seed", "1", "--eval-only", "--config-file",
             str(ROOT / "configs/trainers/CoOp/tiny.yaml"), "--dataset-config-file",
             str(ROOT / "configs/datasets/digits.yaml"), "--output-dir", str(tmp_path / "out"), "--model-dir",
             str(tmp_path / "theirs"), "--load-epoch", "50", "TRAINER.COOP.N_CTX", "4", "TRAINER.COOP.CSC", "False"]
    (tmp_path / "theirs" / "prompt_learner").mkdir(parents=True)
    torch.save({"state_dict": state, "epoch": 50}, tmp_path / "theirs" / "prompt_learner" / "model.pth.tar-50")
    assert train.cli(words) == 0
    assert "* accuracy:" in (tmp_path / "out" / "log.txt").read_text() and (tmp_path / "out" / "results.json").exists()
