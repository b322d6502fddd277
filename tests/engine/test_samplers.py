"""Orders: what a batch of each sampler holds."""

import pickle
import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dassl.data.datasets import Datum
from dassl.data.samplers import SeededIndex, SeededSampler, build_sampler
from dassl.utils import UserError


def source(sizes, attribute="domain"):
    groups = [g for g, size in enumerate(sizes) for _ in range(size)]
    return [Datum("", **{attribute: g}) for g in random.Random(0).sample(groups, len(groups))]


def one_each(labels):
    return [Datum("", label, label) for label in labels]


def batches(order, size):
    return [order[i : i + size] for i in range(0, len(order), size)]


def test_random_and_sequential_orders_hold_every_image_once():
    data = source([5, 8])
    torch.manual_seed(3)
    first, second = (list(build_sampler("RandomSampler", data_source=data)) for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(13)) and first != second
    torch.manual_seed(3)
    assert list(build_sampler("RandomSampler", data_source=data)) == first
    assert list(build_sampler("SequentialSampler", data_source=data)) == list(range(13))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(4, 15), min_size=2, max_size=5), st.data())
def test_domain_batches_hold_equally_many_of_n_domains(sizes, data):
    n = data.draw(st.integers(1, len(sizes)))
    per = data.draw(st.integers(1, 4))
    items = source(sizes)
    sampler = build_sampler("RandomDomainSampler", data_source=items, batch_size=n * per, n_domain=n)
    order = list(sampler)
    assert len(set(order)) == len(order) > 0
    if n == len(sizes):
        assert len(order) == min(sizes) // per * n * per
    for batch in batches(order, n * per):
        counts = Counter(items[i].domain for i in batch)
        assert len(counts) == n and set(counts.values()) == {per}


def test_sequential_domain_batches_take_the_domains_in_order():
    items = source([6, 9, 7])
    order = list(build_sampler("SeqDomainSampler", data_source=items, batch_size=6))
    assert len(order) == 18
    for batch in batches(order, 6):
        assert [items[i].domain for i in batch] == [0, 0, 1, 1, 2, 2]


def literal_domain_order(items, batch_size, n_domain, in_order):
    """Dassl 0.6.3's RandomDomainSampler and SeqDomainSampler in words: images in the order in which they are drawn."""
    left = {}
    for index, item in enumerate(items):
        left.setdefault(item.domain, []).append(index)
    domains, per, order = list(left), batch_size // n_domain, []
    while True:
        short = False
        for domain in sorted(domains) if in_order else random.sample(domains, n_domain):
            drawn = random.sample(left[domain], per)
            order.extend(drawn)
            for index in drawn:
                left[domain].remove(index)
            short = short or len(left[domain]) < per
        if short:
            return order


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name, n_domain", [("RandomDomainSampler", 2), ("RandomDomainSampler", 3),
                                            ("SeqDomainSampler", 3)])
def test_domain_samplers_draw_dassls_images_in_dassls_order(name, n_domain, seed):
    items = source([17, 25, 12])
    assert [items[i].domain for i in range(3)] != [0, 1, 2]                 # domains do not come sorted
    random.seed(seed)
    sampler = build_sampler(name, data_source=items, batch_size=6, n_domain=n_domain)
    ours = list(sampler)
    random.seed(seed)
    literal_domain_order(items, 6, n_domain, name.startswith("Seq"))        # the constructor draws once, for the length
    assert ours == literal_domain_order(items, 6, n_domain, name.startswith("Seq"))
    assert any(ours[i:i + 2] != sorted(ours[i:i + 2]) for i in range(0, len(ours), 2))


def literal_class_order(items, batch_size, n_ins):
    """Dassl 0.6.3's RandomClassSampler in words: labels in the order of their first image."""
    by_label, chunks, order = {}, {}, []
    for index, item in enumerate(items):
        by_label.setdefault(item.label, []).append(index)
    for label, indices in by_label.items():
        indices = list(indices)
        if len(indices) < n_ins:
            indices = list(np.random.choice(indices, size=n_ins, replace=True))
        random.shuffle(indices)
        chunks[label] = [indices[i:i + n_ins] for i in range(0, len(indices) - n_ins + 1, n_ins)]
    labels = list(by_label)
    while len(labels) >= batch_size // n_ins:
        for label in random.sample(labels, batch_size // n_ins):
            order.extend(chunks[label].pop(0))
            if not chunks[label]:
                labels.remove(label)
    return order


@pytest.mark.parametrize("seed", range(4))
def test_the_class_sampler_draws_dassls_images_in_dassls_order(seed):
    items = source([9, 2, 14, 6], "label")
    assert [items[i].label for i in range(3)] != [0, 1, 2]
    random.seed(seed)
    np.random.seed(seed)
    ours = list(build_sampler("RandomClassSampler", data_source=items, batch_size=6, n_ins=3))
    random.seed(seed)
    np.random.seed(seed)
    literal_class_order(items, 6, 3)
    assert ours == literal_class_order(items, 6, 3)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 12), min_size=3, max_size=6), st.integers(1, 3), st.integers(1, 3))
def test_class_batches_hold_n_images_of_each_of_some_classes(sizes, n_ins, n_classes):
    items = source(sizes, "label")
    sampler = build_sampler("RandomClassSampler", data_source=items, batch_size=n_ins * n_classes, n_ins=n_ins)
    order = list(sampler)
    assert len(order) % (n_ins * n_classes) == 0 and order
    for batch in batches(order, n_ins * n_classes):
        counts = Counter(items[i].label for i in batch)
        assert len(counts) == n_classes and set(counts.values()) == {n_ins}


@pytest.mark.parametrize("name", ["RandomDomainSampler", "SeqDomainSampler", "RandomClassSampler"])
def test_the_same_streams_give_the_same_order_and_a_true_length(name):
    items = [Datum("", i % 3, i % 3) for i in range(50)]
    random.seed(5)
    np.random.seed(5)
    sampler = build_sampler(name, data_source=items, batch_size=6, n_domain=3, n_ins=2)
    first = list(sampler)
    random.seed(5)
    np.random.seed(5)
    again = build_sampler(name, data_source=items, batch_size=6, n_domain=3, n_ins=2)
    assert list(again) == first and len(sampler) in range(len(first) - 6, len(first) + 7)


@pytest.mark.parametrize("kind, extra, told", [
    ("RandomSampler2", {}, "Unknown sampler 'RandomSampler2'. Did you mean RandomSampler?"),
    ("SeqDomainSampler", {"batch_size": 5}, "multiple"),
    ("RandomDomainSampler", {"batch_size": 3}, r"batch size \(3\) is a multiple of the domains in it \(2\)"),
    ("RandomClassSampler", {"batch_size": 4, "n_ins": 3}, r"batch size \(4\) is a multiple of the images per class"),
    ("RandomClassSampler", {"batch_size": 8, "n_ins": 1}, "needs 8 classes; the dataset has 2"),
])
def test_a_sampler_that_cannot_be_is_told(kind, extra, told):
    with pytest.raises(UserError, match=told):
        build_sampler(kind, data_source=one_each([0, 1]), **extra)


def test_every_place_in_an_order_has_a_seed_of_its_own_even_for_the_same_image():
    sampler = SeededSampler([4, 4, 1, 4], seed=9)
    drawn = list(sampler)
    assert drawn == [4, 4, 1, 4] and len({d.seed for d in drawn}) == 4
    assert [d.seed for d in sampler] == [d.seed for d in drawn]
    free = SeededSampler([4, 4, 1, 4])
    torch.manual_seed(0)
    first, second = ([d.seed for d in free] for _ in range(2))
    torch.manual_seed(0)
    assert [d.seed for d in free] == first != second
    assert pickle.loads(pickle.dumps(SeededIndex(4, 9))).seed == 9
