"""From scores of descriptions to logits of classes, against the authors' formulas written as loops."""
import json
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from clip import InputError, encode_texts
from trainers.parts.description_bank import DescriptionBank
from trainers.parts.label_mapping import ReweightingMatrix, TopKMean, cluster, count_descriptions, topk_own

shapes = st.tuples(st.integers(1, 9), st.integers(1, 6), st.integers(1, 7), st.integers(0, 99))


def drawn(B, C, m, seed):
    rng = np.random.RandomState(seed)
    return torch.tensor(rng.randn(B, C, m).astype(np.float32)), torch.tensor(rng.randint(C, size=B))


@settings(deadline=None, max_examples=40)
@given(shapes, st.data())
def test_the_weights_are_the_dense_matrix_of_the_paper(shape, data):
    B, C, m, seed = shape
    k = data.draw(st.integers(1, m))
    scores, labels = drawn(B, C, m, seed)
    prm = ReweightingMatrix(C, m, k)
    dense = torch.zeros(C * m, C)                                       # uniform at first
    for c in range(C):
        dense[c * m:(c + 1) * m, c] = 1 / m
    torch.testing.assert_close(prm(scores), scores.reshape(B, C * m) @ dense)
    for part in range(0, B, 2):                                         # batch by batch
        prm.observe(scores[part:part + 2], labels[part:part + 2])
    prm.update()
    votes = np.zeros((C, C * m))
    for image, label in zip(scores.numpy(), labels.tolist()):
        for best in np.argsort(-image[label])[:k]:
            votes[label, label * m + best] += 1
    for c in set(labels.tolist()):
        dense[:, c] = torch.tensor(votes[c] / votes[c].sum())
    torch.testing.assert_close(prm(scores), scores.reshape(B, C * m) @ dense)
    torch.testing.assert_close(prm.weights.sum(1), torch.ones(C))


def test_counts_start_anew_after_each_update():
    prm = ReweightingMatrix(1, 3, 1)
    for best in (0, 2):
        prm.observe(torch.eye(3)[best].view(1, 1, 3), torch.zeros(1, dtype=torch.int64))
        prm.update()
        assert prm.weights.tolist() == [torch.eye(3)[best].tolist()]


@settings(deadline=None, max_examples=30)
@given(shapes, st.data())
def test_only_the_true_classs_best_descriptions_are_counted(shape, data):
    B, C, m, seed = shape
    k = data.draw(st.integers(1, m))
    scores, labels = drawn(B, C, m, seed)
    picked = topk_own(scores, labels, k)
    for b, label in enumerate(labels.tolist()):
        chosen = scores[b, label, picked[b]]
        assert (chosen[:-1] >= chosen[1:]).all() and len(set(picked[b].tolist())) == k
        assert k == m or chosen.min() >= scores[b, label].sort(descending=True).values[k]
    counts = count_descriptions(picked, labels, C, m)
    assert counts.sum(1).tolist() == [k * labels.tolist().count(c) for c in range(C)]


@settings(deadline=None, max_examples=30)
@given(shapes, st.data())
def test_the_top_k_mean_is_attrvrs(shape, data):
    """AttrVR tools.py: sort, mean of the first k, then lambda * DesAttr + (1 - lambda) * DistAttr."""
    B, C, m, seed = shape
    k, share = data.draw(st.integers(1, m)), data.draw(st.floats(0, 1))
    scores, _ = drawn(B, C, 2 * m, seed)
    literal = torch.zeros(B, C)
    for b in range(B):
        for c in range(C):
            groups = [sorted(group.tolist(), reverse=True)[:k] for group in scores[b, c].split(m)]
            literal[b, c] = share * sum(groups[0]) / k + (1 - share) * sum(groups[1]) / k
    torch.testing.assert_close(TopKMean(m, k, (share, 1 - share))(scores), literal, atol=1e-5, rtol=1e-5)


def test_clusters_are_repeatable_and_use_every_prompt():
    features = F.normalize(torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    groups = cluster(features, 3)
    assert groups.shape == (4, 6) and groups.unique().tolist() == [0, 1, 2]
    assert torch.equal(groups, cluster(features, 3)) and not cluster(features, 1).any()


SENTENCES = [[f"a {colour} thing, number {i}" for i in range(3)] for colour in ("red", "blue")]


def bank(clip, draw=lambda: SENTENCES, k=2, assign=None):
    return DescriptionBank(2, 3, draw, partial(encode_texts, clip), ReweightingMatrix(2, 3, k), assign)


def test_each_description_is_scored_by_its_own_prompt_alone(tiny_clip):
    """DVP fs_dvp_cls.py: the sum over prompts of the scores with the other prompts' descriptions masked out."""
    owner = torch.tensor([[0, 1, 2], [2, 2, 0]])
    described = bank(tiny_clip, assign=lambda features: owner)
    images = F.normalize(torch.randn(3, 4, 32, generator=torch.Generator().manual_seed(0)), dim=-1)   # (v, B, D)
    texts, scale = encode_texts(tiny_clip, sum(SENTENCES, [])), tiny_clip.scale
    theirs = sum(scale * images[i] @ (texts * (owner.flatten() == i)[:, None]).T for i in range(3))   # (B, C*m)
    logits, found = described(images, None, tiny_clip)
    scores = found["scores"]
    torch.testing.assert_close(scores.reshape(4, 6), theirs)
    torch.testing.assert_close(logits, theirs.view(4, 2, 3).mean(-1))


def test_a_saved_bank_needs_no_descriptions(tiny_clip):
    def nothing():
        raise AssertionError("drawn again")

    one = bank(tiny_clip, assign=partial(cluster, n_clusters=2))
    assert one.sentences == SENTENCES
    one.mapping.observe(torch.randn(4, 2, 3), torch.tensor([0, 1, 0, 1]))
    one.mapping.update()
    two = bank(tiny_clip, draw=nothing)
    two.load_state_dict(one.state_dict())
    images = F.normalize(torch.randn(2, 4, 32), dim=-1)
    assert torch.equal(two(images, None, tiny_clip)[0], one(images, None, tiny_clip)[0])
    assert two.sentences == SENTENCES == json.loads(bytes(two.state_dict()["text"].tolist()))


def test_descriptions_are_drawn_and_encoded_once(tiny_clip):
    calls = []

    def draw():
        calls.append("draw")
        return SENTENCES

    def encode(texts):
        calls.append(len(texts))
        return encode_texts(tiny_clip, texts)

    described = DescriptionBank(2, 3, draw, encode, TopKMean(3, 2))
    for _ in range(3):
        described(torch.randn(4, 32), None, tiny_clip)
    assert calls == ["draw", 6]


@pytest.mark.parametrize(("make", "words"), [
    (lambda clip: ReweightingMatrix(2, 3, 4), "1 to 3, got TOP_K 4"),
    (lambda clip: TopKMean(3, 0), "1 to 3, got TOP_K 0"),
    (lambda clip: cluster(torch.randn(2, 3, 4), 7), "1 to 6 clusters, got 7"),
    (lambda clip: bank(clip, draw=lambda: [["one"], ["two", "three"]]).fill(), "2 classes need 3 descriptions each")])
def test_what_cannot_be_is_told(tiny_clip, make, words):
    with pytest.raises(InputError, match=words):
        make(tiny_clip)
