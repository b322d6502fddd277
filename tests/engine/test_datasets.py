"""Datum lists and few-shot draws."""
import pickle
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dassl.data.datasets import DatasetBase, Datum
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
    with pytest.raises(TypeError, match="impath as str, got int"):
        Datum(3)
    item = pickle.loads(pickle.dumps(Datum("a.png", 2, 1, "cat")))
    assert (item.impath, item.label, item.domain, item.classname) == ("a.png", 2, 1, "cat")
    assert vars(item) == {"_impath": "a.png", "_label": 2, "_domain": 1, "_classname": "cat"}
    assert Datum.__module__ == "dassl.data.datasets.base_dataset"       # CoOp's cached lists name it


def test_images_are_grouped_by_domain_and_by_label():
    base, items = DatasetBase(data([0])), data([4, 1, 4], domains=[5, 3, 5])
    assert {d: len(group) for d, group in base.split_dataset_by_domain(items).items()} == {5: 2, 3: 1}
    assert list(base.split_dataset_by_label(items)) == [4, 1]


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
    base.is_input_domain_valid(["photo"])
    with pytest.raises(UserError, match="'sketch' is not a domain of this dataset; it has art, photo"):
        base.check_input_domains(["art"], ["sketch"])
    with pytest.raises(UserError, match="SOURCE_DOMAINS is empty"):
        base.check_input_domains([], ["art"])
