"""Datum lists, few-shot draws and samplers."""
import pickle
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dassl.data.datasets import DatasetBase, Datum
from dassl.data.samplers import SeededIndex, SeededSampler, build_sampler
from dassl.utils import UserError

labelled = st.lists(st.integers(0, 5), min_size=1, max_size=60)


def data(labels, domains=None):
    domains = domains or [0] * len(labels)
    return [Datum(f"{i}.png", label, domain, f"class {label}")
            for i, (label, domain) in enumerate(zip(labels, domains, strict=True))]


def literal_few_shots(items, k, repeat):
    """Dassl's draw: classes in order of first appearance, random.sample of each."""
    order, classes = [], {}
    for item in items:
        if item.label not in classes:
            classes[item.label] = []
            order.append(item.label)
        classes[item.label].append(item)
    drawn = []
    for label in order:
        if len(classes[label]) >= k:
            drawn.extend(random.sample(classes[label], k))
        elif repeat:
            drawn.extend(random.choices(classes[label], k=k))
        else:
            drawn.extend(classes[label])
    return drawn


@settings(max_examples=60, deadline=None)
@given(train=labelled, val=labelled, k=st.integers(1, 12), repeat=st.booleans(), seed=st.integers(0, 99))
def test_few_shot_draws_equal_random_sample_class_by_class(train, val, k, repeat, seed):
    train, val = data(train), data(val)
    random.seed(seed)
    ours = DatasetBase(train).generate_fewshot_dataset(train, val, num_shots=k, repeat=repeat)
    random.seed(seed)
    assert ours == [literal_few_shots(train, k, repeat), literal_few_shots(val, k, repeat)]


@pytest.mark.parametrize("shots", [0, -1])
def test_fewer_than_one_shot_takes_everything(shots):
    train, val = data([0, 1]), data([1, 1])
    base = DatasetBase(train)
    assert base.generate_fewshot_dataset(train, num_shots=shots) is train
    assert list(base.generate_fewshot_dataset(train, val, num_shots=shots)) == [train, val]


def test_a_datum_refuses_what_is_no_path_and_survives_pickle():
    with pytest.raises(TypeError, match="impath as str; got int"):
        Datum(3)
    item = pickle.loads(pickle.dumps(Datum("a.png", 2, 1, "cat")))
    assert (item.impath, item.label, item.domain, item.classname) == ("a.png", 2, 1, "cat")
    assert Datum.__module__ == "dassl.data.datasets.base_dataset"       # CoOp's cached lists name it


@given(st.permutations([0, 1, 2, 3]))
def test_classnames_stand_in_the_order_of_labels_whatever_the_order_of_images(labels):
    base = DatasetBase(train_x=data(labels))
    assert base.classnames == ["class 0", "class 1", "class 2", "class 3"]
    assert base.lab2cname == {i: f"class {i}" for i in range(4)} and base.num_classes == 4


def test_an_empty_training_split_is_told():
    with pytest.raises(UserError, match="training split of the dataset is empty"):
        DatasetBase(train_x=[])


def test_a_label_with_two_names_is_told_with_the_image():
    items = [Datum("a.png", 0, 0, "cat"), Datum("b.png", 0, 0, "dog")]
    with pytest.raises(UserError, match="Label 0 has two class names, 'cat' and 'dog' \\(b.png\\)"):
        DatasetBase(train_x=items)


def test_domains_are_checked_by_name():
    base = DatasetBase(train_x=data([0]))
    base.domains = ["art", "photo"]
    base.check_input_domains(["art"], ["photo"])
    with pytest.raises(UserError, match="'sketch' is no domain of this dataset; it has art, photo"):
        base.check_input_domains(["art"], ["sketch"])
    with pytest.raises(UserError, match="SOURCE_DOMAINS is empty"):
        base.check_input_domains([], ["art"])


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(4, 15), min_size=2, max_size=4), per=st.integers(1, 3),
       kind=st.sampled_from(["RandomDomainSampler", "SeqDomainSampler"]))
def test_domain_batches_hold_equally_many_images_of_each_domain_and_none_twice(sizes, per, kind):
    domains = [d for d, size in enumerate(sizes) for _ in range(size)]
    items, batch = data([0] * len(domains), domains), per * len(sizes)
    order = list(build_sampler(kind, data_source=items, batch_size=batch))
    assert len(order) == len(set(order)) == min(sizes) // per * batch
    for start in range(0, len(order), batch):
        found = [items[i].domain for i in order[start:start + batch]]
        assert all(found.count(d) == per for d in range(len(sizes)))
        if kind == "SeqDomainSampler":
            assert found == sorted(found)


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 12), min_size=3, max_size=5), n_ins=st.integers(1, 4))
def test_class_batches_hold_n_images_of_each_of_their_classes(sizes, n_ins):
    items = data([c for c, size in enumerate(sizes) for _ in range(size)])
    order = list(build_sampler("RandomClassSampler", data_source=items, batch_size=2 * n_ins, n_ins=n_ins))
    assert order and len(order) % (2 * n_ins) == 0
    for start in range(0, len(order), 2 * n_ins):
        found = [items[i].label for i in order[start:start + 2 * n_ins]]
        assert sorted(map(found.count, set(found))) == [n_ins, n_ins]


@pytest.mark.parametrize("kind, extra, told", [
    ("RandomSampler2", {}, "Unknown sampler 'RandomSampler2'. Did you mean RandomSampler?"),
    ("RandomDomainSampler", {"batch_size": 3}, r"batch size \(3\) is a multiple of the domains in it \(2\)"),
    ("RandomClassSampler", {"batch_size": 4, "n_ins": 3}, r"batch size \(4\) is a multiple of the images per class"),
    ("RandomClassSampler", {"batch_size": 8, "n_ins": 1}, "needs 8 classes; the dataset has 2"),
])
def test_a_sampler_that_cannot_be_is_told(kind, extra, told):
    with pytest.raises(UserError, match=told):
        build_sampler(kind, data_source=data([0, 1], [0, 1]), **extra)


def test_every_drawn_image_carries_its_own_seed_and_each_pass_new_ones():
    sampler = SeededSampler(build_sampler("SequentialSampler", data_source=data([0] * 20)))
    one, other = list(sampler), list(sampler)
    assert one == other == list(range(20))
    assert len({i.seed for i in one + other}) == 40
    fixed = SeededSampler(sampler.sampler, seed=3)
    assert [i.seed for i in fixed] == [i.seed for i in fixed]
    assert pickle.loads(pickle.dumps(SeededIndex(4, 9))).seed == 9
