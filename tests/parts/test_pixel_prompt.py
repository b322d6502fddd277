"""Pixels around an image: where they stand, what they leave alone, and that several prompts are so many single ones."""
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from clip import InputError
from trainers.parts.pixel_prompt import FramePrompt, PixelPrompt, PixelPrompts
from trainers.parts.prompted_model import PromptedModel

sizes = st.integers(2, 24).flatmap(lambda size: st.tuples(st.just(size), st.integers(1, size - 1)))


def images(batch, side, seed=0):
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))


def randomised(prompt):
    with torch.no_grad():
        for program in prompt.parameters():
            program.normal_(generator=torch.Generator().manual_seed(1))
    return prompt


@settings(deadline=None, max_examples=30)
@given(sizes)
def test_the_image_stays_in_the_middle_and_the_border_is_squashed(sizes):
    size, inner = sizes
    prompt, inside = randomised(PixelPrompt(size, inner)), images(2, inner)
    out, before = prompt(inside), (size - inner + 1) // 2              # an odd pixel goes left and above
    assert torch.equal(out[:, :, before:before + inner, before:before + inner], inside)
    assert out.shape == (2, 3, size, size) and 0 <= out.min() and out.max() <= 1
    whole = torch.ones(3, size, size)
    whole[:, before:before + inner, before:before + inner] = 0
    assert torch.equal(out[0] * whole, out[1] * whole)                 # the border does not depend on the image
    assert torch.equal(out[0][whole.bool()], prompt.program.sigmoid().flatten())


def test_the_border_is_grey_at_first_in_pixel_space():
    assert PixelPrompt(8, 4)(torch.zeros(1, 3, 4, 4)).unique().tolist() == [0.0, 0.5]


def test_learned_parameters_are_the_published_numbers():
    """39,936 for a padding prompt, 69,840 for VP (RVP, Table 11, for AttrVR, AR and VP)."""
    assert PixelPrompt(224, 192).program.numel() == 39_936
    assert FramePrompt(224, 30).program.numel() == 69_840
    assert sum(p.numel() for p in PixelPrompts(3).parameters()) == 119_808


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 20).flatmap(lambda size: st.tuples(st.just(size), st.integers(1, size // 2))))
def test_the_added_frame_leaves_the_middle_alone(sizes):
    size, width = sizes
    prompt, normalised = randomised(FramePrompt(size, width)), images(2, size) * 4 - 2
    change = prompt(normalised) - normalised
    inner = slice(width, size - width)
    assert not change[:, :, inner, inner].any()
    torch.testing.assert_close(change[0], prompt.border())
    assert prompt.border().count_nonzero() == prompt.program.numel() == 3 * (size ** 2 - (size - 2 * width) ** 2)


def test_an_authors_program_is_read_from_its_whole_canvas():
    whole = torch.randn(3, 8, 8)
    prompt = PixelPrompt(8, 4)
    prompt.load_state_dict({"program": whole, "mask": torch.ones(3, 8, 8)})
    mask = F.pad(torch.zeros(3, 4, 4), (2, 2, 2, 2), value=1)
    torch.testing.assert_close(prompt.border(), whole.sigmoid() * mask)
    again = PixelPrompt(8, 4)
    again.load_state_dict(prompt.state_dict())
    assert torch.equal(again.program, prompt.program)


def test_several_prompts_give_the_views_of_each():
    prompts, inside = randomised(PixelPrompts(3, 8, 5)), images(2, 5)
    with torch.no_grad():
        prompts[1].program.mul_(-1)
    views = prompts(inside)
    assert views.shape == (3, 2, 3, 8, 8)
    for view, prompt in zip(views, prompts):
        assert torch.equal(view, prompt(inside))


def test_clip_normalises_after_a_prompt_in_pixel_space_and_not_after_the_added_frame(tiny_clip):
    bank, size = torch.eye(32)[:4], tiny_clip.image_size
    mean, std = torch.tensor(tiny_clip.mean).view(3, 1, 1), torch.tensor(tiny_clip.std).view(3, 1, 1)
    padding, frame = randomised(PixelPrompt(size, 24)), randomised(FramePrompt(size, 4))
    with torch.no_grad():
        padded = PromptedModel(tiny_clip, pixel=padding, text=bank)(images(2, 24)).image_features
        torch.testing.assert_close(padded, tiny_clip.encode_image((padding(images(2, 24)) - mean) / std))
        framed = PromptedModel(tiny_clip, pixel=frame, text=bank)(images(2, size)).image_features
        torch.testing.assert_close(framed, tiny_clip.encode_image(images(2, size) + frame.border()))


def test_the_views_of_all_prompts_pass_the_tower_as_one_batch(tiny_clip):
    pixel = randomised(PixelPrompts(3, tiny_clip.image_size, 24))
    model = PromptedModel(tiny_clip, pixel=pixel, text=torch.eye(32)[:4])
    batches, tower = [], tiny_clip.visual
    hook = tower.register_forward_hook(lambda module, args, out: batches.append(len(args[0])))
    with torch.no_grad():
        features = model.image_features(images(5, 24))
    hook.remove()
    assert batches == [15] and features.shape == (3, 5, 32)


@pytest.mark.parametrize(("make", "words"), [
    (lambda: PixelPrompt(8, 8), "smaller than the canvas, got an image of 8"),
    (lambda: PixelPrompt(8, 4, "tanh"), "sigmoid, none, got 'tanh'"),
    (lambda: FramePrompt(8, 5), "1 to 4 pixels wide, got 5"),
    (lambda: PixelPrompts(0), "At least 1 pixel prompt"),
    (lambda: PixelPrompt(8, 4)(torch.zeros(1, 3, 8, 8)), r"INPUT.SIZE \(4, 4\)")])
def test_sizes_that_do_not_fit_are_told(make, words):
    with pytest.raises(InputError, match=words):
        make()
