"""Space-time adapters against the authors' numbers, and what clips of frames mean to every other part."""
import math

import pytest
import torch
import torch.nn.functional as F

from clip import InputError
from dassl.config import CfgNode
from dassl.engine import build_trainer
from tests.parts.five_steps import assert_near, follow
from trainers.parts.classes import Classes
from trainers.parts.heads import CosineHead
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.space_time import FrameHead, SpaceTimeAdapter, TemporalHead
from trainers.st_adapter import STAdapter
from trainers.temporal_prompt import TemporalPrompt


def options(**changes):
    return CfgNode({"LAYERS": 2, "DIM": 16, "KERNEL": (3, 1, 1), "PLACES": "both", "DROPOUT": 0.0, **changes})


@pytest.mark.parametrize("name", ["adapter_k311", "adapter_k333"])
def test_an_adapter_is_the_authors(golden, name):
    theirs = golden("st_adapter")
    width, bottleneck = theirs.tensor(f"{name}/param/fc2.weight").shape
    adapter = SpaceTimeAdapter(width, bottleneck, tuple(theirs.tensor(f"{name}/param/conv.weight").shape[2:]))
    adapter.load_state_dict({key: theirs.tensor(f"{name}/param/{key}") for key in adapter.state_dict()})
    x = theirs.tensor(f"{name}/x").requires_grad_()
    y = adapter(x, 4)
    assert_near(y.detach(), theirs.tensor(f"{name}/y"))
    y.square().mean().backward()
    assert_near(x.grad, theirs.tensor(f"{name}/grad_x"))
    for key, parameter in adapter.named_parameters():
        assert_near(parameter.grad, theirs.tensor(f"{name}/grad/{key}"))


def test_st_adapter_takes_the_authors_steps(golden, tiny_clip):
    theirs = golden("st_adapter")
    model = STAdapter.build(tiny_clip, Classes([str(i) for i in range(5)]), options())
    whole = {k: theirs.data[k] for k in theirs.data.files}
    whole = {k: value.astype("float32") if value.dtype == "float16" else value for k, value in whole.items()}
    theirs.data = {**whole, "images": whole["videos"].swapaxes(2, 3)}                         # (5, B, T, 3, H, W)
    learned = dict(model.prompt_learner.named_parameters())

    def loss(out, images, labels):                  # the authors' optimiser also decays what has no gradient
        return F.cross_entropy(out.logits, labels) + 0 * sum(p.sum() for p in learned.values())

    def adamw(parameters):
        bias = [p for n, p in parameters.items() if n.endswith("bias")]
        rest = [p for n, p in parameters.items() if not n.endswith("bias")]
        return torch.optim.AdamW([{"params": bias, "weight_decay": 0.0}, {"params": rest}], 0.0005, weight_decay=0.01)

    follow(model, theirs, loss, optimiser=adamw)


@pytest.mark.parametrize("places", ["attention", "mlp"])
def test_adapters_change_nothing_at_first_and_see_time_once_they_learn(tiny_clip, places):
    model = STAdapter.build(tiny_clip, Classes(["a", "b"]), options(PLACES=places)).eval()
    clip = torch.randn(1, 4, 3, 32, 32)
    plain = tiny_clip.encode_image(clip[0], want="class_tokens")[:, -1].mean(0)
    expected = F.linear(tiny_clip.visual.ln_post(plain), model.head.weight, model.head.bias)
    assert_near(model(clip).logits[0].detach(), expected.detach())
    torch.testing.assert_close(model(clip.flip(1)).logits, model(clip).logits)
    with torch.no_grad():
        for adapter in getattr(model.brick("visual"), {"attention": "pre_attn", "mlp": "pre_mlp"}[places]):
            adapter.conv.weight.normal_()
    assert (model(clip.flip(1)).logits - model(clip).logits).abs().max() > 1e-4


def test_adapters_before_the_mlp_are_those_of_both_whose_others_are_at_rest(tiny_clip):
    one, both = (STAdapter.build(tiny_clip, Classes(["a", "b"]), options(PLACES=places)).eval()
                 for places in ("mlp", "both"))
    with torch.no_grad():
        for adapter in one.brick("visual").pre_mlp:
            adapter.conv.weight.normal_()
    both.prompt_learner.load_state_dict(one.prompt_learner.state_dict(), strict=False)
    clips = torch.randn(2, 3, 3, 32, 32)
    torch.testing.assert_close(both(clips).logits, one(clips).logits)


def test_biases_do_not_decay_and_the_rate_rises_and_falls_by_steps(make_cfg):
    trainer = build_trainer(make_cfg("STAdapter", "OPTIM.WARMUP_EPOCH", 2, "OPTIM.MAX_EPOCH", 6, "OPTIM.LR", 0.5,
                                     "OPTIM.WEIGHT_DECAY", 0.1))
    names = {id(p): name for name, p in trainer.model.prompt_learner.named_parameters()}
    for group in trainer.optim.param_groups:
        assert {names[id(p)].endswith("bias") for p in group["params"]} == {group["weight_decay"] == 0}
    steps, rates = len(trainer.train_loader_x), []
    for _ in range(6 * steps):
        rates.append(trainer.optim.param_groups[0]["lr"])
        trainer.optim.step()
        trainer.sched.step()
    rise, fall = 2 * steps, 4 * steps
    expected = [0.5 * (i + 1) / rise for i in range(rise)]
    expected += [0.25 * (1 + math.cos(math.pi * i / fall)) for i in range(fall)]
    assert rates == pytest.approx(expected)


def test_frames_of_a_clip_are_averaged_before_they_are_normalised(tiny_clip):
    clips, texts = torch.randn(2, 3, 3, 32, 32), F.normalize(torch.randn(4, 32), dim=-1)
    frames = torch.stack([tiny_clip.encode_image(clip, unit_norm=False) for clip in clips])   # (B, T, D)
    expected = frames.mean(1) / frames.mean(1).norm(dim=-1, keepdim=True)
    torch.testing.assert_close(tiny_clip.encode_image(clips), expected)
    torch.testing.assert_close(PromptedModel(tiny_clip, text=texts, head=CosineHead()).image_features(clips), expected)
    views = torch.stack([clips, clips.flip(0)], dim=1)                                        # (B, V, T, 3, H, W)
    torch.testing.assert_close(tiny_clip.encode_image(views, unit_norm=False),
                               frames.mean(1).mean(0).expand(2, -1))


def test_a_temporal_prompt_begins_as_the_mean_of_frames_and_then_tells_their_order(tiny_clip):
    model = TemporalPrompt.build(tiny_clip, Classes(["cat", "dog"]), CfgNode(
        {"N_CTX": 4, "CTX_INIT": "", "CLASS_TOKEN_POSITION": "middle", "LAYERS": 1, "FRAMES": 4})).eval()
    clip = torch.randn(1, 4, 3, 32, 32)
    mean = F.normalize(tiny_clip.encode_image(clip[0]).mean(0), dim=-1)
    torch.testing.assert_close(model(clip).image_features[0], mean)
    torch.testing.assert_close(model(clip[:, 0]).image_features, tiny_clip.encode_image(clip[:, 0]))
    with torch.no_grad():
        model.head.out.weight.normal_()
        model.head.position.normal_()
    assert (model(clip.flip(1)).logits - model(clip).logits).abs().max() > 1e-3
    assert TemporalPrompt.options_of(model.prompt_learner.state_dict()) == {"N_CTX": 4, "FRAMES": 4, "LAYERS": 1}
    with pytest.raises(InputError, match="up to 4 frames, got 5"):
        model(torch.randn(1, 5, 3, 32, 32))


def test_the_authors_file_says_how_it_was_made(tiny_clip):
    for places, name in (("attention", "attn"), ("mlp", "mlp"), ("both", "attn")):
        model = STAdapter.build(tiny_clip, Classes(["a"]), options(PLACES=places, DIM=4, KERNEL=(3, 3, 1)))
        saved = model.prompt_learner.state_dict()
        assert f"transformer.resblocks.1.adapter_pre_{name}.conv.weight" in saved and "fc.bias" in saved
        assert STAdapter.options_of(saved) == {"LAYERS": 2, "DIM": 4, "KERNEL": (3, 3, 1), "PLACES": places}


@pytest.mark.parametrize(("changes", "said"), [
    (dict(LAYERS=4), "1 to 3 blocks, got 4"), (dict(DIM=0), "got 0"), (dict(KERNEL=(2, 1, 1)), r"\(2, 1, 1\)"),
    (dict(PLACES="last"), "got 'last'")])
def test_what_does_not_fit_is_refused(tiny_clip, changes, said):
    with pytest.raises(InputError, match=said):
        STAdapter.build(tiny_clip, Classes(["a"]), options(**changes))


def test_frames_that_are_no_whole_clips_are_refused():
    with pytest.raises(InputError, match="5 frames"):
        SpaceTimeAdapter(8, 2, (3, 1, 1))(torch.randn(5, 17, 8), 2)


def test_temporal_heads_need_a_layer(tiny_clip):
    with pytest.raises(InputError, match="got 0 and 4"):
        TemporalHead(tiny_clip, 0, 4)


def test_dropout_that_is_no_share_is_refused(tiny_clip):
    with pytest.raises(InputError, match="below 1, got -1"):
        FrameHead(tiny_clip, 2, dropout=-1)
