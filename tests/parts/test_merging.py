"""What a method learned as weights of the towers, merged: a plain CLIP that open_clip loads, with the same logits."""
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

from clip import FrozenCLIP, InputError, encode_texts, tokenize
from clip.weights import load_file
from dassl.config import CfgNode
from trainers.bitfit import BitFit
from trainers.clip_lora import CLIPLoRA
from trainers.coop import CoOp
from trainers.parts.classes import Classes
from trainers.parts.merging import merged_weights

NAMES, SENTENCE = ["cat", "big dog", "737-200"], "a photo of a {}."
LORA = {"ENCODER": "both", "POSITION": "all", "PROJECTIONS": "qkvo", "RANK": 2, "ALPHA": 1.0, "DROPOUT": 0.0,
        "TEMPLATE": SENTENCE}


@pytest.fixture
def learned(tiny_clip_weights):
    """learned(method, options) -> a model all of whose learned numbers were moved."""
    def build(method, options):
        torch.manual_seed(0)
        clip = FrozenCLIP.from_state_dict(tiny_clip_weights)
        model = method.build(clip, Classes(NAMES), CfgNode(options)).eval()
        with torch.no_grad():
            for parameter in model.prompt_learner.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        return model

    return build


@pytest.mark.parametrize(("method", "options"), [(CLIPLoRA, LORA), (BitFit, {"ENCODER": "both", "TEMPLATE": SENTENCE})])
def test_a_merged_file_gives_the_same_logits_here_and_in_open_clip(learned, tmp_path, method, options):
    model, images = learned(method, options), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        wanted = model(images).logits
    before = {name: value.clone() for name, value in model.clip.state_dict().items()}
    torch.save(merged_weights(model), tmp_path / "merged.pt")
    assert all(torch.equal(value, before[name]) for name, value in model.clip.state_dict().items())
    sentences = [SENTENCE.format(name) for name in NAMES]
    with torch.no_grad():
        plain = load_file(tmp_path / "merged.pt")
        ours = plain.scale * plain.encode_image(images) @ encode_texts(plain, sentences).t()
        theirs = CLIP(32, CLIPVisionCfg(layers=3, width=64, head_width=64, patch_size=8, image_size=32),
                      CLIPTextCfg(context_length=77, vocab_size=49408, width=64, heads=1, layers=3), quick_gelu=True)
        theirs.load_state_dict(torch.load(tmp_path / "merged.pt", weights_only=True))
        theirs = theirs.eval()(images, tokenize(sentences))
        theirs = theirs[2] * theirs[0] @ theirs[1].t()
    for found in (ours, theirs):
        torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5 * float(wanted.abs().max()))


def test_learned_words_cannot_be_merged(learned):
    model = learned(CoOp, {"N_CTX": 2, "CSC": False, "CTX_INIT": "", "CLASS_TOKEN_POSITION": "end"})
    with pytest.raises(InputError, match="TextPrompt learned is not a weight"):
        merged_weights(model)
