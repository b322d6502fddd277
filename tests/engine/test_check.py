"""What is wrong with a dataset's files, labels and names is reported before training, with the file."""
import pytest
from PIL import Image

from dassl.data import DataManager, DatasetWrapper, data_manager
from dassl.data.check import check_labels
from dassl.data.datasets import DatasetBase, Datum
from dassl.utils import UserError


@pytest.fixture
def own_folder(tmp_path, write_splits):
    """A copy of the images that a test may damage."""
    write_splits(tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize("split", ["train_x", "val", "test"])
@pytest.mark.parametrize("harm", ["missing", "cut", "text", "empty"])
def test_a_missing_or_corrupt_image_is_named_before_training(engine_cfg, own_folder, split, harm):
    victim = own_folder / split / "bee_2.png"
    content = victim.read_bytes()
    if harm == "missing":
        victim.unlink()
        victim.symlink_to("nowhere.png")
    else:
        victim.write_bytes({"cut": content[:60], "text": b"<html>404</html>", "empty": b""}[harm])
    with pytest.raises(UserError) as error:
        DataManager(engine_cfg(DATASET__ROOT=str(own_folder)))
    told = "1 of 39 images are missing, first" if harm == "missing" else "1 of 39 images cannot be read"
    assert told in str(error.value) and str(victim) in str(error.value)
    assert harm == "missing" or f"split {split}" in str(error.value)


def test_a_jpeg_cut_in_its_last_bytes_is_found(engine_cfg, own_folder):
    victim, cfg = own_folder / "train_x" / "ant_3.png", engine_cfg(DATASET__ROOT=str(own_folder))
    Image.open(victim).resize((300, 300)).save(victim, format="JPEG")
    DataManager(cfg)
    victim.write_bytes(victim.read_bytes()[:-300])
    with pytest.raises(UserError, match=victim.name):
        DataManager(cfg)


def test_files_that_only_a_wrapper_can_read_need_not_be_images(engine_cfg, own_folder):
    victim, cfg = own_folder / "train_x" / "ant_0.png", engine_cfg(DATASET__ROOT=str(own_folder))
    victim.write_bytes(b"any features")
    DataManager(cfg, dataset_wrapper=DatasetWrapper)
    victim.unlink()
    victim.symlink_to("nowhere.png")
    with pytest.raises(UserError, match="ant_0"):
        DataManager(cfg, dataset_wrapper=DatasetWrapper)


ANT, BEE = Datum("a.png", 0, 0, "ant"), Datum("b.png", 1, 0, "bee")


def test_new_classes_that_are_renumbered_from_0_are_a_warning_as_in_dassl(caplog):
    cat = Datum("c.png", 2, 0, "cat")
    check_labels(DatasetBase(train_x=[ANT, BEE, cat], test=[Datum("d.png", 0, 0, "bee"), Datum("e.png", 1, 0, "cat")]),
                 "Some")
    assert "test split has 2 of the 3 training classes under labels of its own" in caplog.text
    with pytest.raises(UserError, match="label 0 is 'ant' in training and 'bee'"):
        check_labels(DatasetBase(train_x=[ANT, BEE], test=[Datum("d.png", 0, 0, "bee"), Datum("e.png", 1, 0, "ant")]),
                     "Some")


@pytest.mark.parametrize("change, told", [
    ({"test": [Datum("c.png", 1, 0, "ant")]},
     "label 1 is 'bee' in training and 'ant' in the test split (c.png)"),
    ({"val": [Datum("c.png", 7)]}, "c.png in the val split has label 7, which no training image has"),
    ({"train_x": [ANT, Datum("b.png", 2, 0, "bee")]},
     "the largest label is 2, so there are 3 classes, but only 2 have training images"),
    ({"train_x": [ANT, BEE, Datum("c.png", 1, 0, "cat")]}, "Label 1 has two class names, 'bee' and 'cat' (c.png)"),
], ids=["other name", "no such label", "gap", "two names"])
def test_labels_and_class_names_that_disagree_are_named(engine_cfg, monkeypatch, change, told):
    splits = {"train_x": [ANT, BEE], "val": [ANT, BEE], "test": [ANT, BEE], **change}
    monkeypatch.setattr(data_manager, "build_dataset", lambda cfg: DatasetBase(**splits))
    with pytest.raises(UserError) as error:
        DataManager(engine_cfg())
    assert told in str(error.value)
