"""Source compatibility: files written for Dassl, CoOp and OpenAI's CLIP run as they are, with the same numbers."""
import inspect
from pathlib import Path

import pytest
import torch

import clip
from clip import clip as face
from clip import model as towers

PLUGIN = Path(__file__).with_name("coop_style_trainer.py")
MODULE_NAMES = {
    face: ["load", "tokenize", "available_models", "build_model", "_MODELS", "_download", "_tokenizer", "_transform"],
    towers: ["CLIP", "VisionTransformer", "Transformer", "ResidualAttentionBlock", "LayerNorm", "QuickGELU",
             "convert_weights", "build_model"],
    clip: ["load", "tokenize", "available_models", "clip", "model", "simple_tokenizer"],
}
PARAMETERS = {
    "load": ["name", "device", "jit", "download_root"],
    "tokenize": ["texts", "context_length", "truncate"],
    "_download": ["url", "root"],
    "build_model": ["state_dict", "design_details"],
}


@pytest.mark.parametrize(("module", "name"), [(m, n) for m, names in MODULE_NAMES.items() for n in names])
def test_openais_names_are_where_public_code_looks_for_them(module, name):
    assert hasattr(module, name)


@pytest.mark.parametrize("name", PARAMETERS)
def test_openais_functions_take_openais_arguments(name):
    assert list(inspect.signature(getattr(face, name)).parameters) == PARAMETERS[name]


@pytest.fixture
def public_trainer(make_cfg, tmp_path, monkeypatch):
    """public_trainer("fp32") -> the plugin's trainer, built by the engine for two epochs on the toy images."""
    from dassl.engine import TRAINER_REGISTRY, build_trainer
    from dassl.engine.plugins import load_plugin

    monkeypatch.setenv("CLIP_CACHE", str(tmp_path / "cache"))

    def make(precision):
        cfg = make_cfg("CoOp", "TRAINER.COOP.N_CTX", 4, "OPTIM.NAME", "sgd", "OPTIM.LR", 0.002)
        module = load_plugin(str(PLUGIN))               # loaded once; another test may have had it forgotten
        TRAINER_REGISTRY.register(module.CoOpStyle, force=True)
        cfg.defrost()
        cfg.TRAINER.NAME, cfg.TRAINER.COOP.PREC = "CoOpStyle", precision
        cfg.freeze()
        return build_trainer(cfg)

    return make


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.load:FutureWarning")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_public_trainer_trains_tests_and_saves_in_both_precisions(precision, public_trainer):
    trainer = public_trainer(precision)
    before = trainer.model.prompt_learner.ctx.detach().clone()
    assert before.dtype == (torch.float16 if precision == "fp16" else torch.float32)
    trainer.train()
    assert not torch.equal(before, trainer.model.prompt_learner.ctx) and trainer.test() is not None
    saved = torch.load(Path(trainer.output_dir) / "prompt_learner" / "model.pth.tar-2", weights_only=True)
    assert {"ctx", "token_prefix", "token_suffix"} <= saved["state_dict"].keys()


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.load:FutureWarning")
def test_a_public_trainer_gives_our_coops_logits(public_trainer, make_cfg):
    from dassl.engine import build_trainer

    theirs, ours = public_trainer("fp32"), build_trainer(make_cfg("CoOp", "TRAINER.COOP.N_CTX", 4))
    with torch.no_grad():
        ours.model.prompt_learner.text.ctx.copy_(theirs.model.prompt_learner.ctx)
        images = torch.randn(5, 3, 32, 32)
        torch.testing.assert_close(theirs.model_inference(images), ours.model(images).logits, atol=1e-4, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.load:FutureWarning")
def test_a_public_file_dropped_into_trainers_is_found_and_runs_with_its_own_keys(make_cfg, tmp_path, monkeypatch):
    import sys

    import trainers
    from dassl.engine import TRAINER_REGISTRY, build_trainer
    from tools import train

    monkeypatch.setenv("CLIP_CACHE", str(tmp_path / "cache"))
    source = PLUGIN.read_text().replace("CoOpStyle", "DroppedOfThisTest").replace("TRAINER.COOP", "TRAINER.DROPPED")
    start, end = source.index("def load_clip_to_cpu"), source.index("class PromptLearner")
    keys = "def extend_cfg(cfg):\n    from yacs.config import CfgNode as CN\n" \
           "    cfg.TRAINER.DROPPED = CN({'N_CTX': 3, 'PREC': 'fp32'})\n\n\n"
    (tmp_path / "dropped.py").write_text(
        f"{source[:start]}from .coop import load_clip_to_cpu\n\n\n{keys}{source[end:]}")
    make_cfg("CoOp")                                                            # registers the toy images
    words = ["--trainer", "DroppedOfThisTest", "--config-file", "configs/trainers/CoOp/tiny.yaml", "--transforms",
             "center_crop", "normalize", "--root", str(tmp_path), "--output-dir", str(tmp_path / "run"), "--seed", "1",
             "DATASET.NAME", "Toy", "DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "1", "TRAINER.DROPPED.N_CTX", "2"]
    monkeypatch.setattr(trainers, "__path__", [*trainers.__path__, str(tmp_path)])
    try:
        trainer = build_trainer(train.setup_cfg(train.parser().parse_args(words)))
        trainer.train()
        assert type(trainer).__module__ == "trainers.dropped" and trainer.model.prompt_learner.ctx.shape[0] == 2
    finally:
        TRAINER_REGISTRY._obj_map.pop("DroppedOfThisTest", None)
        sys.modules.pop("trainers.dropped", None)


def test_the_helper_that_public_files_take_from_coop_loads_openais_layout(make_cfg, monkeypatch, tmp_path):
    from trainers.coop import load_clip_to_cpu

    monkeypatch.setenv("CLIP_CACHE", str(tmp_path / "cache"))
    model = load_clip_to_cpu(make_cfg("CoOp"))
    assert isinstance(model, towers.CLIP) and model.dtype == torch.float16 and model.visual.input_resolution == 32
