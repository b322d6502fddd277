"""CoCoOp's one batch over images and classes against the paper's loop: image by image, 77 tokens for every class."""
from copy import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from clip import TextTokens, tokenize
from clip.packing import pack
from dassl.engine import build_trainer
from dassl.utils import UserError
from trainers.cocoop import CoCoOp
from trainers.parts.meta_net import ConditionalPrompt
from trainers.parts.prompted_model import PromptedModel

NAMES = ["cat", "yorkshire_terrier", "737-200", "a very long name of a class", "dog", "small bird"]
LEARNED = ("ctx", "meta_net.linear1.weight", "meta_net.linear1.bias", "meta_net.linear2.weight",
           "meta_net.linear2.bias")


def conditional(clip, names=NAMES, max_tokens=0, init="a photo of a"):
    torch.manual_seed(3)
    clip = copy(clip)                           # the same weights, a limit of its own
    clip.max_tokens = max_tokens
    model = PromptedModel(clip, text=ConditionalPrompt(clip, names, 4, init), saved_as=CoCoOp.saved_as)
    with torch.no_grad():                       # both units alive, so that every parameter has a gradient
        model.brick("text").meta_net.linear1.bias.fill_(0.5)
    return model


def slow_literal_logits(model, images, names=NAMES):
    """Image by image: the shifted words, written out for every class over the full 77 tokens."""
    clip, learner = model.clip, model.prompt_learner
    ctx, net = learner["text"].ctx, learner["text"].meta_net
    ids = torch.cat([tokenize(f"a photo of a {name.replace('_', ' ')}.") for name in names])          # (C, 77)
    words, rows = clip.embed_tokens(ids), []
    for image in images:
        feature = clip.encode_image(image[None])[0]
        hidden = torch.relu(net.linear1.weight @ feature + net.linear1.bias)
        shifted = ctx + net.linear2.weight @ hidden + net.linear2.bias
        prompts = torch.stack([torch.cat([w[:1], shifted, w[1 + len(ctx):]]) for w in words])           # (C, 77, W)
        text = clip.encode_text(TextTokens(prompts, ids.argmax(-1)))
        rows.append(clip.scale * text @ feature)
    return torch.stack(rows)


def loss_and_gradients(logits, model):
    loss = F.cross_entropy(logits, torch.arange(len(logits)) % logits.shape[1])
    return loss.detach(), dict(zip(LEARNED, torch.autograd.grad(loss, list(model.prompt_learner.parameters()))))


def assert_same(ours, theirs, tolerance=1e-5):
    """Relative to the largest entry of each tensor."""
    torch.testing.assert_close(ours[0], theirs[0], rtol=tolerance, atol=0)
    for name, gradient in theirs[1].items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(ours[1][name], gradient, rtol=0, atol=tolerance * float(gradient.abs().max()))


@pytest.mark.parametrize(("B", "max_tokens"), [                 # all at once; images, classes, single classes in pieces
    (1, 0), (3, 0), (3, 70), (8, 20), (3, 1)])
def test_loss_and_gradients_are_those_of_the_loop_over_images(tiny_clip, B, max_tokens):
    model, images = conditional(tiny_clip, max_tokens=max_tokens), torch.randn(B, 3, 32, 32)
    out = model(images)
    assert out.text_features.shape == (B, len(NAMES), tiny_clip.embed_dim)
    assert_same(loss_and_gradients(out.logits, model),
                loss_and_gradients(slow_literal_logits(model, images), model))


@pytest.mark.parametrize("max_tokens", [100, 33, 5])
def test_pieces_change_nothing(tiny_clip, max_tokens):
    whole, pieces = conditional(tiny_clip), conditional(tiny_clip, max_tokens=max_tokens)
    images = torch.randn(5, 3, 32, 32)
    torch.testing.assert_close(pieces(images).logits, whole(images).logits, rtol=1e-6, atol=1e-5)
    assert_same(loss_and_gradients(pieces(images).logits, pieces),
                loss_and_gradients(whole(images).logits, whole), 2e-6)


@settings(deadline=None, max_examples=50)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12), B=st.integers(1, 4), p=st.integers(1, 5),
       budget=st.integers(1, 120))
def test_every_prefix_meets_every_sequence_once_and_the_budget_holds(lengths, B, p, budget):
    N = len(lengths)
    tokens = TextTokens(torch.arange(N).view(N, 1, 1).expand(N, 9, 1), torch.tensor(lengths) - 1,
                        torch.arange(B).view(B, 1, 1).expand(B, p, 1))
    met = []
    for row in tokens.pieces(budget):
        for _, piece in row:
            met += [(int(b), int(n)) for b in piece.prefix[:, 0, 0] for n in piece.embeddings[:, 0, 0]]
            used = len(piece.prefix) * (p + int((piece.eot + 1).sum()))
            assert used <= budget or len(piece.prefix) == len(piece) == 1
    assert sorted(met) == [(b, n) for b in range(B) for n in range(N)]


@settings(deadline=None, max_examples=50)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=60), row_length=st.integers(8, 64))
def test_packed_tokens_see_their_own_past_only_and_rows_are_nearly_full(lengths, row_length):
    at = pack(tuple(lengths), "cpu", row_length)
    R, L, _ = at.mask.shape
    sequence, token = at.sequence.tolist(), at.token.tolist()
    for n, length in enumerate(lengths):
        end = int(at.last[n])
        assert sequence[end - length + 1:end + 1] == [n] * length
        assert token[end - length + 1:end + 1] == list(range(length))
        row, first = divmod(end - length + 1, L)
        for t in range(length):
            assert at.mask[row, first + t].nonzero().flatten().tolist() == list(range(first, first + t + 1))
    assert R * L - sum(lengths) < R * max(lengths)


def test_no_gradient_flows_below_the_image_features_and_none_into_the_towers(tiny_clip):
    model = conditional(tiny_clip)
    images = torch.randn(2, 3, 32, 32)
    out = model(images)
    assert not out.image_features.requires_grad
    out.logits.sum().backward()
    learned = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learned == {f"prompt_learner.text.{name}" for name in LEARNED}


def test_a_learned_prompt_serves_other_class_names(tiny_clip):
    learned, names = conditional(tiny_clip).prompt_learner.state_dict(), ["sea", "a long river", "forest"]
    other = conditional(tiny_clip, names, init="")
    other.prompt_learner.load_state_dict(learned)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(other(images).logits, slow_literal_logits(other, images, names), atol=1e-4, rtol=1e-5)


def test_the_authors_checkpoints_are_read_and_written(make_cfg, tmp_path):
    theirs = {"ctx": torch.randn(4, 64), "token_prefix": torch.zeros(9, 1, 64), "token_suffix": torch.zeros(9, 72, 64),
              "meta_net.linear1.weight": torch.randn(2, 32).half(), "meta_net.linear1.bias": torch.randn(2).half(),
              "meta_net.linear2.weight": torch.randn(64, 2).half(), "meta_net.linear2.bias": torch.randn(64).half()}
    (tmp_path / "theirs" / "prompt_learner").mkdir(parents=True)
    torch.save({"state_dict": theirs, "epoch": 10, "optimizer": None, "scheduler": None, "val_result": None},
               tmp_path / "theirs" / "prompt_learner" / "model.pth.tar-10")
    trainer = build_trainer(make_cfg("CoCoOp"))
    trainer.load_model(str(tmp_path / "theirs"), epoch=10)
    trainer.save_model(0, str(tmp_path / "ours"))
    ours = torch.load(tmp_path / "ours" / "prompt_learner" / "model.pth.tar-1", weights_only=True)["state_dict"]
    assert set(ours) == set(LEARNED)
    assert all(torch.equal(value, theirs[name].float()) for name, value in ours.items())


def test_a_negative_budget_is_refused_with_its_rule(make_cfg):
    with pytest.raises(UserError, match="TRAIN.MAX_TOKENS.*got -1"):
        build_trainer(make_cfg("CoCoOp", "TRAIN.MAX_TOKENS", -1))
