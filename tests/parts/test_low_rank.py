"""Low-rank updates: CLIP-LoRA's numbers, a literal reading, and what they refuse."""
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip import InputError, TextTokens, encode_texts
from clip.templates import fill
from trainers.parts import low_rank
from trainers.parts.heads import CosineHead
from trainers.parts.low_rank import LowRank, blocks_at
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.sentences import Sentences

DEPTHS = {"all": list(range(12)), "half-up": [6, 7, 8, 9, 10, 11], "half-bottom": [0, 1, 2, 3, 4, 5],
          "up": [8, 9, 10, 11], "mid": [4, 5, 6, 7], "bottom": [0, 1, 2, 3], "top1": [11], "top2": [10, 11],
          "top3": [9, 10, 11]}


def assert_near(ours, theirs, tolerance):
    torch.testing.assert_close(ours, theirs.reshape(ours.shape), rtol=0, atol=tolerance * float(theirs.abs().max()))


def stacked(golden, kind, names):
    return torch.stack([golden.tensor(f"{kind}/{name}") for name in names])


def build(clip, golden):
    """The authors' model of a golden file, its parameters and their names there."""
    config, templates = golden.json("meta")["config"], golden.json("templates")
    projections, both = "".join(config["params"]), config["encoder"] == "both"

    def tuner(width, depth):
        return LowRank(width, depth, config["r"], config["alpha"], projections, config["position"],
                       config["dropout_rate"])

    visual = tuner(clip.vision_width, clip.depth)
    named = [(visual, visual.saved_names("visual."))]
    if both:
        text_tuner = tuner(clip.text_width, clip.text_depth)
        named.append((text_tuner, text_tuner.saved_names()))
        model = PromptedModel(clip, text=Sentences(clip, fill(templates[0], golden.classnames)), visual=visual,
                              text_tuner=text_tuner, head=CosineHead(100.0))
    else:                               # trains against the mean of all templates
        text = torch.stack([encode_texts(clip, fill(t, golden.classnames)) for t in templates]).mean(0)
        model = PromptedModel(clip, text=F.normalize(text, dim=-1), visual=visual, head=CosineHead(100.0))
    return model, [(getattr(t, which), names[which]) for t, names in named for which in "AB"]


def masks_of(golden, monkeypatch):
    """Dropout takes the authors' masks, (tokens, batch, width), in the order of their calls."""
    tokens, batch, width = shape = golden.data["dropout_shape"]
    keep = np.unpackbits(golden.data["dropout_masks"])[:int(golden.data["dropout_calls"]) * shape.prod()]
    masks = iter(torch.tensor(keep.reshape(-1, tokens, batch, width)).float().transpose(1, 2))

    def dropout(x, p, training):
        return x * next(masks) / (1 - p) if training else x

    monkeypatch.setattr(low_rank.F, "dropout", dropout)
    return masks


@pytest.mark.parametrize("case", ["cliplora_both", "cliplora_dropout_vision"])
def test_five_training_steps_follow_the_authors(case, tiny_clip, golden, monkeypatch):
    theirs = golden(case)
    masks = masks_of(theirs, monkeypatch) if "dropout" in case else iter(())
    model, named = build(tiny_clip, theirs)
    with torch.no_grad():
        for parameter, names in named:
            parameter.copy_(stacked(theirs, "param", names))
    images, labels, optim = theirs.tensor("images").float(), theirs.tensor("labels"), theirs.json("optim")
    adam = torch.optim.AdamW([p for p, _ in named], betas=optim["betas"], eps=optim["eps"],
                             weight_decay=optim["weight_decay"])
    for step, lr in enumerate(theirs.data["lrs"]):
        adam.param_groups[0]["lr"] = float(lr)
        out = model(images[step])
        assert_near(out.logits, theirs.tensor("train_logits")[step], 1e-5 if step == 0 else 5e-5)
        loss = F.cross_entropy(out.logits, labels[step])
        assert loss.item() == pytest.approx(theirs.data["losses"][step], rel=1e-5 if step == 0 else 5e-5)
        adam.zero_grad()
        loss.backward()
        for parameter, names in named if step == 0 else ():
            assert_near(parameter.grad, stacked(theirs, "grad", names), 1e-5)
        adam.step()
        for parameter, names in named if step in (0, 4) else ():
            assert_near(parameter.detach(), stacked(theirs, f"after{step + 1}", names), 5e-5)
    assert next(masks, None) is None
    model.eval()
    with torch.no_grad():
        if case == "cliplora_both":
            assert_near(model(images[0]).logits / 100, theirs.tensor("cos_after5"), 5e-5)
        else:                           # is tested against the first template alone
            text = encode_texts(tiny_clip, fill(theirs.json("templates")[0], theirs.classnames))
            assert_near(model.image_features(images[0]) @ text.T, theirs.tensor("cos_after5"), 5e-5)


@pytest.mark.parametrize("projections", ["q", "kv", "o", "qkvo", "vq"])
def test_an_update_is_the_merged_weight(projections, tiny_clip):
    """W + alpha / sqrt(r) B A in a copy of the tower gives the same features, for images and texts."""
    torch.manual_seed(0)
    images, texts = torch.randn(3, 3, 32, 32), ["a photo of a cat.", "a photo of a small dog."]
    image, text = (LowRank(64, 3, 2, 3.0, projections, "top2").eval() for _ in range(2))
    merged = tiny_clip.frozen_copy()
    with torch.no_grad():
        for tuner, tower in ((image, merged.visual.transformer), (text, merged.transformer)):
            tuner.B.normal_(std=0.3)
            for (block, p), A, B in zip(tuner.places, tuner.A, tuner.B):
                attention, update = tower.resblocks[block].attn, 3.0 / math.sqrt(2) * B @ A
                if p == "o":
                    attention.out_proj.weight += update
                else:
                    start = 64 * "qkv".index(p)
                    attention.in_proj_weight[start:start + 64] += update
        assert_near(tiny_clip.encode_image(images, image), merged.encode_image(images), 1e-5)
        words = Sentences(tiny_clip, texts)()
        assert isinstance(words, TextTokens) and len(words.prefix) == 5        # <start> a photo of a
        assert_near(tiny_clip.encode_text(words, text), encode_texts(merged, texts), 1e-5)
        assert not torch.allclose(encode_texts(merged, texts), encode_texts(tiny_clip, texts), atol=1e-3)


def test_nothing_changes_at_first_and_A_starts_as_a_linear_layer_does(tiny_clip):
    torch.manual_seed(0)
    tuner, images = LowRank(64, 3, rank=8), torch.randn(2, 3, 32, 32)
    assert_near(tiny_clip.encode_image(images, tuner), tiny_clip.encode_image(images), 1e-6)
    assert tuner.A.abs().max() <= 1 / 8 and tuner.A.std().item() == pytest.approx(1 / 8 / math.sqrt(3), rel=0.05)


def test_dropout_gives_each_product_a_mask_and_stops_in_evaluation(tiny_clip):
    tuner, x = LowRank(64, 1, 64, 8.0, dropout=0.5), torch.ones(1, 5, 64)
    with torch.no_grad():
        tuner.A.copy_(torch.eye(64))
        tuner.B.copy_(torch.eye(64))
    q, k, v = tuner.project(0, "qkv", x, torch.zeros(1, 5, 192)).chunk(3, -1)
    assert set(q.unique().tolist()) == {0.0, 2.0} and not torch.equal(q, k) and not torch.equal(k, v)
    assert torch.equal(tuner.eval().project(0, "qkv", x, torch.zeros(1, 5, 192)), torch.ones(1, 5, 192))


def test_dropout_gives_each_sentence_masks_of_its_own_also_where_all_begin_alike(tiny_clip, monkeypatch):
    """Together, sentences are what each gives alone under its own masks: (sentences, tokens, width) for every call."""
    torch.manual_seed(0)
    texts = [f"a photo of a {name}." for name in ("cat", "small dog", "cat")]
    tuner, sentences = LowRank(64, 3, dropout=0.5), Sentences(tiny_clip, texts)
    with torch.no_grad():
        tuner.B.normal_(std=0.3)
    masks = [(torch.rand(3, 77, 64) < 0.5).float() / 0.5 for _ in tuner.places]
    calls = []

    def features(tokens, rows):
        calls[:] = masks
        monkeypatch.setattr(low_rank.F, "dropout", lambda x, p, training: x * calls.pop(0)[rows, :x.shape[1]])
        with torch.no_grad():
            return tiny_clip.encode_text(tokens, tuner)

    together = features(sentences(), slice(None))
    alone = [features(Sentences(tiny_clip, [text])().whole(), slice(i, i + 1)) for i, text in enumerate(texts)]
    torch.testing.assert_close(together, torch.cat(alone))
    assert not torch.allclose(together[0], together[2], atol=1e-3)
    monkeypatch.undo()
    assert len(sentences().prefix) == 5 and not tuner.eval().whole_sequence and not LowRank(64, 3).whole_sequence


@pytest.mark.parametrize("position", DEPTHS)
def test_positions_name_the_authors_blocks_of_twelve(position):
    assert blocks_at(position, 12) == DEPTHS[position]
    assert len(blocks_at(position, 24)) == (2 if "half" in position or position == "all" else 1) * len(DEPTHS[position])


def test_shallower_towers_have_what_there_is_of_a_position():
    assert blocks_at("bottom", 5) == [0, 1, 2, 3] and blocks_at("up", 3) == [0, 1, 2] and blocks_at("top3", 2) == [0, 1]
    with pytest.raises(InputError, match="'mid' names blocks 4 to 7; this tower has 3"):
        blocks_at("mid", 3)


@pytest.mark.parametrize(("change", "message"), [
    ({"rank": 65}, "1 to 64, the tower's width, got 65"), ({"rank": 0}, "got 0"),
    ({"projections": "qx"}, "got 'qx'"), ({"projections": ""}, "got ''"), ({"projections": "qq"}, "got 'qq'"),
    ({"position": "top"}, "got 'top'"), ({"dropout": 1.0}, "got 1.0")])
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        LowRank(64, 3, **change)
