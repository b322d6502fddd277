"""tools/merge.py: one plain CLIP file from a run, or a paragraph."""
import pytest
import torch

from clip import encode_texts
from clip.weights import load_file
from tools import merge
from tools.prediction.rebuild import from_run


@pytest.mark.parametrize("name", ["merged.safetensors", "merged.pt"])
def test_a_merged_run_answers_as_the_run(toy_run, tmp_path, capsys, name):
    run = toy_run("CLIPLoRA", "TRAINER.CLIPLORA.ITERATIONS", 0, "OPTIM.LR", 0.01)
    assert merge.cli([str(run), str(tmp_path / name)]) == 0
    classifier, plain = from_run(run, device="cpu", float32=True), load_file(tmp_path / name)
    images = torch.randn(3, 3, 32, 32)
    texts = encode_texts(plain, [f"a photo of a {name.replace('_', ' ')}." for name in classifier.classnames])
    with torch.no_grad():
        own = classifier.model(images).logits
        theirs = plain.scale * plain.encode_image(images) @ texts.t()
    torch.testing.assert_close(theirs, own, rtol=0, atol=2e-5 * float(own.abs().max()))
    assert merge.cli([str(run), str(tmp_path / name)]) == 2 and "exists" in capsys.readouterr().err


def test_learned_words_are_no_weights_of_the_towers(toy_run, tmp_path, capsys):
    assert merge.cli([str(toy_run("CoOp")), str(tmp_path / "merged.pt")]) == 2
    assert "cannot be merged" in capsys.readouterr().err and not (tmp_path / "merged.pt").exists()
