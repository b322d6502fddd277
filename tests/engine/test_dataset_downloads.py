"""DatasetBase.download_data: archives are fetched and unpacked beside; what fails says so."""
import io
import sys
import tarfile
import types
import zipfile
from pathlib import Path

import pytest

from dassl.data.datasets import DatasetBase, Datum
from dassl.utils import UserError


@pytest.fixture
def base():
    return DatasetBase([Datum("a.png", 0, 0, "ant")])


def archive(path, kind, name="set/a.txt", content=b"ant"):
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz") as file:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def drive(monkeypatch):
    """drive(effect): stands for gdown."""
    def make(effect):
        monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=effect))

    return make


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_from_an_address_is_unpacked_beside(base, tmp_path, kind):
    source = archive(tmp_path / f"source.{kind}", kind)
    (tmp_path / "root").mkdir()
    base.download_data(source.as_uri(), str(tmp_path / "root" / f"set.{kind}"), from_gdrive=False)
    assert (tmp_path / "root" / "set" / "a.txt").read_bytes() == b"ant"


def test_an_archive_on_google_drive_comes_through_gdown(base, tmp_path, drive):
    drive(lambda url, dst, quiet: archive(dst, "zip"))
    base.download_data("https://drive.google.com/uc?id=1", str(tmp_path / "set.zip"))
    assert (tmp_path / "set" / "a.txt").is_file()


def _offline(url, dst, quiet):
    raise ConnectionError("no route\nto host")


def _page(url, dst, quiet):
    Path(dst).write_text("<html>quota exceeded</html>")


@pytest.mark.filterwarnings("ignore:No file found")
@pytest.mark.parametrize(("effect", "message"), [
    (_offline, "cannot be fetched .ConnectionError: no route to host.*by hand.*set.zip"),
    (lambda url, dst, quiet: None, "did not arrive at .*set.zip"),
    (_page, "not a complete zip or tar archive.*Delete")])
def test_a_download_that_fails_says_what_to_do(base, tmp_path, drive, effect, message):
    drive(effect)
    with pytest.raises(UserError, match=message):
        base.download_data("https://drive.google.com/uc?id=1", str(tmp_path / "set.zip"))


def test_without_gdown_the_package_is_named(base, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(UserError, match="pip install gdown.*by hand"):
        base.download_data("https://drive.google.com/uc?id=1", str(tmp_path / "set.zip"))


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_members_do_not_leave_the_folder(base, tmp_path, drive, kind):
    drive(lambda url, dst, quiet: archive(dst, kind, name="../../outside.txt"))
    folder = tmp_path / "deep" / "root"
    folder.mkdir(parents=True)
    try:
        base.download_data("https://drive.google.com/uc?id=1", str(folder / f"set.{kind}"))
    except UserError:
        assert kind == "tar.gz"
    assert not list(tmp_path.glob("outside.txt")) and not list(tmp_path.glob("deep/outside.txt"))
