"""Descriptions: where they are looked for, what is accepted, and the authors' filter and draws."""
import http.server
import json
import random
import threading
from pathlib import Path

import pytest

from clip import InputError
from trainers.parts import description_files as files
from trainers.parts.descriptions import load_descriptions, match_classes, sample_descriptions

ATTR_JSON = Path(__file__).resolve().parents[1] / "golden" / "attr_json"
LONG = "A sentence that is long enough, number {}."
CLASSES = ["big dog", "cat"]


def write(path, classes=CLASSES, note="", count=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({name: [f"{note}{LONG.format(i)}" for i in range(count)] for name in classes}))
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return files.cache_folder()


def slow_literal_draw(sentences, m, classnames):
    """The rule of the authors' clip_txt, from Python's global stream."""
    drawn = []
    for name in classnames:
        usable = [s for s in sentences[name] if len(s) >= 20]
        drawn.append(random.sample(usable, m) if m < len(usable) else random.choices(usable, k=m))
    return drawn


@pytest.mark.parametrize("m", [2, 4, 5, 9])
def test_filter_and_draws_are_the_authors_for_the_same_random_stream(tmp_path, m):
    made = {"cat": ["x" * 19, "y" * 20, *(LONG.format(i) for i in range(4))],
            "big dog": [LONG.format(i) for i in "abc"]}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(made))
    random.seed(7)
    expected = slow_literal_draw(made, m, CLASSES)
    assert sample_descriptions(load_descriptions("des", CLASSES, path=str(path)), m, random.Random(7)) == expected
    assert all("x" * 19 not in own for own in expected) and {len(own) for own in expected} == {m}


def test_the_draws_are_those_of_a_run_of_the_authors_script(golden):
    reference, stream = golden("dvp_cse"), random.Random(0)         # its --seed
    for cause in range(3):
        expected = reference.json(f"causes_txt/{cause}")
        sentences = load_descriptions(f"cse_{cause + 1}", reference.classnames, stem="oxford_pets", path=str(ATTR_JSON))
        assert {len(own) for own in sentences} == {12, 25}          # both with and without replacement
        assert sample_descriptions(sentences, len(expected[0]), stream) == expected


def test_the_nearest_place_wins_path_own_root_cache(tmp_path, cache):
    write(cache / "pets_des.json", note="cache ")
    root = tmp_path / "data"
    own = {"des": {name: ["from the dataset itself"] for name in CLASSES}}

    def first(**places):
        return load_descriptions("des", CLASSES, stem="pets", **places)[0][0].split()[0]

    assert first(root=str(root)) == "cache"
    write(root / "some folder" / "descriptions" / "pets_des.json", note="root ")
    assert first(root=str(root)) == "root"
    assert first(root=str(root), own=own) == "from"
    assert first(root=str(root), own={"dist": own["des"]}) == "root"
    assert first(root=str(root), own=own, path=str(write(tmp_path / "a" / "causes" / "pets_des.json", note="path "))) \
        == "path"
    assert first(own=own, path=str(tmp_path / "a")) == "path"


@pytest.mark.parametrize("place", ["pets_cse_2.json", "causes/pets_cse_2.json", "pets/pets_cse_2.json",
                                   "pets/descriptions/pets_cse_2.json", "DecoupledVP/causes/pets_cse_2.json"])
def test_the_root_and_the_folders_in_it_are_searched(tmp_path, place):
    write(tmp_path / "data" / place)
    assert len(load_descriptions("cse_2", CLASSES, stem="pets", root=str(tmp_path / "data"))) == 2


def test_a_file_named_for_one_kind_does_not_serve_another(tmp_path):
    path = write(tmp_path / "mine_cse_1.json")
    assert load_descriptions("cse_1", CLASSES, path=str(path))
    with pytest.raises(InputError, match="holds cse_1 by its name, and cse_2 is needed"):
        load_descriptions("cse_2", CLASSES, path=str(path))
    with pytest.raises(InputError, match="no descriptions cse_2 in .*looked for cse_2.json there"):
        load_descriptions("cse_2", CLASSES, path=str(tmp_path))


def test_names_match_with_underscores_case_and_clear_punctuation_aside():
    keys = ["Big_Dog", "F/A-18", "a.b", "ab", "river"]
    found = match_classes(["big dog", "F-A-18", "River", "a-b", "boat"], keys)
    assert found == {"big dog": "Big_Dog", "F-A-18": "F/A-18", "River": "river"}     # a-b: two keys would do


def test_classes_come_in_the_asked_order_and_further_ones_in_the_file_do_not_matter(tmp_path):
    path = write(tmp_path / "mine.json", ["bird", "Cat", "big_dog"])
    assert load_descriptions("des", ["cat", "big dog"], path=str(path)) \
        == load_descriptions("des", CLASSES, path=str(path))[::-1]


def test_missing_classes_are_named_up_to_five_with_the_nearest_key(tmp_path):
    path = write(tmp_path / "mine.json", ["catt"])
    with pytest.raises(InputError, match=r"no descriptions of 'cat' \(nearest: 'catt'\): each") as error:
        load_descriptions("des", ["cat"], path=str(path))
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="'c4' and 3 more classes: each"):
        load_descriptions("des", [f"c{i}" for i in range(8)], path=str(path))


def test_a_class_whose_sentences_are_all_short_is_named(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"cat": ["short", "also short"]}')
    with pytest.raises(InputError, match="no sentence of 20 or more characters about 'cat'"):
        load_descriptions("des", ["cat"], path=str(path))


@pytest.mark.parametrize(("content", "reason"), [
    ("{", "Expecting"), ("[1]", "holds list"), ('{"cat": "text"}', "'cat'"), ("<html>", "web page"),
    ("[" * 100_000, "recursion"),
    ("{}", "not classes")])
def test_a_damaged_file_is_told_as_such(tmp_path, content, reason):
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(InputError, match=f"not a file of descriptions.*{reason}"):
        load_descriptions("des", ["cat"], path=str(path))


def test_without_a_file_the_paragraph_says_where_it_looked_and_the_ways_out(tmp_path):
    def refused(*args, **kwargs):
        with pytest.raises(InputError) as error:
            load_descriptions(*args, **kwargs)
        assert "\n" not in str(error.value)
        return str(error.value)

    text = refused("des", CLASSES, stem="dtd", root=str(tmp_path))
    assert "DASSL_OFFLINE=1 forbids" in text and str(tmp_path / "descriptions") in text and "describe.py make" in text
    assert "The authors have published no such file" in refused("des", CLASSES, stem="mine")
    assert "Downloading is off" in refused("des", CLASSES, stem="dtd", download=False)
    assert "no descriptions_stem" in refused("des", CLASSES)
    assert "got 'desc'" in refused("desc", CLASSES)


class Server:
    """Answers every path with `content`; cuts the first `cuts` replies in the middle; `status` for other paths."""

    def __init__(self, content, known="", cuts=0):
        self.asked = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append((self.path, self.headers.get("Range")))
                if known not in self.path:
                    return self.send_error(404)
                start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                end = len(content) // 2 if len(outer.asked) <= cuts else len(content)
                return self.wfile.write(content[start:end])

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def serve(monkeypatch):
    servers = []

    def start(content, **how):
        servers.append(Server(content, **how))
        monkeypatch.setenv("DASSL_OFFLINE", "0")
        monkeypatch.setattr(files, "_DVP", servers[-1].url)
        monkeypatch.setattr(files, "_ATTRVR", f"{servers[-1].url}/second")
        monkeypatch.setattr(files, "_ATTRVR_NOW", f"{servers[-1].url}/third")
        names = ("dtd_cse_1", "fgvc_dist", "fgvc_csl_4", "dtd_des", "I_des")
        monkeypatch.setattr(files, "_known", lambda: {f"{name}.json": files._digest(CONTENT) for name in names} | {
            "oxford_pets_des.json": "74f478b5"})
        return servers[-1]

    yield start
    for server in servers:
        server.server.shutdown()
        server.server.server_close()


CONTENT = json.dumps({name: [LONG.format(i) for i in range(3)] for name in CLASSES}).encode()


def test_a_download_is_kept_and_read_again_without_network(cache, serve, monkeypatch):
    server = serve(CONTENT, cuts=1)
    first = load_descriptions("cse_1", CLASSES, stem="dtd")
    half = len(CONTENT) // 2
    assert server.asked == [("/causes/dtd_cse_1.json", None), ("/causes/dtd_cse_1.json", f"bytes={half}-")]
    assert [p.name for p in cache.iterdir()] == ["dtd_cse_1.json"]
    monkeypatch.setenv("DASSL_OFFLINE", "1")
    assert load_descriptions("cse_1", CLASSES, stem="dtd") == first and len(server.asked) == 2
    (cache / "dtd_cse_1.json").write_bytes(CONTENT.replace(b"number 1", b"number 7"))
    with pytest.raises(InputError, match="was changed since"):
        load_descriptions("cse_1", CLASSES, stem="dtd")
    (cache / "dtd_cse_1.json").write_bytes(CONTENT)
    assert load_descriptions("cse_1", CLASSES, stem="dtd") == first


def test_imagenets_files_are_found_and_fetched_by_the_authors_name_for_it(tmp_path, cache, serve):
    write(tmp_path / "data" / "attributes" / "I_des.json")
    assert load_descriptions("des", CLASSES, stem="imagenet", root=str(tmp_path / "data"))
    server = serve(CONTENT, known="third")
    assert load_descriptions("des", CLASSES, stem="imagenet")
    assert [path for path, _ in server.asked] == ["/attributes/I_des.json", "/second/I_des.json", "/third/I_des.json"]


def test_a_class_with_too_few_sentences_is_told_once(caplog):
    with caplog.at_level("INFO"):
        drawn = sample_descriptions([["a"] * 3, ["b", "c"], ["d"]], 2, random.Random(0))
    assert [len(own) for own in drawn] == [2, 2, 2] and drawn[2] == ["d", "d"]
    assert [r.message for r in caplog.records] == [
        "1 of 3 classes have fewer than 2 descriptions (the fewest: 1): theirs are drawn with replacement, as by the "
        "authors"]


def test_attributes_have_a_second_address_and_late_causes_the_authors_spelling(serve):
    server = serve(CONTENT, known="second")
    load_descriptions("dist", CLASSES, stem="fgvc")
    with pytest.raises(InputError, match="404"):
        load_descriptions("cse_4", CLASSES, stem="fgvc")
    assert [path for path, _ in server.asked] == ["/attributes/fgvc_dist.json", "/second/fgvc_dist.json",
                                                  "/causes/fgvc_csl_4.json"]


@pytest.mark.parametrize(("stem", "content", "reason"), [
    ("dtd", b"<!DOCTYPE html><title>Sign in</title>", "it is a web page"),
    ("oxford_pets", CONTENT, "what came has sha256 .* and the authors' file has 74f478b5")])
def test_a_web_page_or_another_file_than_the_authors_is_refused_and_leaves_nothing(cache, serve, stem, content, reason):
    serve(content)
    with pytest.raises(InputError, match=reason):
        load_descriptions("des", CLASSES, stem=stem)
    assert not list(cache.iterdir())
