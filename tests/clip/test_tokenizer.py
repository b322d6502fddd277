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
    assert torch.equal(tokenize(text, truncate=True)[0], theirs.tensor("long_truncated"))
