"""tools/checkpoint.py: what is in a file, ours or the authors', and the same file in other formats."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from old_files import Call, tensor, write_legacy, write_tar

from dassl.engine import build_trainer
from tools import checkpoint
from tools.checkpoint_kinds import is_fixed, kind_of

Z = torch.zeros
WORDS = {"token_prefix": Z(3, 1, 8), "token_suffix": Z(3, 60, 8)}
TOWERS = {"image_encoder.transformer.resblocks.0.ln_1.bias": Z(8), "text_encoder.ln_final.bias": Z(8)}


@pytest.mark.parametrize(("weights", "method", "trainer", "told"), [
    ({"ctx": Z(16, 8), **WORDS}, "CoOp or KgCoOp or ProGrad", "CoOp or KgCoOp or ProGrad",
     "TRAINER.COOP.N_CTX 16 TRAINER.COOP.CSC False TRAINER.KGCOOP.N_CTX 16 TRAINER.PROGRAD.N_CTX 16"),
    ({"module.ctx": Z(3, 4, 8)}, "CoOp or PLOT or ProDA", "CoOp or PLOT or ProDA",
     "TRAINER.COOP.N_CTX 4 TRAINER.COOP.CSC True TRAINER.PLOT.N 3 TRAINER.PLOT.N_CTX 4"),
    ({"ctx": Z(3, 4, 8), **WORDS}, "CoOp", "CoOp", "TRAINER.COOP.CSC True"),
    ({"ctx": Z(4, 4, 8), "token_prefix": Z(12, 1, 8)}, "PLOT", "PLOT", "TRAINER.PLOT.N 4"),
    ({"ctx": Z(4, 8), "net.0.weight": Z(2, 8), **WORDS}, "context words and more", "", "net.0.weight"),
    ({"ctx": Z(4, 8), **{f"meta_net.linear{i}.{kind}": Z(1, 8) for i in (1, 2) for kind in ("weight", "bias")},
      **WORDS}, "CoCoOp", "CoCoOp", "TRAINER.COCOOP.N_CTX 4"),
    ({"ctx": Z(4, 8), **{f"meta_net.linear{i}.{kind}": Z(2, 8) for i in (1, 2) for kind in ("weight", "bias")},
      **WORDS}, "TCP", "TCP", "TRAINER.TCP.N_CTX 4"),
    ({"ctx": Z(2, 8), **{f"ctx_att{i}": Z(3, 8) for i in (1, 2, 3)}, "token_middle1": Z(3, 1, 8), **WORDS}, "ATPrompt",
     "ATPrompt", "TRAINER.ATPROMPT.N_CTX 2 TRAINER.ATPROMPT.N_ATT 3 TRAINER.ATPROMPT.PROMPT_DEPTH 0"),
    ({"prompt_learner.ctx": Z(4, 8), "prompt_learner.w": Z(1, 8), "prompt_learner.class_text_features": Z(35, 3, 8),
      **TOWERS}, "LASP", "LASP", "TRAINER.LASP.N_CTX 4"),
    ({**{f"prompt_learner.{name}": Z(2, 8) for name in ("ctx", "proj.weight", "proj.bias")}, "model_distill.proj": Z(1),
      **{f"adapter_{tower}.fc.{i}.weight": Z(1, 1) for tower in ("image", "text") for i in (0, 2)}, **TOWERS},
     "CoPrompt", "CoPrompt", "TRAINER.COPROMPT.N_CTX 2 TRAINER.COPROMPT.PROMPT_DEPTH 1"),
    ({"txt_ctx": Z(5, 8), "vis_ctx": Z(2, 7, 8), **WORDS}, "DAPT", "DAPT",
     "TRAINER.DAPT.TXT_NUM_TOKENS 5 TRAINER.DAPT.VIS_NUM_TOKENS 7 TRAINER.DAPT.VIS_DEPTH 2"),
    ({"representation_learner.compound_rep_tokens": Z(5, 9), "image_encoder.proj_rep": Z(8, 4), **TOWERS, **{
        f"representation_learner.compound_rep_tokens_r2{tower}proj.0.{kind}": Z(8, 9)
        for tower in "vt" for kind in ("weight", "bias")}}, "MMRL", "MMRL",
     "TRAINER.MMRL.N_REP_TOKENS 5 TRAINER.MMRL.REP_DIM 9"),
    ({"prompt_learner.ctx": Z(4, 8), "image_encoder.VPT": Z(3, 8), **TOWERS}, "IVLP or PromptSRC", "IVLP or PromptSRC",
     "TRAINER.IVLP.N_CTX_TEXT 4 TRAINER.IVLP.PROMPT_DEPTH_TEXT 1 TRAINER.IVLP.PROMPT_DEPTH_VISION 1"),
    ({"image_encoder.VPT": Z(6, 8), "image_encoder.transformer.resblocks.1.VPT_shallow": Z(6, 8), **TOWERS},
     "VPT", "VPT", "TRAINER.VPT.N_CTX_VISION 6 TRAINER.VPT.PROMPT_DEPTH_VISION 2"),
    ({"prompt_learner.ctx": Z(4, 8), "image_encoder.VPT": Z(4, 8), "text_encoder.resblocks.1.VPT_shallow": Z(4, 8)},
     "prompts in both towers", "", "needs its trainer"),
    ({"pixel.program": Z(3, 9)}, "AR or VP", "AR or VP", ""),
    ({"pixel.0.program": Z(3, 9), "pixel.1.program": Z(3, 9), "bank.prompt_of": Z(5, 6), "bank.text": Z(9),
      "bank.mapping.weights": Z(5, 6)}, "DVPcls or DVPcse", "DVPcls or DVPcse",
     "TRAINER.DVPCLS.NUM_CLUSTERS 2 TRAINER.DVPCLS.NUM_DESCRIPTIONS 6 TRAINER.DVPCSE.NUM_DESCRIPTIONS 3"),
    ({"weight": Z(10, 8), "bias": Z(10)}, "LinearProbe", "LinearProbe", "a row of weights for each class"),
    ({"visual.proj": Z(8, 8), "token_embedding.weight": Z(9, 8)}, "CLIP", "", "MODEL.BACKBONE.NAME"),
    ({"something": Z(2)}, "no method that is known here", "", ""),
])
def test_a_method_is_known_by_its_names_and_shapes(weights, method, trainer, told):
    kind = kind_of(weights)
    assert (kind.method, kind.trainer) == (method, trainer)
    assert told in " ".join([*kind.options, kind.remark])


@pytest.mark.parametrize("trainer", ["CoOp", "PLOT"])
def test_a_file_of_ours_names_its_trainer_where_shapes_do_not(trainer, make_cfg, tmp_path, capsys):
    saved = build_trainer(make_cfg(trainer, *(["TRAINER.COOP.CSC", True] if trainer == "CoOp" else [])))
    saved.save_model(0, str(tmp_path))
    file = tmp_path / "prompt_learner" / "model.pth.tar-1"
    assert checkpoint.cli(["convert", str(file), str(tmp_path / "x.safetensors"), "--learned-only"]) == 0
    for path in (file, tmp_path / "x.safetensors"):
        capsys.readouterr()
        assert checkpoint.cli(["show", str(path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)[0]["looks_like"]["trainer"] == trainer


@given(st.dictionaries(st.sampled_from([
    "ctx", "module.ctx", "txt_ctx", "vis_ctx", "meta_net.linear1.weight", "image_encoder.VPT", "prompt_learner.ctx",
    "image_encoder.transformer.resblocks.3.VPT_shallow", "compound_prompts_text.0", "pixel.program", "pixel.0.program",
    "bank.text", "bank.prompt_of", "weight", "bias", "token_prefix", "x"]),
    st.lists(st.integers(0, 3), max_size=4).map(torch.zeros) | st.integers()))
@settings(max_examples=150)
def test_any_names_and_shapes_are_some_kind(weights):
    kind = kind_of(weights)
    assert kind.method and all(len(option.split()) == 2 for option in kind.options)


def test_visual_tokens_are_not_taken_for_a_tower():
    assert not is_fixed("visual.tokens") and is_fixed("visual.proj") and is_fixed("module.visual.ln_pre.weight")


@pytest.fixture
def theirs(tmp_path):
    """A file of PyTorch 1.4 with a schedule object, fixed words, and a NaN."""
    ctx = np.arange(12, dtype=np.float32).reshape(3, 4)
    ctx[0, 0] = np.nan
    weights = {"ctx": tensor(ctx), "token_prefix": tensor(np.ones((2, 1, 4), np.float32))}
    path = tmp_path / "run" / "prompt_learner" / "model.pth.tar-50"
    path.parent.mkdir(parents=True)
    state = Call("collections.OrderedDict", [list(item) for item in weights.items()])
    write_legacy(path, {"state_dict": state, "epoch": 50, "optimizer": None, "val_result": None,
                        "scheduler": {"successor": Call("dassl.optim.lr_scheduler.X"), "last_epoch": 50}})
    return path


def said(capsys, *words):
    code = checkpoint.cli([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out + err


def test_show_tells_method_epoch_numbers_and_what_was_not_read(theirs, capsys):
    code, text = said(capsys, "show", theirs)
    assert code == 0
    known = "CoOp or KgCoOp or ProGrad"
    for part in ("PyTorch, pickles in a row", "epoch 50", f"looks like {known}, with the authors' names",
                 f"--trainer {known} with TRAINER.COOP.N_CTX 3", "(1 objects, not read)",
                 "1 numbers are infinite or NaN", "fixed, not loaded", "3x4"):
        assert part in text
    code, of_run = said(capsys, "show", theirs.parents[1])
    assert code == 0 and of_run == text


def test_show_as_json_has_the_numbers_of_every_weight(tmp_path, capsys):
    torch.save({"state_dict": {"w": torch.tensor([[3.0, -4.0]]), "n": torch.tensor([], dtype=torch.int64),
                               "c": torch.tensor([3 + 4j])}, "epoch": 1}, tmp_path / "x.pth")
    code, text = said(capsys, "show", tmp_path / "x.pth", "--json")
    weights = {w.pop("name"): w for w in json.loads(text)[0]["weights"]}
    assert weights["w"] == {"shape": [1, 2], "dtype": "float32", "min": -4, "mean": -0.5, "max": 3, "norm": 5,
                            "not_finite": 0, "fixed": False}
    assert weights["n"]["shape"] == [0] and "min" not in weights["n"] and weights["c"]["norm"] == 5


@pytest.mark.parametrize("odd", [torch.zeros(2).to_sparse(), torch.zeros(2, device="meta"), torch.tensor(True),
                                 torch.zeros(2, dtype=torch.float8_e4m3fn), torch.zeros(0, 3), 7, "text",
                                 torch.zeros(1).expand(10 ** 12)])
def test_a_value_without_plain_numbers_is_shown_by_its_shape(odd, tmp_path, capsys):
    torch.save({"state_dict": {"ctx": Z(2, 3), "token_prefix": odd}}, tmp_path / "x.pth")
    code, text = said(capsys, "show", tmp_path / "x.pth")
    assert code == 0 and "token_prefix" in text and "looks like CoOp" in text


def test_show_of_a_run_with_two_models_shows_both_of_that_epoch(tmp_path, capsys):
    for name in ("a", "b"):
        for epoch in (1, 2):
            (tmp_path / name).mkdir(exist_ok=True)
            path = tmp_path / name / f"model.pth.tar-{epoch}"
            torch.save({"state_dict": {f"{name}{epoch}": Z(1)}, "epoch": epoch}, path)
    assert [f"{n}2" in said(capsys, "show", tmp_path)[1] for n in "ab"] == [True, True]
    code, text = said(capsys, "show", tmp_path, "--epoch", 1)
    assert code == 0 and "a1" in text and "b1" in text and "b2" not in text
    code, text = said(capsys, "convert", tmp_path, tmp_path / "out.safetensors")
    assert code == 2 and "several models" in text and not (tmp_path / "out.safetensors").exists()


def test_there_and_back_a_file_that_dassl_reads_has_the_same_content(theirs, tmp_path, capsys):
    safe, back = tmp_path / "x.safetensors", tmp_path / "new" / "model.pth.tar-50"
    assert said(capsys, "convert", theirs, safe)[0] == 0 and (tmp_path / "x.json").exists()
    assert said(capsys, "convert", safe, back)[0] == 0
    content = torch.load(back, weights_only=True)
    assert content["state_dict"].keys() == {"ctx", "token_prefix"} and content["epoch"] == 50
    assert content["state_dict"]["ctx"][1:].tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert {"state_dict", "epoch", "optimizer", "scheduler", "val_result"} == content.keys()
    assert content["scheduler"] is content["optimizer"] is None         # only weights, epoch and result are converted


def test_only_what_was_learned_is_kept_when_asked_for(theirs, tmp_path, capsys):
    assert said(capsys, "convert", theirs, tmp_path / "x.safetensors", "--learned-only")[0] == 0
    from safetensors.torch import load_file

    assert load_file(tmp_path / "x.safetensors").keys() == {"ctx"}
    assert json.loads((tmp_path / "x.json").read_text()).keys() == {"epoch", "val_result", "tensors", "sha256"}


def test_nothing_is_replaced_unless_forced_and_nothing_is_run(theirs, tmp_path, capsys):
    out = tmp_path / "x.safetensors"
    (tmp_path / "x.json").write_text("mine")
    code, text = said(capsys, "convert", theirs, out)
    assert code == 2 and "x.json exists" in text and not out.exists() and (tmp_path / "x.json").read_text() == "mine"
    assert said(capsys, "convert", theirs, out, "--force")[0] == 0
    write_tar(tmp_path / "evil", [], lambda t: {"state_dict": Call("os.mkdir", str(tmp_path / "ran"))})
    for words in (["show", tmp_path / "evil"], ["convert", tmp_path / "evil", tmp_path / "y.pth"]):
        code, text = said(capsys, *words)
        assert code == 2 and "asks for os.mkdir" in text and len(text.strip().splitlines()) == 1
    assert not (tmp_path / "ran").exists() and not (tmp_path / "y.pth").exists()


def test_a_place_that_refuses_the_file_is_told(theirs, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code, text = said(capsys, "convert", theirs, tmp_path / "file" / "x.safetensors")
    assert code == 2 and f"{tmp_path / 'file'} cannot be read or written" in text and "Traceback" not in text


@pytest.mark.parametrize(("words", "message"), [
    (["show", "nowhere"], "nothing at"), (["show", "empty"], "No checkpoint at"), (["show", "text"], "cannot be read"),
    (["convert", "nowhere", "x.safetensors"], "nothing at"), (["show", "numbers"], "weight 3, which is not a string"),
    (["show", "run", "--epoch", "7"], "were saved there: 50")])
def test_mistakes_are_one_paragraph(words, message, theirs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("text").write_text("404")
    torch.save({"state_dict": {3: Z(1)}}, "numbers")
    code, text = said(capsys, *words)
    assert code == 2 and message in text and len(text.strip().splitlines()) == 1
