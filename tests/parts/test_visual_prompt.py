"""Visual prompts against slow literal readings of VPT in MaPLe's and DAPT's placement."""
import math

import pytest
import torch
import torch.nn.functional as F

from clip import InputError
from trainers.parts.visual_prompt import VisualPrompt


def slow_literal_features(clip, images, tokens, placement):
    """One image at a time, every token through every block, prompts placed by list operations."""
    tower, features = clip.visual, []
    for image in images:
        patches = tower.conv1(image[None])[0].flatten(1).T
        x = torch.cat([tower.class_embedding[None], patches]) + tower.positional_embedding          # (1+P, W)
        P = len(x)
        if placement == "end":
            x = tower.ln_pre(torch.cat([x, tokens[0]]))
        else:
            x = tower.ln_pre(x)
            x = torch.cat([x[:1], tokens[0], x[1:]])
        for i, block in enumerate(tower.transformer.resblocks):
            if 0 < i < len(tokens):
                n = tokens.shape[1]
                x = torch.cat([x[:P], tokens[i]]) if placement == "end" else torch.cat([x[:1], tokens[i], x[1 + n:]])
            x = block(x[None])[0]
        features.append(tower.ln_post(x[0]) @ tower.proj)
    return F.normalize(torch.stack(features), dim=-1)


@pytest.mark.parametrize("placement", ["after_cls", "end"])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 5])
def test_tokens_enter_where_the_papers_put_them(tiny_clip, placement, depth, n):
    torch.manual_seed(depth)
    prompt, images = VisualPrompt(tiny_clip, n, depth, placement=placement), torch.randn(3, 3, 32, 32)
    ours = tiny_clip.encode_image(images, prompt)
    theirs = slow_literal_features(tiny_clip, images, prompt.tokens, placement)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    weight = torch.randn_like(ours)
    for a, b in zip(torch.autograd.grad((ours * weight).sum(), prompt.tokens),
                    torch.autograd.grad((theirs * weight).sum(), prompt.tokens)):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)


def test_initial_tokens_follow_each_papers_distribution(tiny_clip):
    bound = math.sqrt(6 / (3 * 8 * 8 + 64))
    uniform = VisualPrompt(tiny_clip, 200, placement="after_cls").tokens
    assert uniform.abs().max() <= bound and abs(uniform.std() - bound / math.sqrt(3)) < 0.01
    normal = VisualPrompt(tiny_clip, 200, placement="end").tokens
    assert abs(normal.std() - 0.02) < 0.001


def test_dropout_acts_in_training_only(tiny_clip):
    prompt, images = VisualPrompt(tiny_clip, 4, dropout=0.5), torch.randn(1, 3, 32, 32)
    trained = [tiny_clip.encode_image(images, prompt) for _ in range(2)]
    prompt.eval()
    tested = [tiny_clip.encode_image(images, prompt) for _ in range(2)]
    assert not torch.equal(*trained) and torch.equal(*tested)


@pytest.mark.parametrize("kwargs, message", [
    (dict(n_tokens=2, depth=4), "1 to 3 blocks .* got 4"),
    (dict(n_tokens=2, depth=0), "1 to 3 blocks .* got 0"),
    (dict(n_tokens=0), "1 to 1024 tokens, got 0"),
    (dict(n_tokens=2, placement="left"), "after_cls or end, got 'left'"),
])
def test_an_impossible_prompt_is_refused_with_its_rule(tiny_clip, kwargs, message):
    with pytest.raises(InputError, match=message):
        VisualPrompt(tiny_clip, **kwargs)
