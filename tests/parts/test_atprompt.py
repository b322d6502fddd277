"""ATPrompt against a slow literal reading of its description."""
import pytest
import torch
import torch.nn.functional as F

from clip import InputError, tokenize
from dassl.config import CfgNode
from trainers.atprompt import ATPrompt
from trainers.parts.attribute_prompt import AttributePrompt
from trainers.parts.classes import Classes

NAMES = ["cat", "yorkshire_terrier", "737-200"]


def build(clip, attributes=("color", "shape"), n_att=2, n_ctx=3, whole_words=False, depth=0):
    torch.manual_seed(4)
    options = CfgNode({"ATTRIBUTES": list(attributes), "N_ATT": n_att, "N_CTX": n_ctx, "WHOLE_WORDS": whole_words,
                       "PROMPT_DEPTH": depth})
    return ATPrompt.build(clip, Classes(NAMES), options)


def token(clip, word):
    ids = clip.tokenizer.encode(word)
    return [clip.token_embedding.weight[i] for i in ids]


def literal_text_features(clip, sequences, deep=(), first=0):
    """Each sequence as it is, one block after the other; `deep` take the context's places, from `first` on."""
    found = []
    for words in sequences:
        x = torch.stack(words) + clip.positional_embedding[:len(words)]
        for i, block in enumerate(clip.transformer.resblocks):
            if 1 <= i <= len(deep):
                x = torch.cat([x[:first], deep[i - 1], x[first + len(deep[i - 1]):]])
            x = block(x[None], causal=True)[0]
        found.append(clip.ln_final(x[-1]) @ clip.text_projection)
    return F.normalize(torch.stack(found), dim=-1)


@pytest.mark.parametrize(("attributes", "whole_words"), [
    (["luxury"], False), (["color", "shape"], False), (["color", "habitat", "growth"], True),
    (["playfulness", "energy"], False), (["playfulness", "energy"], True)])
def test_prompts_are_those_of_the_description(tiny_clip, attributes, whole_words):
    model = build(tiny_clip, attributes, whole_words=whole_words)
    text = model.brick("text")
    with torch.no_grad():
        text.ctx.normal_()
        text.soft.normal_()
    start, *_, end = tokenize("cat.")[0][:4]
    start, end = (tiny_clip.token_embedding.weight[i] for i in (start, end))
    assert torch.equal(end, tiny_clip.token_embedding.weight[49407])
    (X,) = token(tiny_clip, "X")
    before = [start]
    if attributes[0] == "playfulness" and not whole_words:                  # two tokens where the code counts one
        before += [*text.soft[0], token(tiny_clip, "playfulness")[0], *text.soft[1], X, *text.ctx, X]
    else:
        for soft, word in zip(text.soft, attributes, strict=True):
            before += [*soft, *token(tiny_clip, word)]
        before += [*text.ctx]
    sequences = [[*before, *token(tiny_clip, name.replace("_", " ")), *token(tiny_clip, "."), end] for name in NAMES]
    theirs = literal_text_features(tiny_clip, sequences)
    ours = model.text_features()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    weight, learned = torch.randn_like(theirs), [text.ctx, text.soft]
    for a, b in zip(*(torch.autograd.grad((x * weight).sum(), learned) for x in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5 * float(b.abs().max()))


def test_on_maple_deeper_blocks_exchange_the_context_alone_in_both_towers(tiny_clip):
    model = build(tiny_clip, ["color", "shape"], n_att=3, depth=3)
    text, deep = model.brick("text"), model.brick("text_tuner").tokens
    with torch.no_grad():
        for parameter in model.prompt_learner.parameters():
            parameter.normal_(std=0.3)
    whole = text().whole()
    end = [tuple(x[:n + 1]) for x, n in zip(whole.embeddings, whole.eot.tolist(), strict=True)]
    theirs = literal_text_features(tiny_clip, end, deep, first=1 + 2 * (3 + 1))
    torch.testing.assert_close(model.text_features(), theirs, rtol=0, atol=1e-5)
    assert not torch.allclose(theirs, literal_text_features(tiny_clip, end), atol=1e-3)
    visual = model.brick("visual")
    torch.testing.assert_close(visual.tokens(0), visual.proj(text.ctx))
    torch.testing.assert_close(visual.tokens(2), visual.deeper[1](deep[1]))
    saved = model.prompt_learner.state_dict()
    assert {"ctx", "ctx_att1", "ctx_att2", "proj.bias", "compound_prompts_text.1"} <= saved.keys()
    assert ATPrompt.options_of(saved) == {"N_CTX": 3, "N_ATT": 3, "PROMPT_DEPTH": 3}
    with pytest.raises(InputError, match="1 to 3 blocks of both towers.*got 4"):
        build(tiny_clip, depth=4)


def test_everything_before_the_name_is_one_shared_prefix_drawn_in_the_published_order(tiny_clip):
    text = build(tiny_clip).brick("text")
    torch.manual_seed(4)
    ctx = torch.nn.init.normal_(torch.empty(3, 64), std=0.02)
    soft = [torch.nn.init.normal_(torch.empty(2, 64), std=0.01) for _ in range(2)]
    assert torch.equal(text.ctx, ctx) and all(map(torch.equal, text.soft, soft))
    tokens = text()
    assert tokens.prefix.shape == (1 + 3 + 3 + 3, 64) and torch.equal(tokens.prefix[-3:], text.ctx)


def test_the_authors_checkpoint_is_read_with_the_words_that_nothing_uses(tiny_clip):
    model = build(tiny_clip)
    theirs = {"ctx": torch.randn(3, 64), **{f"ctx_att{i}": torch.randn(2, 64) for i in (1, 2, 3)}}
    fixed = {"token_prefix": torch.zeros(3, 1, 64), "token_middle1": torch.zeros(3, 1, 64)}
    model.prompt_learner.load_state_dict(theirs | fixed)
    assert torch.equal(model.brick("text").soft[1], theirs["ctx_att2"])
    assert set(model.prompt_learner.state_dict()) == {"ctx", "ctx_att1", "ctx_att2"}
    assert ATPrompt.options_of(theirs | {"token_middle1": fixed["token_middle1"]}) == {"N_CTX": 3, "N_ATT": 2,
                                                                                          "PROMPT_DEPTH": 0}
    assert ATPrompt.options_of({"ctx": theirs["ctx"]}) is ATPrompt.options_of(theirs | {"w": theirs["ctx"]}) is None


@pytest.mark.parametrize(("args", "message"), [
    (([], 2, 2), r"at least one attribute.*got \[\]"), ((["color", " "], 2, 2), "each a word"),
    (([1], 2, 2), r"each a word, got \[1\]"),
    ((["color"], 0, 2), "got 0 and 2"), ((["color"], 2, 0), "got 2 and 0"), ((["color"], 2, 75), "at most 77 tokens")])
def test_what_is_no_prompt_is_refused(tiny_clip, args, message):
    with pytest.raises(InputError, match=message):
        AttributePrompt(tiny_clip, NAMES, *args)
