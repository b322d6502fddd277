"""The joint model: what is learned, what is saved under which name, and when text is encoded again."""
import pytest
import torch

from clip import InputError, encode_texts
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.text_prompt import TextPrompt
from trainers.parts.visual_prompt import VisualPrompt

NAMES = ["cat", "dog", "bird"]


def test_only_prompts_receive_gradients_and_only_they_are_in_the_prompt_learner(tiny_clip):
    model = PromptedModel(tiny_clip, text=TextPrompt(tiny_clip, NAMES, 4), visual=VisualPrompt(tiny_clip, 2))
    model(torch.randn(2, 3, 32, 32)).logits.sum().backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {"prompt_learner.text.ctx", "prompt_learner.visual.tokens"}
    assert set(model.prompt_learner.state_dict()) == {"text.ctx", "visual.tokens"}


def test_checkpoints_use_the_authors_names_and_leave_fixed_words_aside(tiny_clip):
    names = {"text.ctx": "txt_ctx", "visual.tokens": ["image_encoder.VPT", "image_encoder.block.1.VPT"]}
    model = PromptedModel(tiny_clip, text=TextPrompt(tiny_clip, NAMES, 4), visual=VisualPrompt(tiny_clip, 2, depth=2),
                         saved_as=names)
    saved = model.prompt_learner.state_dict()
    assert {k: tuple(v.shape) for k, v in saved.items()} == {
        "txt_ctx": (4, 64), "image_encoder.VPT": (2, 64), "image_encoder.block.1.VPT": (2, 64)}
    theirs = {k: torch.randn_like(v) for k, v in saved.items()}
    fixed_words = {"token_prefix": torch.zeros(3, 1, 64), "token_suffix": torch.zeros(9)}
    model.prompt_learner.load_state_dict({**theirs, **fixed_words})
    assert torch.equal(model.prompt_learner["text"].ctx, theirs["txt_ctx"])
    assert torch.equal(model.prompt_learner["visual"].tokens[1], theirs["image_encoder.block.1.VPT"])
    with pytest.raises(RuntimeError, match="text.ctx"):
        model.prompt_learner.load_state_dict({"token_prefix": torch.zeros(3, 1, 64)})


def test_text_is_encoded_once_per_evaluation_and_again_after_a_change(tiny_clip, monkeypatch):
    model = PromptedModel(tiny_clip, text=TextPrompt(tiny_clip, NAMES, 4)).eval()
    calls, encode = [], type(tiny_clip).encode_text
    monkeypatch.setattr(type(tiny_clip), "encode_text", lambda *a, **k: calls.append(1) or encode(*a, **k))
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        before = [model(images).logits for _ in range(3)]
        assert len(calls) == 1
        model.prompt_learner["text"].ctx.mul_(torch.linspace(-9, 9, 64))
        after = model(images).logits
        assert len(calls) == 2 and not torch.allclose(before[0], after)
        model.prompt_learner.load_state_dict(model.prompt_learner.state_dict())
        assert torch.equal(model(images).logits, after)
    model(images)
    assert len(calls) == 4


def test_a_head_that_compares_with_texts_needs_some(tiny_clip):
    with pytest.raises(InputError, match="CosineHead"):
        PromptedModel(tiny_clip)
    model = PromptedModel(tiny_clip, text=encode_texts(tiny_clip, NAMES))
    assert model(torch.randn(2, 3, 32, 32)).logits.shape == (2, 3)
