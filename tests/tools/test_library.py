"""dassl_prompts from Python: training, loading, features, datasets, runs; what pip installs; names that hide others."""
import os
import re
import shutil
import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import dassl
import dassl_prompts as dp
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from tools.checkout import default_folder, warn_of_hidden_packages
from tools.runs.recipe import ROOT

FAST = {"OPTIM.MAX_EPOCH": 1}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("library")
    return {"output": folder / "output", "data": folder / "data"}


@pytest.fixture(scope="module")
def result(places):
    return dp.train_run("CoOp", "digits", 2, options=FAST, **places)


def test_a_run_trained_from_python_is_a_run_of_the_recipe(result, places):
    assert 30 < result.accuracy <= 100 and result.metrics["accuracy"] == result.accuracy
    assert result.folder == places["output"] / "digits" / "CoOp" / "tiny_2shots-OPTIM.MAX_EPOCH=1" / "seed1"
    assert {"config.yaml", "inputs.json", "results.json", "classes.json"} <= {p.name for p in result.folder.iterdir()}
    assert result.cell.recipe == "coop" and result.config["TRAINER.COOP.CSC"] is True
    assert "CoOp on digits" in repr(result) and len(result.predictions) == 719


def test_what_has_finished_is_not_trained_again_unless_forced(result, places):
    before = (result.folder / "results.json").stat().st_mtime_ns
    again = dp.train_run("coop", "digits", 2, options=FAST, **places)
    assert again.folder == result.folder and (again.folder / "results.json").stat().st_mtime_ns == before
    (result.folder / "inputs.json").write_text(re.sub(r'"CoOp"', '"VPT"', (result.folder / "inputs.json").read_text()))
    with pytest.raises(UserError, match="force=True"):
        dp.train_run("coop", "digits", 2, options=FAST, **places)
    forced = dp.train_run("coop", "digits", 2, options=FAST, force=True, **places)
    assert (forced.folder / "results.json").stat().st_mtime_ns > before and forced.accuracy == result.accuracy


def test_logits_are_the_scaled_cosines_of_the_features(result, places):
    classifier = result.load(device="cpu")
    data = dp.dataset("digits", data=places["data"])
    paths = [item.impath for item in data.test[:70]]
    classifier.batch_size = 32                                       # in three batches
    logits, images, texts = classifier.logits(paths), classifier.image_features(paths), classifier.text_features()
    assert (logits.shape, images.shape, texts.shape) == ((70, 10), (70, 128), (10, 128))
    torch.testing.assert_close(logits, classifier.model.clip.logit_scale.exp().cpu() * images @ texts.T,
                               atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(classifier.logits(classifier.prepare(paths[:3])), logits[:3], atol=1e-5, rtol=1e-5)
    answers = classifier.predict(paths, topk=1)
    assert [answer.label for answer in answers] == [classifier.classnames[c] for c in logits.argmax(1)]
    with pytest.raises(UserError, match="empty"):
        classifier.logits([])


def test_a_dataset_can_be_iterated(places):
    data = dp.dataset("digits", shots=2, seed=1, data=places["data"])
    assert len(data.train_x) == 20 and len(data.test) == 719 and data.classnames[0] == "zero"
    assert {data.classnames[item.label] == item.classname for item in data.train_x} == {True}
    with Image.open(data.test[0].impath) as image:
        assert image.size == (8, 8)


def test_all_runs_are_one_table(result, places):
    frame = dp.runs(places["output"])
    assert list(frame.trainer) == ["CoOp"] and frame.accuracy[0] == pytest.approx(result.accuracy)


def test_a_class_of_ones_own_trains_with_a_yaml(places):
    from trainers._base import PromptTrainer
    from trainers.parts.prompted_model import PromptedModel
    from trainers.parts.text_prompt import TextPrompt

    @TRAINER_REGISTRY.register()
    class OfANotebook(PromptTrainer):
        @classmethod
        def build(cls, clip, classes, options):
            return PromptedModel(clip, text=TextPrompt(clip, classes.names, n_ctx=2))

        def loss(self, out, batch):
            return {"ce": F.cross_entropy(out.logits, batch["label"])}

    with pytest.raises(UserError, match="at least 1.*-3"):
        dp.train_run("CoOp", "digits", -3, **places)
    with pytest.raises(UserError, match="no recipe.*\n.*config="):
        dp.train_run(OfANotebook, "digits", 1, **places)
    made = dp.train_run(OfANotebook, "digits", 1, config="CoOp/tiny", options=FAST, **places)
    assert made.record["learned_parameters"] == 2 * 128
    assert made.load().logits(Image.new("RGB", (9, 9))).shape == (1, 10)


@pytest.mark.parametrize(("words", "named"), [
    ({"method": "CoOpp", "dataset": "digits"}, "Did you mean CoOp"),
    ({"method": "coop", "dataset": "digitz"}, "Did you mean digits"),
    ({"method": "coop", "dataset": "digits", "options": {"OPTIM.LRR": 1}}, "Did you mean OPTIM.LR"),
    ({"method": "coop", "dataset": "digits", "config": "tinny"}, "Did you mean tiny"),
    ({"method": "coop", "dataset": "nowhere/at/all"}, "nowhere/at/all"),
])
def test_bad_names_are_refused_with_the_nearest_and_leave_nothing(words, named, tmp_path):
    with pytest.raises(UserError, match=named):
        dp.train_run(**words, output=tmp_path / "output", data=tmp_path / "data")
    assert not (tmp_path / "output").exists()


def test_methods_without_features_of_their_own_say_so(places):
    zero_shot = dp.train_run("zeroshot", "digits", None, **places).load()
    assert zero_shot.text_features().shape == (10, 128)
    zero_shot.model = None
    with pytest.raises(UserError, match="no features"):
        zero_shot.image_features(Image.new("RGB", (9, 9)))


def test_a_package_of_others_that_ours_hides_is_named(tmp_path, monkeypatch):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("")
    monkeypatch.setattr(sys, "path", [str(ROOT), str(tmp_path)])
    with pytest.warns(UserWarning, match=re.escape(str(tmp_path / "datasets"))):
        warn_of_hidden_packages()
    monkeypatch.setattr(sys, "path", [str(ROOT)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_hidden_packages()


def test_runs_and_data_are_kept_where_the_environment_says_else_in_the_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("DATA", "OUTPUT"):
        monkeypatch.delenv(name, raising=False)
    assert (default_folder("data"), default_folder("output")) == (str(ROOT / "data"), str(ROOT / "output"))
    monkeypatch.setattr("tools.checkout.IS_CHECKOUT", False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert (default_folder("data"), default_folder("output")) == (str(tmp_path / "cache" / "dassl" / "data"), "output")
    monkeypatch.setenv("DATA", "elsewhere")
    assert default_folder("data") == "elsewhere"


def test_there_is_one_version():
    assert dp.__version__ == dassl.__version__ and re.fullmatch(r"\d+\.\d+\.\d+", dassl.__version__)
    assert f"version: {dassl.__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {dassl.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert dassl.DASSL_COMPAT == "0.6.3" and isinstance(dp, types.ModuleType)


@pytest.mark.slow
def test_what_pip_installs_has_the_command_the_trainers_and_the_recipes(tmp_path):
    tree = tmp_path / "tree"
    left_out = shutil.ignore_patterns(".git", ".venv", "__pycache__", "output", "data", "tests")
    shutil.copytree(ROOT, tree, ignore=left_out)
    target = tmp_path / "target"
    installer = ["uv", "pip", "install", "-q", "--python", sys.executable] if shutil.which("uv") else \
        [sys.executable, "-m", "pip", "install", "-q"]
    subprocess.run([*installer, "--no-deps", "--target", str(target), str(tree)], check=True)
    shutil.rmtree(tree)
    assert {path.name for path in target.iterdir() if path.is_dir() and "." not in path.name} <= \
        {"bin", "clip", "dassl", "dassl_prompts"}
    environment = {**os.environ, "PYTHONPATH": str(target), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for name in ("DATA", "OUTPUT"):
        environment.pop(name, None)

    def command(*words):
        done = subprocess.run([sys.executable, str(target / "bin" / "dassl-prompts"), *words], cwd=tmp_path,
                              env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = command("train", "--list")
    assert all(re.search(rf"^{name}\b", listed, re.M) for name in ("CoOp", "DAPT", "DVPcse", "TPT"))
    assert "torch" in command("doctor", "--no-training")
    with pytest.raises(AssertionError, match="installed package"):
        command("new-trainer", "MyMethod")
    made = command("sweep", "--recipe", "dapt", "--datasets", "digits", "--shots", "1", "--seeds", "1",
                   "OPTIM.MAX_EPOCH", "1")
    assert "DAPT" in made and list((tmp_path / "output" / "digits" / "DAPT").glob("*/seed1/results.json"))
    assert (tmp_path / "cache" / "dassl" / "data").is_dir() and not (tmp_path / "data").exists()
    code = "import dassl_prompts as dp; r = dp.runs(); print(len(r), dp.load(r.folder[0]).classnames[0])"
    said = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert said.stdout.split() == ["2", "zero"], said.stderr


def test_the_installed_home_holds_every_file_that_the_tools_read():
    sys.path.insert(0, str(ROOT))
    from setup import packages

    kinds = re.search(r'package_data=\{"": \[([^]]+)\]', (ROOT / "setup.py").read_text(encoding="utf-8")).group(1)
    endings = tuple(kind.strip('" \n').removeprefix("*") for kind in kinds.split(","))
    folders = set(packages().values())
    listed = subprocess.run(["git", "ls-files", "clip", "configs", "datasets", "tools", "trainers"], cwd=ROOT,
                            capture_output=True, text=True).stdout.split()
    left = [name for name in listed if not name.endswith((".py", *endings)) and not Path(name).name.startswith("tiny.")]
    assert not left and {Path(name).parent.as_posix() for name in listed} <= folders


def test_the_notebook_runs(places, tmp_path, monkeypatch, capsys):
    nbformat = pytest.importorskip("nbformat", reason='needs pip install -e ".[test]"')
    monkeypatch.setenv("DATA", str(places["data"]))
    monkeypatch.setenv("OUTPUT", str(tmp_path / "output"))
    monkeypatch.chdir(ROOT / "examples")
    monkeypatch.setattr(sys, "path", list(sys.path))
    notebook = nbformat.read(ROOT / "examples" / "python.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)              # it is kept without outputs
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    exec("\n".join(cells).replace('"OPTIM.MAX_EPOCH": 5', '"OPTIM.MAX_EPOCH": 1'), {"__name__": "notebook"})
    printed = capsys.readouterr().out
    assert "of 100 correct" in printed and re.search(r"zero-shot CLIP 79\.7 %, CoOp \d", printed)
