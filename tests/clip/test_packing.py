"""Packings are kept for the next step, never more than a fixed number of them, and made again just the same."""
from dataclasses import fields

import torch

from clip.packing import MOST_KEPT, Packing, pack
from clip.towers import TextTokens


def test_the_cache_is_bounded_and_a_packing_that_left_it_is_made_again_just_the_same():
    pack.cache_clear()
    first = pack((3, 1, 2))
    assert pack((3, 1, 2)) is first
    for n in range(1, 2 * MOST_KEPT):
        pack((n,))
        assert pack.cache_info().currsize <= MOST_KEPT
    again = pack((3, 1, 2))
    assert again is not first
    assert all(torch.equal(getattr(again, field.name), getattr(first, field.name)) for field in fields(Packing))


def test_features_do_not_depend_on_what_the_cache_holds(tiny_clip):
    tokens = TextTokens(torch.randn(5, 4, tiny_clip.text_width), torch.tensor([0, 3, 1, 2, 3]),
                        torch.randn(3, tiny_clip.text_width))
    pack.cache_clear()
    made = tiny_clip.encode_text(tokens)
    assert pack.cache_info().currsize == 1
    kept = tiny_clip.encode_text(tokens)
    assert pack.cache_info().hits == 1 and torch.equal(kept, made)
