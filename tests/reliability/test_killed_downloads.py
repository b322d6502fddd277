"""Downloads that are killed at random moments are continued or restarted, and end as if nothing had been."""
import functools
import hashlib
import io
import multiprocessing
import random
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "datasets"))
from local_server import Handler, md5, serving, tree  # noqa: E402

from clip import weights  # noqa: E402
from clip.backbones import Backbone  # noqa: E402
from datasets import download  # noqa: E402
from datasets.cards import Archive  # noqa: E402

FORK = multiprocessing.get_context("fork")
_DRAW = random.Random(8)
FILES = {f"images/{i}.bin": _DRAW.randbytes(40_000) for i in range(30)}
WEIGHTS = _DRAW.randbytes(1_500_000)


class Slow(Handler):
    """Sends its body in small pieces, so that a kill falls between them."""

    def setup(self):
        super().setup()
        whole = self.wfile.write

        def write(data):
            for start in range(0, len(data), 20_000):
                whole(data[start:start + 20_000])
                time.sleep(0.001)
            return len(data)

        self.wfile.write = write


class Local(Backbone):
    """A backbone whose address is the test's own server."""

    base = ""

    @property
    def url(self):
        return f"{self.base}/{self.file}"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("DASSL_OFFLINE")
    # tqdm's own lock is one for a process and its forks, so that a fork that dies with it would stop all others.
    monkeypatch.setattr(tqdm, "_lock", threading.RLock(), raising=False)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with serving() as server:
        server.RequestHandlerClass = Slow
        server.files = {"/set.tar.gz": (stream.getvalue(), "application/gzip"),
                        "/w.pt": (WEIGHTS, "application/octet-stream")}
        monkeypatch.setattr(Local, "base", server.url)
        yield server


def killed_at_random(work, times, seconds, draw):
    """Start `work` in a fork and kill it, `times` over; how many kills came before its end."""
    kills = 0
    for _ in range(times):
        process = FORK.Process(target=work)
        process.start()
        process.join(draw.uniform(0, seconds))
        kills += process.is_alive()
        process.kill()
        process.join()
    return kills


def timed(work):
    start = time.monotonic()
    process = FORK.Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - start


def datasets_survive(server, tmp_path, wanted):
    archive = Archive(f"{server.url}/set.tar.gz", ("images",), md5=md5(server.files["/set.tar.gz"][0]))

    def fetch(name):
        (tmp_path / name).mkdir(exist_ok=True)
        download.get([archive], tmp_path / name)

    seconds, kills, run, draw = timed(functools.partial(fetch, "whole")), 0, 0, random.Random()
    while kills < wanted:
        run += 1
        kills += killed_at_random(functools.partial(fetch, f"cut{run}"), 3, seconds, draw)
        fetch(f"cut{run}")
        folder = tmp_path / f"cut{run}"
        assert tree(folder) == sorted([*FILES, "images"])
        assert all((folder / name).read_bytes() == content for name, content in FILES.items())
    return kills, run


def weights_survive(server, tmp_path, monkeypatch, wanted):
    backbone = Local("w", 32, hashlib.sha256(WEIGHTS).hexdigest())

    def fetch(name):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CLIP_CACHE", str(tmp_path / name))
            return weights.fetch(backbone)

    monkeypatch.setenv("HOME", str(tmp_path))
    seconds, kills, run, draw = timed(functools.partial(fetch, "all")), 0, 0, random.Random()
    while kills < wanted:
        run += 1
        kills += killed_at_random(functools.partial(fetch, f"part{run}"), 3, seconds, draw)
        assert fetch(f"part{run}").read_bytes() == WEIGHTS
        assert [path.name for path in (tmp_path / f"part{run}").iterdir()] == ["w.pt"]
    return kills, run


def test_a_killed_download_of_a_dataset_ends_whole(server, tmp_path):
    assert datasets_survive(server, tmp_path, 1)[0] >= 1


def test_a_killed_download_of_weights_ends_whole(server, tmp_path, monkeypatch):
    assert weights_survive(server, tmp_path, monkeypatch, 3)[0] >= 3


@pytest.mark.slow
def test_many_kills_of_downloads(server, tmp_path, monkeypatch, capsys):
    for what, (kills, runs) in (("a dataset", datasets_survive(server, tmp_path, 8)),
                                ("weights", weights_survive(server, tmp_path, monkeypatch, 8))):
        with capsys.disabled():
            print(f"\n{kills} kills of {runs} downloads of {what}")


def test_weights_that_were_killed_between_the_last_byte_and_the_name_are_taken(server, tmp_path, monkeypatch):
    backbone = Local("w", 32, hashlib.sha256(WEIGHTS).hexdigest())
    monkeypatch.setenv("CLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "cache").mkdir()
    for left in (WEIGHTS, WEIGHTS + b"more", b""):
        (tmp_path / "cache" / "w.part").write_bytes(left)
        assert weights.fetch(backbone).read_bytes() == WEIGHTS
        (tmp_path / "cache" / "w.pt").unlink()


def test_two_processes_fetch_the_same_weights_once(server, tmp_path, monkeypatch):
    backbone = Local("w", 32, hashlib.sha256(WEIGHTS).hexdigest())
    monkeypatch.setenv("CLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    processes = [FORK.Process(target=weights.fetch, args=(backbone,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert server.starts == [0] and (tmp_path / "cache" / "w.pt").read_bytes() == WEIGHTS


def test_what_a_killed_unpacking_left_is_removed(server, tmp_path):
    (tmp_path / ".unpacking-old" / "images").mkdir(parents=True)
    download.get([Archive(f"{server.url}/set.tar.gz", ("images",))], tmp_path)
    assert tree(tmp_path) == sorted([*FILES, "images"])


def test_what_a_run_left_that_was_killed_with_all_in_place_is_removed(server, tmp_path):
    archive = Archive(f"{server.url}/set.tar.gz", ("images",))
    download.get([archive], tmp_path)
    (tmp_path / ".unpacking-old").mkdir()
    for name in ("set.tar.gz", "set.tar.gz.unpacking-"):
        (tmp_path / name).touch()
    download.get([archive], tmp_path)
    assert tree(tmp_path) == sorted([*FILES, "images"])
