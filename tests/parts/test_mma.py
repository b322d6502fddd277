"""MMA's adapters against the authors' numbers, and their two gradients against plain formulas."""
import pytest
import torch
import torch.nn.functional as F
from random_clip import state_dict

from clip import FrozenCLIP, InputError, TextTokens, embed_texts
from dassl.config import CfgNode
from tests.parts.five_steps import follow
from trainers.mma import MMA
from trainers.parts.classes import Classes
from trainers.parts.parallel_adapter import ParallelAdapter


def options(first=2, last=3, dim=16, scale=0.1):
    return CfgNode({"FIRST": first, "LAST": last, "DIM": dim, "SCALE": scale, "TEMPLATE": "a photo of a {}."})


def test_mma_takes_the_authors_steps(golden):
    theirs = golden("mma_scale01")
    clip = FrozenCLIP.from_state_dict(state_dict(theirs.json("clip")))
    names = {**MMA.build(clip, Classes(theirs.classnames), options()).prompt_learner.saved_as}
    follow(MMA.build(clip, Classes(theirs.classnames), options()), theirs,
           lambda out, images, labels: F.cross_entropy(out.logits, labels),
           names={own: f"adapter_learner.{saved}" for own, saved in names.items()})


def test_what_learns_gets_the_gradient_of_scale_one_and_what_lies_below_that_of_the_forward_pass(tiny_clip):
    scale, x, y = 0.25, torch.randn(2, 5, 64, requires_grad=True), torch.randn(2, 5, 64)
    adapter, weight = ParallelAdapter(tiny_clip, 2, 3, 4, scale), torch.randn(2, 5, 64)
    out = adapter.leave(1, x, y)
    (out * weight).sum().backward()
    own = tiny_clip.visual.transformer.resblocks[1].ln_1(x)
    layers = [adapter.down[0], adapter.shared[0], adapter.up[0]]
    plain = F.linear(F.relu(layers[1](F.relu(layers[0](own)))), layers[2].weight, layers[2].bias)
    torch.testing.assert_close(out, y + scale * plain)
    below, *learned = torch.autograd.grad((plain * weight).sum(), [x, *(layer.weight for layer in layers)])
    torch.testing.assert_close(x.grad, scale * below)
    for layer, gradient in zip(layers, learned, strict=True):
        torch.testing.assert_close(layer.weight.grad, gradient)
    assert adapter.leave(0, x, y) is y


def test_level_0_changes_the_words_before_their_positions_and_what_enters_the_first_block(tiny_clip):
    names, images = ["cat", "ice cream"], torch.randn(2, 3, 32, 32)
    model = MMA.build(tiny_clip, Classes(names), options(first=0, last=0)).eval()
    own, beside = model.brick("visual"), model.brick("text_tuner")

    def added(adapter, x):
        hidden = F.relu(own.shared[0](F.relu(adapter.down[0](x))))
        return x + 0.1 * adapter.up[0](hidden)

    plain = embed_texts(tiny_clip, [f"a photo of a {name}." for name in names])
    expected = tiny_clip.encode_text(TextTokens(added(beside, plain.embeddings), plain.eot))
    torch.testing.assert_close(model.text_features(), expected)

    class Entering:
        def enter(self, block, x):
            return added(own, x) if block == 0 else x

    torch.testing.assert_close(model.image_features(images), tiny_clip.encode_image(images, Entering()))


@pytest.mark.parametrize(("changes", "said"), [
    (dict(first=-1), "got -1 to 3"), (dict(last=4), "1 to 3 of both towers.*2 to 4"),
    (dict(first=3, last=2), "got 3 to 2"), (dict(dim=0), "at least 1 wide, got 0")])
def test_blocks_that_are_not_there_are_refused(tiny_clip, changes, said):
    with pytest.raises(InputError, match=said):
        MMA.build(tiny_clip, Classes(["cat"]), options(**changes))


def test_the_authors_file_says_how_it_was_made(tiny_clip):
    saved = MMA.build(tiny_clip, Classes(["cat"]), options(dim=8)).prompt_learner.state_dict()
    assert {"visual_adapter.2.down.0.weight", "shared_adapter.3.0.bias", "text_adapter.3.up.weight"} < saved.keys()
    assert MMA.options_of(saved) == {"FIRST": 2, "LAST": 3, "DIM": 8}
