"""Pretraining of the embedded CLIP: its formulas, its seeds, its file; a few steps only."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import pretrain_tiny  # noqa: E402

from clip import FrozenCLIP, TextTokens  # noqa: E402
from datasets.embedded import digit_splits, held_out_combinations  # noqa: E402
from tools.labs.pretraining import glyphs, measure, training  # noqa: E402
from tools.labs.pretraining.captions import ABSENT, ATTRIBUTES, UNSAID, Vocabulary, describe, is_true  # noqa: E402
from tools.labs.pretraining.model import fold_silu, untrained  # noqa: E402
from tools.labs.pretraining.muon import Muon, orthogonalise  # noqa: E402

THREE_STEPS = ("--steps", "3", "--batch", "8", "--warmup", "1")


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary()


@pytest.fixture(scope="module", autouse=True)
def one_font():
    """Drawing all fonts takes seconds; one shows the same code."""
    patch = pytest.MonkeyPatch()
    patch.setattr(glyphs, "FONTS", ("DejaVuSans",))
    for cached in (glyphs.glyph_fields, glyphs._rows_by_class):
        cached.cache_clear()
    yield
    patch.undo()
    for cached in (glyphs.glyph_fields, glyphs._rows_by_class):
        cached.cache_clear()


def test_quickgelu_after_folding_computes_what_silu_did():
    torch.manual_seed(0)
    trained = untrained(9)
    folded = FrozenCLIP.from_state_dict(fold_silu(trained.state_dict()))
    images, tokens = torch.randn(3, 3, 32, 32), TextTokens(torch.randn(2, 3, 128), torch.tensor([2, 1]))
    with torch.no_grad():
        torch.testing.assert_close(folded.encode_image(images), trained.encode_image(images), atol=1e-5, rtol=0)
        torch.testing.assert_close(folded.encode_text(tokens), trained.encode_text(tokens), atol=1e-5, rtol=0)


def test_the_loss_is_the_formula_written_out_pair_by_pair():
    torch.manual_seed(0)
    logits = torch.randn(4, 3, dtype=torch.float64)
    true = torch.tensor([[1, 0, 1], [1, 0, 0], [0, 1, 0], [0, 1, 1]]).bool()
    own = torch.tensor([0, 0, 1, 2])
    to_text, to_image = [], []
    for b in range(4):
        false = [logits[b, u].exp() for u in range(3) if not true[b, u]]
        to_text.append(-(logits[b, own[b]].exp() / (logits[b, own[b]].exp() + sum(false))).log())
    for u in range(3):
        false = [logits[b, u].exp() for b in range(4) if not true[b, u]]
        terms = [-(logits[b, u].exp() / (logits[b, u].exp() + sum(false))).log() for b in range(4) if true[b, u]]
        to_image.append(sum(terms) / len(terms))
    expected = (sum(to_text) / 4 + sum(to_image) / 3) / 2
    torch.testing.assert_close(training.contrastive_loss(logits, true, own), expected)


def test_with_one_caption_per_image_the_loss_is_clips():
    torch.manual_seed(0)
    logits, target = torch.randn(5, 5), torch.arange(5)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(training.contrastive_loss(logits, torch.eye(5).bool(), target), expected)


def test_orthogonalise_brings_all_singular_values_near_one():
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(2, 16, 64)))
    assert values.min() > 0.5 and values.max() < 1.5


def test_muon_steps_query_key_and_value_matrices_apart():
    torch.manual_seed(0)
    joined = torch.nn.Parameter(torch.randn(24, 8))
    apart = [torch.nn.Parameter(piece.clone()) for piece in joined.detach().view(3, 8, 8)]
    start = joined.detach().square().sum()
    for parameters in ([joined], apart):
        optimiser = Muon(parameters, lr=0.1)
        for _ in range(10):
            optimiser.zero_grad()
            sum(p.square().sum() for p in parameters).backward()
            optimiser.step()
    torch.testing.assert_close(joined.detach(), torch.cat(apart).detach())
    assert joined.detach().square().sum() < 0.8 * start


def test_every_caption_is_true_of_its_own_image():
    rng = np.random.RandomState(0)
    attributes = np.full((60, len(ATTRIBUTES)), ABSENT)
    attributes[:30, 0], attributes[:30, 1] = rng.randint(26, size=30), rng.randint(4, size=30)
    for column, name in list(enumerate(ATTRIBUTES))[2:]:
        attributes[30:, column] = rng.randint(len(ATTRIBUTES[name]), size=30)
    captions, stated, own = describe(rng, attributes)
    assert len(captions) == len(set(captions)) == len(stated)
    assert is_true(stated, attributes)[np.arange(60), own].all()
    for caption, said in zip(captions, stated, strict=True):
        for column in (2, 3, 4):
            word = list(ATTRIBUTES.values())[column][said[column]]
            assert said[column] == UNSAID or word in caption


def test_a_batch_depends_on_seed_and_step_alone_and_never_shows_held_out_combinations(vocabulary):
    data, again = (training.Rendered(vocabulary, steps=50, batch=16, seed=3) for _ in range(2))
    other = training.Rendered(vocabulary, steps=50, batch=16, seed=4)
    data[0]
    one, two = data[7], again[7]
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["images"], other[7]["images"])
    held_out = set(held_out_combinations())
    assert len(held_out) == 16
    shown = {tuple(row) for step in range(50) for row in data[step]["attributes"][8:, 2:5].tolist()}
    assert len(shown) > 100 and not shown & held_out


@pytest.fixture
def few_images(monkeypatch):
    """Drawing and measuring thousands of images for a three-step model would take most of the time."""
    monkeypatch.setattr(measure, "digit_splits", lambda: {name: index[:20] for name, index in digit_splits().items()})
    monkeypatch.setattr(measure, "SHAPES_PER_CLASS", {"train": 1, "val": 1, "test": 1})
    monkeypatch.setattr(measure, "_shapes", lambda shift: np.zeros((48, 3, 32, 32, 3), np.uint8))


def test_same_command_same_weights_and_a_file_that_can_be_measured_again(tmp_path, few_images):
    files = []
    for name, workers in (("a", "0"), ("b", "1")):
        out = tmp_path / name
        assert pretrain_tiny.cli(["--out", str(out), *THREE_STEPS, "--every", "3", "--workers", workers]) == 0
        files.append(load_file(out.with_suffix(".safetensors")))
        record = json.loads(out.with_suffix(".json").read_text())
        assert record["settings"]["steps"] == 3 and 0 <= record["zero_shot"]["digits_test"] <= 100
        assert len(out.with_name(f"{name}_log.csv").read_text().splitlines()) == 2
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(value, files[1][key]) for key, value in files[0].items())
    assert pretrain_tiny.cli(["--out", str(out), "--measure-only"]) == 0
    assert json.loads(out.with_suffix(".json").read_text()) == record


def test_a_training_that_is_cut_off_leaves_the_weights_that_were_there(tmp_path, few_images, monkeypatch, capsys):
    for ending in (".safetensors", ".json", "_log.csv"):
        (tmp_path / f"mine{ending}").write_text("of before")
    measured = []

    def interrupt_after_one(model, *args, **kwargs):
        if measured:
            raise KeyboardInterrupt
        measured.append(model)
        return dict.fromkeys(training.COLUMNS, 0.0)

    monkeypatch.setattr(training, "measure", interrupt_after_one)
    words = ["--out", str(tmp_path / "mine"), *THREE_STEPS, "--every", "1", "--workers", "0"]
    assert pretrain_tiny.cli(words) == 130 and len(measured) == 1
    assert "mine is as it was before" in capsys.readouterr().err
    assert {path.read_text() for path in tmp_path.iterdir()} == {"of before"} and len(list(tmp_path.iterdir())) == 3


def test_the_shipped_weights_are_replaced_only_when_named(capsys):
    with pytest.raises(SystemExit):
        pretrain_tiny.cli(["--steps", "1"])
    assert "--out" in capsys.readouterr().err


def test_measuring_what_was_never_trained_is_one_paragraph(tmp_path, capsys):
    assert pretrain_tiny.cli(["--out", str(tmp_path / "none"), "--measure-only"]) == 2
    assert f"there is no {tmp_path / 'none.safetensors'}" in capsys.readouterr().err


def test_the_committed_weights_are_small_complete_and_halves(vocabulary):
    path = ROOT / "clip" / "tiny.safetensors"
    assert path.stat().st_size <= 4e6
    with safe_open(path, "pt") as file:
        keys = set(file.keys())
        assert {"visual.conv1.weight", "visual.transformer.resblocks.3.attn.in_proj_weight", "visual.proj"} <= keys
        assert {"transformer.resblocks.1.mlp.c_fc.weight", "text_projection", "logit_scale", "ln_final.bias"} <= keys
        assert file.get_tensor("positional_embedding").shape == (77, 128)
        ids = file.get_tensor("token_embedding.ids")
        assert file.get_tensor("token_embedding.rows").shape == (len(ids), 128)
        assert ids.tolist() == vocabulary.ids.tolist()
        halves = [key for key in keys if file.get_tensor(key).dtype == torch.float16]
        assert len(halves) == len(keys) - 1
        assert all(torch.isfinite(file.get_tensor(key)).all() for key in halves)
        words = json.loads(file.metadata()["vocabulary"])
        assert {"zero", "nine", "red", "striped", "circle", "photo"} <= set(words)
        assert float(file.metadata()["row_std"]) > 0
