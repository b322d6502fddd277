"""TCP against the authors' steps, and its class-aware words where the authors' code has constants."""
from types import SimpleNamespace

import pytest
import torch

from clip import FrozenCLIP, InputError, TextTokens, tokenize
from dassl.config import CfgNode
from dassl.utils import UserError
from tests.parts.five_steps import assert_near, follow
from trainers.cocoop import CoCoOp
from trainers.parts.class_prompt import ClassPrompt
from trainers.parts.classes import Classes
from trainers.tcp import TCP

NAMES = ["cat", "yorkshire_terrier", "737-200"]


def options(**changes):
    return CfgNode({"N_CTX": 4, "CTX_INIT": "", "PROMPT": "", "TEMPLATE": "", "BLOCK": 1, "W": 8.0, "PREC": "fp32",
                    **changes})


def test_five_steps_are_the_authors(golden):
    from random_clip import state_dict

    theirs = golden("tcp")
    clip = FrozenCLIP.from_state_dict(state_dict(theirs.json("clip")))
    c = options(CTX_INIT="a photo of a", PROMPT="X X X X {}, a type of pet.", BLOCK=8,
                TEMPLATE="a photo of a {}, a type of pet.")
    torch.manual_seed(1)
    model = TCP.build(clip, Classes(theirs.classnames), c)
    assert torch.equal(model.brick("text").ctx, theirs.tensor("seed1_init/prompt_learner.ctx"))
    words = model.brick("text_tuner")
    assert_near(words.teacher, theirs.tensor("ori_text_features"))
    trainer = SimpleNamespace(options=c, model=model)

    def loss(out, images, labels):
        return sum(TCP.loss(trainer, out, {"label": labels}).values())

    follow(model, theirs, loss)


def literal_text_features(clip, model, sentences, n, block):
    """77 tokens, one class after the other."""
    words, features = model.brick("text_tuner"), []
    for c, sentence in enumerate(sentences):
        ids = tokenize(sentence)
        x = clip.embed_tokens(ids)[0]
        x = torch.cat([x[:1], model.brick("text").ctx, x[1 + n:]]) + clip.positional_embedding
        hidden = words.linear1.weight @ words.teacher[c] + words.linear1.bias
        hidden = hidden * torch.sigmoid(1.702 * hidden)
        own = (words.linear2.weight @ hidden + words.linear2.bias).reshape(n, -1)
        for i, layer in enumerate(clip.transformer.resblocks):
            x = torch.cat([x[:1], own, x[1 + n:]]) if i == block else x
            x = layer(x[None], causal=True)[0]
        feature = clip.ln_final(x)[ids.argmax()] @ clip.text_projection
        features.append(feature / feature.norm())
    return torch.stack(features)


@pytest.mark.parametrize(("prompt", "block", "max_tokens"), [
    ("X X X X {} texture.", 0, 0), ("a photo of a person doing {}.", 2, 0), ("X X X X {}, a type of car", 1, 20)])
def test_text_features_and_gradients_are_those_of_the_description(tiny_clip, monkeypatch, prompt, block, max_tokens):
    monkeypatch.setattr(tiny_clip, "max_tokens", max_tokens)
    torch.manual_seed(0)
    model = TCP.build(tiny_clip, Classes(NAMES), options(PROMPT=prompt, BLOCK=block))
    with torch.no_grad():
        model.brick("text").ctx.normal_()
    sentences = [prompt.replace("{}", name.replace("_", " ")) for name in NAMES]
    theirs = literal_text_features(tiny_clip, model, sentences, 4, block)
    ours, parameters = model.text_features(), list(model.prompt_learner.parameters())
    assert_near(ours.detach(), theirs.detach())
    weight = torch.randn_like(theirs)
    for a, b in zip(*(torch.autograd.grad((x * weight).sum(), parameters) for x in (ours, theirs)), strict=True):
        assert_near(a, b, 2e-5)


def test_the_context_starts_from_random_values_or_from_words(tiny_clip):
    torch.manual_seed(5)
    ctx = TCP.build(tiny_clip, Classes(NAMES), options(PROMPT="a photo of a {}.")).brick("text").ctx
    torch.manual_seed(5)
    assert torch.equal(ctx, torch.nn.init.normal_(torch.empty(4, 64), std=0.02))
    ctx = TCP.build(tiny_clip, Classes(NAMES), options(CTX_INIT="an image of the")).brick("text").ctx
    assert torch.equal(ctx, tiny_clip.embed_tokens(tokenize("an image of the"))[0, 1:5])


def test_new_classes_get_words_of_their_own_from_what_was_learned(tiny_clip):
    model, other = (TCP.build(tiny_clip, Classes(names), options()) for names in (NAMES, [*NAMES[::-1], "dog"]))
    other.prompt_learner.load_state_dict(model.prompt_learner.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(other.text_features()[:3].flip(0), model.text_features())
        assert other.text_features().shape == (4, 32)


def test_the_authors_checkpoint_is_read(tiny_clip):
    model = TCP.build(tiny_clip, Classes(NAMES), options())
    theirs = {"ctx": torch.randn(4, 64),
              "token_prefix": torch.zeros(19, 1, 64), "token_suffix": torch.zeros(19, 72, 64),
              "meta_net.linear1.weight": torch.randn(8, 32), "meta_net.linear1.bias": torch.randn(8),
              "meta_net.linear2.weight": torch.randn(256, 8), "meta_net.linear2.bias": torch.randn(256)}
    model.prompt_learner.load_state_dict(dict(theirs))
    saved = model.prompt_learner.state_dict()
    assert saved.keys() == {name for name in theirs if not name.startswith("token")}
    assert all(torch.equal(value, theirs[name]) for name, value in saved.items())


def test_its_checkpoint_and_that_of_a_meta_network_are_told_apart(tiny_clip):
    theirs = TCP.build(tiny_clip, Classes(NAMES), options(N_CTX=3)).prompt_learner.state_dict()
    meta = CoCoOp.build(tiny_clip, Classes(NAMES), CfgNode({"N_CTX": 3, "CTX_INIT": ""})).prompt_learner.state_dict()
    assert theirs.keys() == meta.keys()
    assert TCP.options_of(theirs) == CoCoOp.options_of(meta) == {"N_CTX": 3}
    assert TCP.options_of(meta) is CoCoOp.options_of(theirs) is TCP.options_of({}) is None


@pytest.mark.parametrize(("changes", "message"), [
    ({"BLOCK": 3}, "blocks 0 to 2 of .*got 3"), ({"BLOCK": -1}, "got -1"), ({"CTX_INIT": "a photo"}, "4 tokens.*has 2"),
    ({"PROMPT": "a photo of {}."}, "learn 1 to 3 of its initial words 'a photo of', got 4"),
    ({"PROMPT": "X X X X"}, "one {}"), ({"TEMPLATE": "no name"}, "one {}")])
def test_what_the_tower_or_the_sentences_do_not_have_is_refused(tiny_clip, changes, message):
    with pytest.raises((InputError, UserError), match=message):
        TCP.build(tiny_clip, Classes(NAMES), options(**changes))


def test_a_teacher_of_other_classes_or_another_width_is_refused(tiny_clip):
    with pytest.raises(InputError, match=r"says 32 numbers .*got \(3, 16\)"):
        ClassPrompt(tiny_clip, torch.zeros(3, 16), 4, 0)
    words = ClassPrompt(tiny_clip, torch.zeros(2, 32), 4, 0)
    with pytest.raises(InputError, match="speaks of 2 classes, and the prompt of 3"):
        tiny_clip.encode_text(TextTokens(torch.zeros(3, 9, 64), torch.tensor([8, 8, 8])), words)
