"""An ONNX file says what the run says, to a program that knows nothing of the run; what cannot be one is refused."""
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tools import export
from tools.predict import load
from trainers.parts.transport_head import sinkhorn

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")


def logits_by_hand(file, paths):
    """What a reader of the metadata does: Pillow, NumPy and ONNX Runtime, nothing of this project."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    side, batch = int(facts["image_size"]), []
    for path in paths:
        image = Image.open(path).convert("RGB")
        factor = side / min(image.size)
        kind = Image.Resampling[facts["interpolation"].upper()]
        image = image.resize([int(length * factor) for length in image.size], kind)
        left, top = (round((length - side) / 2) for length in image.size)
        pixels = np.asarray(image.crop((left, top, left + side, top + side)), dtype=np.float32) / 255
        if json.loads(facts["normalised"]):
            pixels = (pixels - np.float32(json.loads(facts["mean"]))) / np.float32(json.loads(facts["std"]))
        batch.append(pixels.transpose(2, 0, 1))
    return session.run(None, {"images": np.stack(batch).astype(np.float32)})[0], json.loads(facts["classnames"])


@pytest.mark.parametrize("trainer", ["DAPT", pytest.param("AR", marks=pytest.mark.slow),
                                     pytest.param("DVPcse", marks=pytest.mark.slow),
                                     pytest.param("PLOT", marks=pytest.mark.slow),
                                     pytest.param("RPO", marks=pytest.mark.slow)])
def test_the_file_alone_gives_the_runs_answers_for_any_batch(trainer, toy_run, make_cfg, tmp_path, monkeypatch, capsys):
    folder = toy_run(trainer)
    file = tmp_path / "out" / "model.onnx"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)      # a terminal sees each stage and then only the result
    capsys.readouterr()
    assert export.cli(["--run", str(folder), str(file)]) == 0
    stages = capsys.readouterr().err.split("\r\033[K")
    assert [stage.split()[0] for stage in stages if stage] == ["reading", "Exporting", "translating", "writing",
                                                               "comparing"] and stages[-1] == ""
    assert [path.name for path in file.parent.iterdir()] == ["model.onnx"]
    paths = sorted(str(path) for path in Path(make_cfg(trainer).DATASET.ROOT, "toy").glob("test_*.png"))
    logits, names = logits_by_hand(file, paths)
    wanted = load(folder, device="cpu").predict(paths, topk=4)
    assert len(wanted) == 24
    for row, answer in zip(logits, wanted, strict=True):
        shares = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        assert dict(zip(names, shares, strict=True)) == pytest.approx(dict(answer.top), abs=1e-4)


@pytest.mark.parametrize(("trainer", "why"), [("CoCoOp", "text features differ from image to image"),
                                              ("TPT", "learns at test time")])
def test_an_answer_that_is_no_fixed_classifier_is_refused(trainer, why, toy_run, tmp_path, capsys):
    folder = toy_run(trainer, "TEST.NO_TEST", True)
    assert export.cli(["--run", str(folder), str(tmp_path / "model.onnx")]) == 2
    told = capsys.readouterr().err
    assert f"{trainer} has no fixed classifier to export: " in told and why in told and "tools/predict.py" in told
    assert not (tmp_path / "model.onnx").exists()


def test_a_graph_of_a_transport_goes_through_all_rounds():
    """As it must: a program that looks at values while it is traced cannot be exported."""
    torch.manual_seed(0)
    kernel = torch.exp(torch.randn(2, 5, 3))
    plan, rounds = sinkhorn(kernel, ROUNDS)
    program = torch.export.export(Plan(), (kernel,)).module()
    torch.testing.assert_close(program(kernel), plan)
    assert rounds < ROUNDS


ROUNDS = 20


class Plan(torch.nn.Module):
    def forward(self, kernel):
        return sinkhorn(kernel, ROUNDS)[0]


@pytest.mark.parametrize("of", ["a run", "a backbone"])
def test_a_file_that_says_something_else_is_not_kept(of, toy_run, tmp_path, monkeypatch, capsys):
    import onnx

    source = ["--run", str(toy_run("ZeroshotCLIP"))] if of == "a run" else \
        ["--backbone", "tiny", "--classes", "cat, dog"]
    nothing = onnx.helper.make_model(onnx.helper.make_graph([], "nothing", [], []))
    monkeypatch.setattr("torch.onnx.export", lambda *args, **kwargs: SimpleNamespace(model_proto=nothing))
    (tmp_path / "model.onnx").write_text("an older one")
    monkeypatch.setattr("tools.labs.onnx.export.run_file", lambda file, images: [float("nan") for _ in images])
    assert export.cli([*source, str(tmp_path / "model.onnx")]) == 2
    assert "was not kept" in capsys.readouterr().err
    assert (tmp_path / "model.onnx").read_text() == "an older one"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_a_backbone_and_class_names_make_a_file_without_a_run(tmp_path):
    assert export.cli(["--backbone", "tiny", "--classes", "cat, dog", str(tmp_path / "model.onnx")]) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["classnames"]) == ["cat", "dog"]


def test_missing_packages_are_named_before_anything_is_read(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else object())
    assert export.cli(["--run", "/gone", "model.onnx"]) == 2
    assert "pip install onnxscript" in capsys.readouterr().err


def test_only_onnx_files_are_written(capsys):
    assert export.cli(["--run", "/gone", "model.pt"]) == 2 and "must end in .onnx" in capsys.readouterr().err
