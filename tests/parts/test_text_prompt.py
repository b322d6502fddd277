"""Text prompts against a slow literal reading of CoOp's description: words in order, one class at a time."""
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clip import InputError, TextTokens, tokenize
from clip.tokenizer import encode
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.text_prompt import POSITIONS, TextPrompt

NAMES = ["cat", "yorkshire_terrier", "737-200", "a very long name of a class"]


def slow_literal_features(clip, prompt, names, position):
    """CoOp's prompts, written class by class over the full 77 tokens."""
    rows, ends = [], []
    for c, name in enumerate(names):
        name = name.replace("_", " ")
        ctx = prompt.ctx[c] if prompt.class_specific else prompt.ctx
        n, k = len(ctx), len(encode(name))
        ids = tokenize(" ".join(["X"] * n) + " " + name + ".")[0]
        words = clip.embed_tokens(ids)
        start, cls, rest = words[:1], words[1 + n:1 + n + k], words[1 + n + k:]
        order = {"end": [start, ctx, cls, rest], "middle": [start, ctx[:n // 2], cls, ctx[n // 2:], rest],
                 "front": [start, cls, ctx, rest]}[position]
        rows.append(torch.cat(order))
        ends.append(int(ids.argmax()))
    return clip.encode_text(TextTokens(torch.stack(rows), torch.tensor(ends)))


@pytest.mark.parametrize("class_specific", [False, True])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("n_ctx", [1, 4, 5, 16])
def test_prompts_read_as_the_paper_writes_them(tiny_clip, position, class_specific, n_ctx):
    torch.manual_seed(n_ctx)
    prompt = TextPrompt(tiny_clip, NAMES, n_ctx, position=position, class_specific=class_specific)
    ours = tiny_clip.encode_text(prompt())
    theirs = slow_literal_features(tiny_clip, prompt, NAMES, position)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    weight = torch.randn_like(ours)
    for a, b in zip(torch.autograd.grad((ours * weight).sum(), prompt.ctx),
                    torch.autograd.grad((theirs * weight).sum(), prompt.ctx)):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_a_generic_context_before_the_name_is_one_shared_prefix(tiny_clip):
    assert TextPrompt(tiny_clip, NAMES, 16)().prefix.shape == (17, 64)
    assert TextPrompt(tiny_clip, NAMES, 16, position="middle")().prefix.shape == (9, 64)
    assert TextPrompt(tiny_clip, NAMES, 16, class_specific=True)().prefix is None


def test_a_context_starts_from_the_given_words(tiny_clip):
    prompt = TextPrompt(tiny_clip, NAMES, n_ctx=99, init="a_photo of a")
    words = tiny_clip.embed_tokens(tokenize("a photo of a"))[0, 1:5]
    assert torch.equal(prompt.ctx, words)
    specific = TextPrompt(tiny_clip, NAMES, init="a photo of a", class_specific=True)
    assert torch.equal(specific.ctx, words.expand(4, -1, -1))
    plain = tiny_clip.encode_text(prompt())
    from clip import encode_texts
    torch.testing.assert_close(plain, encode_texts(tiny_clip, [f"a photo of a {n.replace('_', ' ')}." for n in NAMES]),
                               atol=1e-5, rtol=1e-4)


def test_of_words_with_several_tokens_the_last_ones_stay_fixed(tiny_clip):
    prompt = TextPrompt(tiny_clip, NAMES, init="a type of pet, a photo of a")          # 8 words, 9 tokens
    sentences = torch.cat([tokenize(f"a type of pet, a photo of a {name.replace('_', ' ')}.") for name in NAMES])
    words = tiny_clip.embed_tokens(sentences)
    assert torch.equal(prompt.ctx, words[0, 1:9])
    with torch.no_grad():
        prompt.ctx.normal_()
        words[:, 1:9] = prompt.ctx                                                      # the last "a" stays
    theirs = tiny_clip.encode_text(TextTokens(words, sentences.argmax(dim=-1)))
    torch.testing.assert_close(tiny_clip.encode_text(prompt()), theirs, atol=1e-5, rtol=1e-4)
    for kwargs in (dict(position="middle"), dict(class_specific=True)):
        assert TextPrompt(tiny_clip, NAMES, init="a type of pet, a photo of a", **kwargs).n_ctx == 9


def test_a_random_context_is_small_normal_noise_from_the_global_stream(tiny_clip):
    torch.manual_seed(5)
    first = TextPrompt(tiny_clip, NAMES, 64).ctx
    torch.manual_seed(5)
    assert torch.equal(first, TextPrompt(tiny_clip, NAMES, 64).ctx)
    assert abs(first.std() - 0.02) < 0.001


@pytest.mark.parametrize("kwargs, message", [
    (dict(position="behind"), "got 'behind'"),
    (dict(n_ctx=0), "got 0"),
    (dict(n_ctx=75), "at most 77 tokens, 75 of them context.*too long"),
])
def test_an_impossible_prompt_is_refused_with_its_rule(tiny_clip, kwargs, message):
    with pytest.raises(InputError, match=message):
        TextPrompt(tiny_clip, NAMES, **kwargs)


@settings(deadline=None, max_examples=10)
@given(names=st.lists(st.sampled_from(NAMES + ["dog", "a b c"]), min_size=1, max_size=6))
def test_a_learned_context_serves_other_class_names(tiny_clip, names):
    learned = PromptedModel(tiny_clip, text=TextPrompt(tiny_clip, NAMES, 4)).prompt_learner.state_dict()
    other = PromptedModel(tiny_clip, text=TextPrompt(tiny_clip, names, 4))
    other.prompt_learner.load_state_dict(learned)
    assert set(learned) == {"text.ctx"} and torch.equal(other.prompt_learner["text"].ctx, learned["text.ctx"])
