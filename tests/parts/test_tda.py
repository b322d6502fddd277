"""TDA's cache follows the authors' own run image by image, in batches of any size."""
import math

import pytest
import torch
import torch.nn.functional as F

from clip import InputError
from dassl.config import CfgNode
from trainers.parts.classes import Classes
from trainers.parts.stream_cache import StreamCache, Votes
from trainers.tda import TDA


def cache(sizes=(3, 2)):
    return StreamCache(Votes(sizes[0], 2.0, 5.0), Votes(sizes[1], 0.117, 1.0))


def stream(golden):
    theirs = golden("tda_single")
    entropy, probabilities = theirs.tensor("loss").float(), theirs.tensor("prob_map")
    return theirs, (theirs.tensor("features"), theirs.tensor("pred"), entropy, probabilities)


@pytest.mark.parametrize("batch", [1, 7, 48])
def test_logits_and_both_caches_are_the_authors(golden, batch):
    theirs, values = stream(golden)
    kept = cache()
    ours = torch.cat([kept.logits(*part) for part in zip(*(v.split(batch) for v in values))])
    final = theirs.tensor("clip_logits") + ours
    torch.testing.assert_close(final, theirs.tensor("final_logits"), rtol=0,
                               atol=1e-5 * float(theirs.tensor("final_logits").abs().max()))
    for part, name in zip(kept.parts, ("pos", "neg")):
        order = [row for label in sorted(part.slots) for _, row in part.slots[label]]
        assert [label for label in sorted(part.slots) for _ in part.slots[label]] == \
            theirs.data[f"{name}_cache_class"].tolist()
        assert torch.equal(part.keys[order], theirs.tensor(f"{name}_cache_keys"))


def slow_literal(features, predicted, entropies, probabilities, sizes=(3, 2)):
    """Image by image with dictionaries of lists, as the paper tells it."""
    C, caches, rows = probabilities.shape[1], ({}, {}), []
    for f, label, doubt, p in zip(features, predicted.tolist(), entropies.tolist(), probabilities):
        unsure = 0.2 < doubt / math.log2(C) < 0.5
        for kept, size, enters, value in ((caches[0], sizes[0], True, torch.eye(C)[label]),
                                          (caches[1], sizes[1], unsure, ((p > 0.03) & (p < 1)).float())):
            items = kept.setdefault(label, [])
            if enters and len(items) < size:
                items.append((f, doubt, value))
            elif enters and doubt < items[-1][1]:
                items[-1] = (f, doubt, value)
            items.sort(key=lambda item: item[1])
        row = torch.zeros(C)
        for kept, alpha, beta in ((caches[0], 2.0, 5.0), (caches[1], -0.117, 1.0)):
            for key, _, value in (item for items in kept.values() for item in items):
                row += alpha * torch.exp(-beta * (1 - f @ key)) * value
        rows.append(row)
    return torch.stack(rows)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_papers_rule_also_where_entropies_are_equal(seed):
    torch.manual_seed(seed)
    features = torch.nn.functional.normalize(torch.randn(40, 6), dim=-1)
    probabilities = (2 * torch.randn(40, 4)).softmax(-1)
    entropies = -(probabilities * probabilities.log()).sum(-1)
    entropies = (entropies * 4).round() / 4
    values = features, probabilities.argmax(1), entropies, probabilities
    kept = cache()
    ours = torch.cat([kept.logits(*part) for part in zip(*(v.split(9) for v in values))])
    torch.testing.assert_close(ours, slow_literal(*values), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("views", "batch"), [(1, 1), (1, 5), (20, 1), (20, 5)])
def test_the_confident_views_of_an_image_are_one_entry_and_cosines_count_100_times(views, batch, tiny_clip):
    """Literally: means of unit-norm features and of logits, and the entropy of the mean probability."""
    torch.manual_seed(0)
    options = CfgNode({"TEMPLATES": (), "ALPHA": 2.0, "BETA": 5.0, "SIZE": 3, "ALPHA_AGAINST": 0.117,
                       "BETA_AGAINST": 1.0, "SIZE_AGAINST": 2, "VIEWS": views, "SELECT": 0.1})
    model = TDA.build(tiny_clip, Classes(["cat", "dog", "bird", "fish"]), options)
    model.fixed_text.copy_(F.normalize(torch.randn(4, 32), dim=1))          # random towers tell no classes apart
    images = 3 * torch.randn(15, views, 3, 32, 32)
    rows = []
    with torch.no_grad():
        for image in images:
            features = tiny_clip.encode_image(image)
            logits = 100 * features @ model.fixed_text.T
            p = logits.softmax(1)
            chosen = (-(p * p.log()).sum(1)).argsort()[:max(1, int(0.1 * views))]
            mean = p[chosen].mean(0)
            rows.append((features[chosen].mean(0), logits[chosen].mean(0), -(mean * mean.log()).sum(), mean))
        ours = torch.cat([TDA.predict(model, part if views > 1 else part[:, 0], options)
                          for part in images.split(batch)])
    features, logits, entropies, probabilities = (torch.stack(values) for values in zip(*rows))
    expected = logits + slow_literal(features, logits.argmax(1), entropies, probabilities)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_a_cache_that_was_saved_and_loaded_answers_to_the_same_bits(golden):
    _, values = stream(golden)
    whole, first, second = cache(), cache(), cache()
    whole.logits(*(v[:20] for v in values))
    first.logits(*(v[:20] for v in values))
    second.load_state_dict(first.state_dict())
    assert torch.equal(whole.logits(*(v[20:] for v in values)), second.logits(*(v[20:] for v in values)))
    second.reset()
    assert torch.equal(second.logits(*(v[:5] for v in values)), cache().logits(*(v[:5] for v in values)))


def test_an_entropy_that_is_not_finite_leaves_the_cache_as_it_is(golden):
    _, values = stream(golden)
    kept = cache()
    kept.logits(*(v[:5] for v in values))
    before = kept.state_dict()
    with pytest.raises(InputError, match="not finite"):
        kept.logits(values[0][5:8], values[1][5:8], torch.tensor([1.0, math.nan, 1.0]), values[3][5:8])
    after = kept.state_dict()
    assert all(torch.equal(a["keys"], b["keys"]) and a["slots"] == b["slots"]
               for a, b in zip(before["parts"], after["parts"]) if a["keys"] is not None)
