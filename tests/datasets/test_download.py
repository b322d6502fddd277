"""Downloads against a server on this machine: continued, checked, unpacked whole or not at all."""
import hashlib
import io
import os
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from local_server import md5, tar, tree

from datasets import download
from datasets.cards import Archive
from datasets.download import DownloadError, extract, fetch, get


def test_a_cut_connection_is_continued_where_it_ended(server, tmp_path):
    body = bytes(range(256)) * 4000
    server.files["/a.bin"], server.cuts = (body, "application/x"), 2
    assert fetch(f"{server.url}/a.bin", tmp_path / "a.bin", md5(body)).read_bytes() == body
    assert server.starts == [0, 512000, 768000] and tree(tmp_path) == ["a.bin"]


def test_a_connection_that_keeps_closing_is_left_to_a_later_run(server, tmp_path):
    body = bytes(range(256)) * 4000
    server.files["/a.bin"], server.cuts = (body, "application/x"), 6
    with pytest.raises(DownloadError, match="closed after 1,008,000 bytes; run again"):
        fetch(f"{server.url}/a.bin", tmp_path / "a.bin", md5(body))
    assert tree(tmp_path) == ["a.bin.part"]
    assert fetch(f"{server.url}/a.bin", tmp_path / "a.bin", md5(body)).read_bytes() == body
    assert server.starts[-1] == 1_008_000 and tree(tmp_path) == ["a.bin"]


def test_a_server_without_ranges_is_read_from_the_start(server, tmp_path):
    server.files["/a.bin"], server.ranges = (b"x" * 100, ""), False
    (tmp_path / "a.bin.part").write_bytes(b"y" * 60)
    assert fetch(f"{server.url}/a.bin", tmp_path / "a.bin").read_bytes() == b"x" * 100


def test_runs_that_start_together_fetch_once(server, tmp_path):
    server.files["/a.tar.gz"] = (tar(**{f"images/{i}.jpg": os.urandom(5000) for i in range(9)}), "application/gzip")
    archive = Archive(f"{server.url}/a.tar.gz", ("images",), md5(server.files["/a.tar.gz"][0]))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: get((archive,), tmp_path / "data"), range(4)))
    assert server.starts == [0] and len(tree(tmp_path / "data")) == 10


def test_a_plain_file_stays_under_the_name_that_is_wanted(server, tmp_path):
    server.files["/uc?id=1"] = (b"{}", "application/octet-stream")
    get((Archive(f"{server.url}/uc?id=1", ("split.json",), plain=True),), tmp_path)
    assert tree(tmp_path) == ["split.json"] and (tmp_path / "split.json").read_bytes() == b"{}"


def test_an_archive_in_the_archive_is_unpacked_and_neither_stays(server, tmp_path):
    outer = tar(**{"top/inner.tar.gz": tar(**{"images/1.jpg": b"a"}), "top/notes": b""})
    server.files["/a.tar.gz"] = (outer, "")
    get((Archive(f"{server.url}/a.tar.gz", ("images",), inside="top", then="inner.tar.gz"),), tmp_path)
    assert tree(tmp_path) == ["images", "images/1.jpg", "notes"]


def test_a_refused_archive_is_not_met_again(server, tmp_path):
    server.files["/a.tar"] = (_link("/etc/passwd"), "")
    for _ in range(2):
        with pytest.raises(DownloadError, match="nothing of it was unpacked"):
            get((Archive(f"{server.url}/a.tar", ("images",)),), tmp_path)
        assert tree(tmp_path) == []
    assert server.starts == [0, 0]


def test_too_small_a_disk_is_told_before_it_is_full(server, tmp_path, monkeypatch):
    server.files["/a.bin"] = (b"x" * 3_000_000, "")
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    with pytest.raises(DownloadError, match="needs 3 MB more.*has only 1 MB free"):
        fetch(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert tree(tmp_path) == []


def test_a_part_that_is_already_whole_is_taken_and_a_longer_one_deleted(server, tmp_path):
    server.files["/a.bin"] = (b"x" * 100, "")
    (tmp_path / "a.bin.part").write_bytes(b"x" * 100)
    assert fetch(f"{server.url}/a.bin", tmp_path / "a.bin").stat().st_size == 100
    (tmp_path / "b.bin.part").write_bytes(b"x" * 101)
    with pytest.raises(DownloadError, match="start afresh"):
        fetch(f"{server.url}/a.bin", tmp_path / "b.bin")
    assert tree(tmp_path) == ["a.bin"]


def test_a_wrong_checksum_is_told_and_the_file_deleted(server, tmp_path):
    server.files["/a.bin"] = (b"something else", "")
    with pytest.raises(DownloadError, match="MD5 is not"):
        fetch(f"{server.url}/a.bin", tmp_path / "a.bin", md5(b"the file"))
    assert tree(tmp_path) == []


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/gzip"])
def test_a_web_page_instead_of_an_archive_is_told_and_not_kept(server, tmp_path, kind):
    server.files["/a.tar.gz"] = (b"\n<!DOCTYPE html><p>Please log in", kind)
    with pytest.raises(DownloadError, match="web page"):
        fetch(f"{server.url}/a.tar.gz", tmp_path / "a.tar.gz")
    assert tree(tmp_path) == []


def test_only_what_lacks_is_fetched_and_archives_do_not_stay(server, tmp_path):
    for name in ("one", "two"):
        server.files[f"/{name}.tar.gz"] = (tar(**{f"{name}/a.txt": b"a"}), "application/gzip")
    archives = tuple(Archive(server.url + path, (path[1:4],), md5(body)) for path, (body, _) in server.files.items())
    (tmp_path / "one").mkdir()
    get(archives, tmp_path)
    assert tree(tmp_path) == ["one", "two", "two/a.txt"] and len(server.starts) == 1


def test_the_folder_inside_the_archive_is_what_arrives(server, tmp_path):
    server.files["/a.tar.gz"] = (tar(**{"top/data/images/1.jpg": b"a", "top/readme": b""}), "")
    get((Archive(f"{server.url}/a.tar.gz", ("images",), inside="top/data"),), tmp_path / "new")
    assert tree(tmp_path / "new") == ["images", "images/1.jpg"]


def test_an_absent_file_and_an_absent_server_are_told_with_the_address(server, tmp_path):
    with pytest.raises(DownloadError, match=r"/none\.zip could not be fetched.*404"):
        get((Archive(f"{server.url}/none.zip", ("x",)),), tmp_path)
    with pytest.raises(DownloadError, match="could not be fetched"):
        get((Archive("http://127.0.0.1:9/none.zip", ("x",)),), tmp_path)


def test_a_server_that_never_answers_is_given_up(monkeypatch, tmp_path):
    import socket

    monkeypatch.delenv("DASSL_OFFLINE", raising=False)
    monkeypatch.setattr(download, "_TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(DownloadError, match="timed out"):
        get((Archive(f"http://127.0.0.1:{silent.getsockname()[1]}/a.zip", ("x",)),), tmp_path)


def test_a_full_disk_is_told(server, tmp_path, monkeypatch):
    server.files["/a.zip"] = (b"PK", "")
    monkeypatch.setattr(download, "_receive", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(DownloadError, match="disk of .* is full"):
        get((Archive(f"{server.url}/a.zip", ("x",)),), tmp_path)


def test_offline_asks_no_server(server, tmp_path, monkeypatch):
    monkeypatch.setenv("DASSL_OFFLINE", "1")
    with pytest.raises(DownloadError, match="DASSL_OFFLINE=1"):
        get((Archive(f"{server.url}/a.zip", ("x",)),), tmp_path)
    assert server.starts == [] and tree(tmp_path) == []


def _zip(name: str, mode: int = 0o100644) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("good.txt", "a")
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        file.writestr(member, "../../secret")
    return stream.getvalue()


def _link(target: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as file:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = tarfile.SYMTYPE, target
        file.addfile(member)
    return stream.getvalue()


@pytest.mark.parametrize("content", [tar(**{"good.txt": b"a", "../evil.txt": b"b"}), _zip("../evil.txt"),
                                     tar(**{"good.txt": b"a", "/evil.txt": b"b"}),
                                     _zip("/evil.txt"), _zip("a\\..\\..\\evil.txt"), _zip("link", 0o120777),
                                     _link("/etc/passwd"), _link("../../secret")], ids=lambda content: "")
def test_a_malicious_archive_is_refused_whole(tmp_path, content):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.archive").write_bytes(content)
    with pytest.raises(DownloadError, match="outside"):
        extract(tmp_path / "data" / "a.archive", tmp_path / "data")
    assert tree(tmp_path) == ["data", "data/a.archive"]


@pytest.mark.parametrize("content", [b"no archive", tar(**{"a.txt": b"a" * 10_000})[:-30]], ids=["text", "cut"])
def test_a_damaged_archive_leaves_nothing(tmp_path, content):
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(DownloadError, match="run again") as caught:
        extract(tmp_path / "a.tar.gz", tmp_path)
    assert tree(tmp_path) == [] and "\n" not in str(caught.value)


def test_sources_are_tried_in_order_until_one_serves(server, tmp_path):
    body = tar(**{"images/1.jpg": b"a"})
    server.files |= {"/page.tar.gz": (b"<html>moved", "text/html"), "/other.tar.gz": (b"another file", ""),
                     "/evil.tar.gz": (_link("/etc/passwd"), ""), "/good.tar.gz": (body, "")}
    bad = ("none.tar.gz", "page.tar.gz", "other.tar.gz")
    urls = [f"{server.url}/{name}" for name in (*bad, "good.tar.gz")]
    get((Archive(urls[0], ("images",), md5(body), mirrors=tuple(urls[1:])),), tmp_path)
    assert tree(tmp_path) == ["images", "images/1.jpg"]
    get((Archive(f"{server.url}/evil.tar.gz", ("images",), mirrors=(urls[-1],)),), tmp_path / "unchecked")
    assert tree(tmp_path / "unchecked") == ["images", "images/1.jpg"]


def test_when_no_source_serves_every_reason_is_told_and_nothing_stays(server, tmp_path):
    server.files["/page.zip"] = (b"<html>moved", "text/html")
    archive = Archive(f"{server.url}/none.zip", ("images",), mirrors=(f"{server.url}/page.zip",))
    with pytest.raises(DownloadError, match=r"none\.zip could not be fetched.*404.*page\.zip gave a web page"):
        get((archive,), tmp_path)
    assert tree(tmp_path) == []


def test_halves_of_two_servers_are_joined_only_under_a_checksum(server, tmp_path, monkeypatch):
    body = tar(**{"images/1.jpg": os.urandom(100_000)})
    monkeypatch.setattr(download, "_CONTINUATIONS", 0)
    for checksum, start in ((md5(body), len(body) // 2), ("", 0)):
        server.files = {"/a.tar.gz": (body, ""), "/b.tar.gz": (body, "")}
        server.cuts, server.starts = 1, []
        folder = tmp_path / f"with{checksum}"
        get((Archive(f"{server.url}/a.tar.gz", ("images",), checksum, mirrors=(f"{server.url}/b.tar.gz",)),), folder)
        assert server.starts == [0, start] and tree(folder) == ["images", "images/1.jpg"]


def test_a_full_disk_asks_no_other_source(server, tmp_path, monkeypatch):
    server.files = {f"/{name}.zip": (b"x" * 3_000_000, "") for name in "ab"}
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    with pytest.raises(DownloadError, match="needs 3 MB more"):
        get((Archive(f"{server.url}/a.zip", ("x",), mirrors=(f"{server.url}/b.zip",)),), tmp_path)
    assert server.starts == [0]


def test_a_folder_of_the_archive_arrives_whole_under_the_name_that_is_wanted(server, tmp_path):
    server.files["/data?id=7"] = (tar(**{"sketch/n01/1.jpg": b"a", "__MACOSX/x": b""}), "")
    get((Archive(f"{server.url}/data?id=7", ("images",), whole="sketch"),), tmp_path)
    assert tree(tmp_path) == ["images", "images/n01", "images/n01/1.jpg"]


def test_an_unencrypted_address_needs_a_known_checksum(tmp_path, monkeypatch):
    monkeypatch.delenv("DASSL_OFFLINE")
    with pytest.raises(DownloadError, match="http://example.org/a.zip is not https, and no checksum"):
        get((Archive("http://example.org/a.zip", ("x",)),), tmp_path)
    assert not list(tmp_path.iterdir())


def test_of_a_zip_on_a_server_one_member_is_fetched_without_the_rest_and_only_if_it_is_the_right_one(server, tmp_path):
    split, stream = b'{"train": []}' * 50, io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("dtd/images/1.jpg", os.urandom(3 << 20))
        file.writestr("dtd/split.json", split, zipfile.ZIP_DEFLATED)
    server.files["/dtd.zip"] = (stream.getvalue(), "application/zip")

    def archive(digest, member="split.json"):
        return Archive(f"{server.url}/dtd.zip", ("split.json",), plain=True, sha256=digest, member=member)

    with pytest.raises(DownloadError, match="its SHA-256 is not 0000"):
        get([archive("0" * 64)], tmp_path)
    with pytest.raises(DownloadError, match="is not a zip with other.json"):
        get([archive("0" * 64, "other.json")], tmp_path)
    assert tree(tmp_path) == []
    get([archive(hashlib.sha256(split).hexdigest())], tmp_path)
    assert tree(tmp_path) == ["split.json"] and (tmp_path / "split.json").read_bytes() == split
    assert all(start == 0 or start > 2 << 20 for start in server.starts)            # never the photograph
    server.ranges = False
    with pytest.raises(DownloadError, match="is served whole only"):
        get([archive("0" * 64)], tmp_path / "other")
