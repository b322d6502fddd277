"""Tokens equal OpenAI's, id for id."""
import pytest
import torch

from clip import InputError, tokenize


def test_tokens_equal_openais(golden):
    theirs = golden("tokens")
    assert torch.equal(tokenize(theirs.json("prompts")), theirs.tensor("tokens"))


def test_a_text_that_is_too_long_raises_or_is_cut_before_its_end(golden):
    theirs = golden("tokens")
    text = str(theirs.data["long_prompt"])
    with pytest.raises(InputError, match="too long for context length 77"):
        tokenize(text)
    with pytest.raises(InputError, match="Shorten") as caught:
        tokenize("very long " * 10_000)
    assert len(str(caught.value)) < 300
    assert torch.equal(tokenize(text, truncate=True)[0], theirs.tensor("long_truncated"))


def test_the_tokenizer_is_open_clips_read_with_or_without_its_package(monkeypatch):
    from open_clip.tokenizer import SimpleTokenizer

    import clip.tokenizer

    theirs, ours = SimpleTokenizer(), clip.tokenizer.simple_tokenizer()
    texts = ["A photo of a Boeing 737-800, &amp; it's  naïve!", "don't", "日本 2024", ""]
    assert ours.encoder == theirs.encoder and [ours.encode(t) for t in texts] == [theirs.encode(t) for t in texts]
    monkeypatch.setattr(clip.tokenizer, "find_spec", lambda name: None)
    assert isinstance(clip.tokenizer.simple_tokenizer.__wrapped__(), SimpleTokenizer)
