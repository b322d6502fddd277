"""CoOp's cached lists win over a draw; a pickle that holds anything else is refused unrun."""
import os
import pickle

import pytest

from dassl.data.datasets import Datum
from dassl.utils import UserError


@pytest.fixture
def pickled(pets, build):
    """pickled(content): it, where CoOp's code keeps the 1-shot list of seed 1."""
    def pickled(content):
        path = pets / "oxford_pets" / "split_fewshot" / "shot_1-seed_1.pkl"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL))
        return path

    return pickled


def test_a_pickle_of_another_machine_wins_over_a_draw(pets, build, pickled):
    whole = build(pets)
    last = {d.label: d for d in whole.train_x}.values()
    theirs = [Datum(impath=d.impath.replace(str(pets), "/home/someone/DATA"), label=d.label, classname=d.classname)
              for d in last]
    pickled({"train": theirs, "val": whole.val[:37]})
    dataset = build(pets, shots=1)
    assert [d.impath for d in dataset.train_x] == [d.impath for d in last]
    assert len(dataset.val) == 37


def test_a_pickle_that_would_train_on_test_images_is_refused(pets, build, pickled):
    whole = build(pets)
    pickled({"train": whole.test, "val": whole.val})
    with pytest.raises(UserError, match="370 of its 370 train images are not in the train split"):
        build(pets, shots=1)


def test_a_pickle_without_the_validation_images_that_the_dataset_has_is_refused(pets, build, pickled):
    pickled({"train": build(pets).train_x[:37]})
    with pytest.raises(UserError, match="no validation images, which this dataset has"):
        build(pets, shots=1)


class Shell:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("content", [{"train": ["not an image"]}, ["no", "dict"], {"val": []},
                                     {"train": [Datum("a.jpg", label=1.5)]}])
def test_a_pickle_of_something_else_is_refused(pets, build, pickled, content):
    path = pickled(content)
    with pytest.raises(UserError, match="is not a list of images") as caught:
        build(pets, shots=1)
    assert str(path) in str(caught.value) and "Delete it" in str(caught.value)


def test_a_malicious_pickle_is_refused_and_nothing_in_it_runs(pets, build, pickled, tmp_path):
    pickled({"train": [Shell(tmp_path / "owned")]})
    with pytest.raises(UserError, match="system"):
        build(pets, shots=1)
    assert not (tmp_path / "owned").exists()


def test_a_cut_pickle_is_refused(pets, build, pickled):
    path = pickled({"train": build(pets).train_x})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="Delete it"):
        build(pets, shots=1)
