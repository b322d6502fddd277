"""The cache head and its search follow the authors' runs (origin: tests/golden/README.md)."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip import InputError
from trainers.parts.cache_search import search, values
from trainers.parts.classes import Classes
from trainers.parts.heads import CacheHead
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.teacher import mean_text_features


def assert_near(ours, theirs, tolerance=1e-5):
    torch.testing.assert_close(ours, theirs.reshape(ours.shape), rtol=0, atol=tolerance * float(theirs.abs().max()))


def built(clip, golden, learned=False):
    """The model of a golden file, with its cache filled from the images; and its config."""
    c = golden.json("meta")["config"]
    text = mean_text_features(clip, Classes(golden.classnames), golden.json("templates"))
    assert_near(text, golden.tensor("clip_weights").T)
    head = CacheHead(clip, len(text), c["init_alpha"], c["init_beta"], learned=learned, scale=100.0)
    views = [clip.encode_image(view, unit_norm=False) for view in golden.tensor("images_train").float()]
    head.fill(F.normalize(torch.stack(views).mean(0), dim=-1), golden.tensor("labels_train"))
    keys = golden.tensor("param/adapter.weight") if learned else golden.tensor("cache_keys").T    # changed by learning
    assert_near(head.keys.detach(), keys)
    assert torch.equal(head.values, golden.tensor("cache_values"))
    return PromptedModel(clip, text=text, head=head), c


def of_split(clip, golden, split):
    return clip.encode_image(golden.tensor(f"images_{split}").float()), golden.tensor(f"labels_{split}")


def sought(model, golden, c):
    """The search on the validation images, whose grid may differ from theirs where two classes are within rounding."""
    features, labels = of_split(model.clip, golden, "val")
    beta_max, alpha_max = c["search_scale"]
    found = search(model.head, features, labels, model.text_features(), model.clip, beta_max, alpha_max)
    theirs = golden.tensor("acc_grid")
    one_image = 100 / len(labels)
    assert (found.grid - theirs).abs().max() <= one_image + 1e-9 and (found.grid != theirs).double().mean() < 0.01
    return found


def test_the_training_free_cache_follows_the_authors(tiny_clip, golden):
    theirs = golden("tip_adapter")
    model, c = built(tiny_clip, theirs)
    features, labels = of_split(tiny_clip, theirs, "val")
    assert_near(features, theirs.tensor("val_features"))
    assert_near(model.compare(features).logits, theirs.tensor("val_tip_init"))
    found = sought(model, theirs, c)
    best = float(theirs.data["best_beta"]), float(theirs.data["best_alpha"])
    assert (found.beta, found.alpha) == pytest.approx(best)
    assert found.accuracy == pytest.approx(theirs.data["acc_grid"].max())
    assert (model.head.beta.item(), model.head.alpha.item()) == pytest.approx((found.beta, found.alpha))
    assert_near(model(theirs.tensor("images_test").float()).logits, theirs.tensor("test_tip_best"))


def test_learned_keys_follow_the_authors(tiny_clip, golden):
    theirs = golden("tip_adapter_f")
    model, c = built(tiny_clip, theirs, learned=True)
    head, labels, optim = model.head, theirs.tensor("labels_train"), theirs.json("optim")
    adam = torch.optim.AdamW([head.keys], betas=optim["betas"], eps=optim["eps"], weight_decay=optim["weight_decay"])
    test, step = of_split(tiny_clip, theirs, "test")[0], 0
    for epoch, order in enumerate(theirs.tensor("perm")):
        images = theirs.tensor("images_train")[int(theirs.data["epoch_images"][epoch])].float()
        for rows in order.split(8):
            adam.param_groups[0]["lr"] = float(theirs.data["lrs"][step])
            loss = F.cross_entropy(model.compare(tiny_clip.encode_image(images[rows])).logits, labels[rows])
            assert loss.item() == pytest.approx(theirs.data["losses"][step], rel=1e-5 if step == 0 else 5e-5)
            adam.zero_grad()
            loss.backward()
            if step == 0:
                assert_near(head.keys.grad, theirs.tensor("grad/adapter.weight"))
            adam.step()
            step += 1
            if step in (1, 5, 6):
                assert_near(head.keys.detach(), theirs.tensor(f"after{step}/adapter.weight"), 5e-5)
        assert_near(model.compare(test).logits.detach(), theirs.tensor("test_logits_epoch")[epoch], 5e-5)
    with torch.no_grad():
        head.keys.copy_(theirs.tensor("best_weight"))
        found = sought(model, theirs, c)
        best = float(theirs.data["best_beta"]), float(theirs.data["best_alpha"])
        assert (found.beta, found.alpha) == pytest.approx(best)
        assert_near(model.compare(test).logits, theirs.tensor("test_logits_best"))


def literal_search(features, labels, text, keys, one_hot, beta_max, alpha_max):
    """As the paper's code seeks it: beta outside, alpha inside, a better accuracy replaces the best one."""
    best, at = -1.0, None
    for i in range(200):
        beta = 0.1 + i * (beta_max - 0.1) / 200
        votes = np.exp(-beta * (1 - features @ keys.T)) @ one_hot
        for j in range(20):
            alpha = 0.1 + j * (alpha_max - 0.1) / 20
            accuracy = ((100 * features @ text.T + alpha * votes).argmax(1) == labels).mean() * 100
            if accuracy > best:
                best, at = accuracy, (beta, alpha)
    return *at, best


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_the_search_is_the_literal_one_whatever_its_chunks(rows, tiny_clip, monkeypatch):
    rng = np.random.default_rng(0)
    text, labels = rng.normal(size=(4, 32)), rng.integers(0, 4, 60)
    draw = [text[y] + rng.normal(size=(len(y), 32)) * 2 for y in (labels, np.arange(12) % 4)]
    draw.append(text + rng.normal(size=(4, 32)))
    features, keys, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in draw)
    head = CacheHead(tiny_clip, 4, scale=100.0)
    head.fill(torch.tensor(keys).float(), torch.arange(12) % 4)
    monkeypatch.setattr("trainers.parts.cache_search._MOST", rows * 20 * 12)
    found = search(head, torch.tensor(features).float(), torch.tensor(labels), torch.tensor(text).float(), tiny_clip,
                   40.0, 60.0)
    expected = literal_search(features, labels, text, keys, np.eye(4)[np.arange(12) % 4], 40.0, 60.0)
    assert (found.beta, found.alpha, found.accuracy) == pytest.approx(expected)
    assert expected[:2] != (0.1, 0.1)


def test_the_grid_begins_at_a_tenth_and_leaves_its_end_out():
    assert values(5.0, 20)[0] == 0.1 and values(5.0, 20)[-1] == pytest.approx(5 - 4.9 / 20)


def test_an_optimiser_keeps_its_keys_when_as_many_are_filled_or_loaded(tiny_clip):
    head = CacheHead(tiny_clip, 2, learned=True)
    head.make_room(3)
    keys = head.keys
    head.fill(torch.ones(3, 32), torch.tensor([0, 1, 1]))
    head.load_state_dict(head.state_dict())
    assert head.keys is keys and head.values.sum(0).tolist() == [1, 2]
    other = CacheHead(tiny_clip, 2)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other.keys, keys) and not other.keys.requires_grad


@pytest.mark.parametrize(("keys", "labels", "message"), [
    (torch.ones(3, 31), torch.tensor([0, 1, 1]), r"width 32 .* \(3, 31\)"),
    (torch.ones(3, 32), torch.tensor([0, 1]), r"got \(3, 32\) and \(2,\)"),
    (torch.ones(3, 32), torch.tensor([1, 1, 1]), r"classes \[0\] have none \(1 of 2\)")])
def test_a_cache_that_does_not_fit_is_refused(keys, labels, message, tiny_clip):
    with pytest.raises(InputError, match=message):
        CacheHead(tiny_clip, 2).fill(keys, labels)
