"""Heads against their formulas, written out."""
import pytest
import torch
import torch.nn.functional as F

from clip import InputError
from trainers.parts.heads import CacheHead, CosineHead, LinearHead, ResidualHead
from trainers.parts.transport_head import TransportHead, sinkhorn


@pytest.fixture
def features(tiny_clip):
    torch.manual_seed(0)
    return tuple(F.normalize(torch.randn(n, tiny_clip.embed_dim), dim=1) for n in (4, 3))


def test_cosines_count_by_clips_scale_or_a_constant_and_its_bias(tiny_clip, features):
    images, texts = features
    torch.testing.assert_close(CosineHead()(images, texts, tiny_clip), tiny_clip.scale * images @ texts.T)
    torch.testing.assert_close(CosineHead(100.0)(images, texts, tiny_clip), 100 * images @ texts.T)
    each = torch.stack([texts, texts.flip(0), texts, texts])                        # texts of each image
    assert torch.equal(CosineHead()(images, each, tiny_clip).argmax(1)[[0, 2, 3]],
                       (images @ texts.T).argmax(1)[[0, 2, 3]])


def test_a_residual_is_added_to_the_texts_as_they_are_before_they_are_normalised(tiny_clip, features):
    images, base = features[0], 3 * torch.randn(3, tiny_clip.embed_dim)
    head = ResidualHead(base, alpha=0.5)
    for residual in (torch.zeros_like(base), torch.randn_like(base)):
        head.residual.data.copy_(residual)
        logits, found = head(images, None, tiny_clip)
        moved = base + 0.5 * residual
        expected = moved / moved.norm(dim=1, keepdim=True)
        torch.testing.assert_close(logits, tiny_clip.scale * images @ expected.T)
        torch.testing.assert_close(found["text_features"], expected)


def test_a_linear_head_is_zero_at_first_and_takes_features_as_they_are(tiny_clip, features):
    head = LinearHead(tiny_clip, 3)
    assert not head(features[0], None, tiny_clip).any() and not head.unit_norm and head.knows_classes


def test_labelled_images_vote_by_their_distance(tiny_clip, features):
    images, texts = features
    head = CacheHead(tiny_clip, 3, alpha=2.0, beta=5.0)
    torch.testing.assert_close(head(images, texts, tiny_clip), CosineHead()(images, texts, tiny_clip))    # empty
    keys, labels = F.normalize(torch.randn(5, tiny_clip.embed_dim), dim=1), torch.tensor([0, 1, 2, 1, 0])
    head.fill(keys, labels)
    votes = torch.zeros(4, 3)
    for b in range(4):
        for k in range(5):
            votes[b, labels[k]] += torch.exp(-5 * (1 - images[b] @ keys[k]))
    expected = tiny_clip.scale * images @ texts.T + 2 * votes
    torch.testing.assert_close(head(images, texts, tiny_clip).detach(), expected)


def test_a_transport_that_may_not_be_looked_at_is_the_same(monkeypatch):
    kernel = torch.rand(3, 4, 6, 2, generator=torch.Generator().manual_seed(0)) + 0.1
    early = sinkhorn(kernel)
    monkeypatch.setattr("trainers.parts.devices.reading_is_free", lambda x: False)
    late = sinkhorn(kernel)
    assert torch.equal(early[0], late[0]) and early[1] == late[1] and 1 < early[1] < 100


def test_a_head_and_features_that_do_not_fit_are_refused(tiny_clip, features):
    images, texts = features
    with pytest.raises(InputError, match="all tokens of each image"):
        TransportHead()(images, texts, tiny_clip)
    with pytest.raises(InputError, match="width 32"):
        CacheHead(tiny_clip, 3).fill(torch.zeros(2, 7), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="classes \\[2\\] have none"):
        CacheHead(tiny_clip, 3).fill(torch.zeros(2, 32), torch.tensor([0, 1]))
