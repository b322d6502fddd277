"""tools/describe.py: a model asked through trouble, files checked finding by finding, and what is here."""
import http.server
import io
import json
import re
import threading
from itertools import count

import pytest

from tools import describe
from tools.labs.describe import chat, description_check, questions

KEY = "sk-secret-0123456789"
NAMES = ["big dog", "cat", "small_bird"]


class ChatServer:
    """Answers like a chat endpoint. `script` holds what the next requests meet instead; then all goes well.

    Attributes:
        asked: the questions; headers: of the last request.
    """

    def __init__(self):
        self.script, self.asked, self.headers, numbers, outer = [], [], {}, count(), self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.headers, text = dict(self.headers), body["messages"][0]["content"]
                outer.asked.append(text)
                wanted = int((re.search(r"Write (\d+)", text) or re.search(r"(\d+)", text))[1])
                sentences = [f"A sentence of some use, number {next(numbers)}" for _ in range(wanted)]
                answer = f"Here they are:\n```json\n{json.dumps(sentences)}\n```"
                trouble = outer.script.pop(0) if outer.script else ""
                if isinstance(trouble, int):
                    return self.reply(trouble, json.dumps({"error": {"message": f"no, {KEY} and\n slow down"}}))
                content = trouble.removeprefix("say ") if trouble.startswith("say ") else answer
                reply = json.dumps({"choices": [{"message": {"content": content}}],
                                    "usage": {"prompt_tokens": 10, "completion_tokens": 100}})
                return self.reply(200, "{not json" if trouble == "garbage" else reply, cut=trouble == "cut")

            def reply(self, status, text, cut=False):
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(text.encode()[:len(text) // 2 if cut else None])

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(chat, "FIRST_WAIT", 0.001)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = ChatServer()
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.fixture
def classes(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("\n".join(NAMES) + "\n")
    return path


@pytest.fixture
def make(server, classes, tmp_path, capsys):
    """make(*flags): exit code, all that was printed, and the file."""
    def run(*flags, per_class=4):
        code = describe.main(["make", "--classes", str(classes), "--kind", "cse_1", "--endpoint", server.url, "--model",
                              "m", "--root", str(tmp_path), "--per-class", str(per_class), "--yes", *flags])
        printed = capsys.readouterr()
        path = tmp_path / "descriptions" / "mine_cse_1.json"
        assert KEY not in printed.out + printed.err
        return code, printed.out + printed.err, json.loads(path.read_text()) if path.is_file() else None

    return run


def test_each_class_gets_its_sentences_and_the_file_is_checked(make, server, tmp_path):
    code, printed, made = make()
    assert code == 0 and list(made) == NAMES and all(len(set(own)) == 4 for own in made.values())
    assert "3 requests to m" in printed and "counted 30 prompt and 300 answer tokens" in printed and "fine" in printed
    assert [re.search(r'"(.*?)"', text)[1] for text in server.asked] == ["big dog", "cat", "small bird"]
    assert all("the shape of" in text for text in server.asked)
    assert server.headers["Authorization"] == f"Bearer {KEY}"
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("trouble", [429, 500, 503, "cut", "garbage"])
def test_what_passes_by_waiting_is_asked_again(make, server, trouble):
    server.script = [trouble, trouble]
    code, _, made = make()
    assert code == 0 and len(server.asked) == 5 and list(made) == NAMES


@pytest.mark.parametrize("answer", ["say no idea", "say [1, 2]", 'say ["short"]', 'say {"a": 1}', "say [broken"])
def test_an_answer_of_no_use_is_asked_for_again(make, server, answer):
    server.script = [answer]
    code, _, made = make()
    assert code == 0 and len(server.asked) == 4 and all(len(own) == 4 for own in made.values())


def test_what_an_answer_lacks_is_asked_for_and_no_more(make, server):
    server.script = ['say ["A first sentence of some use.", "A first sentence of some use.", "short"]']
    code, _, made = make()
    assert code == 0 and [re.search(r"Write (\d+)", text)[1] for text in server.asked] == ["4", "3", "4", "4"]
    assert len(made["big dog"]) == 4


def test_an_interrupted_run_goes_on_with_what_is_missing(make, server, tmp_path):
    server.script = ["", *[500] * chat.TRIES]
    code, printed, made = make()
    assert code == 2 and made is None and "failed 6 times, last with 500" in printed and "'cat'" in printed
    part = tmp_path / "descriptions" / "mine_cse_1.json.part"
    kept = json.loads(part.read_text())
    assert list(kept) == ["big dog"]
    server.asked.clear()
    code, printed, made = make()
    assert code == 0 and "1 of 3 classes are done" in printed and len(server.asked) == 2
    assert made["big dog"] == kept["big dog"] and not part.exists()
    server.asked.clear()
    assert make()[0] == 0 and not server.asked
    assert make(per_class=6)[0] == 0 and len(server.asked) == 3       # each gets two more


def test_ctrl_c_keeps_what_there_is(make, server, monkeypatch, tmp_path):
    asked = chat.Chat.ask

    def ask(self, question):
        if len(server.asked) == 2:
            raise KeyboardInterrupt
        return asked(self, question)

    monkeypatch.setattr(chat.Chat, "ask", ask)
    code, printed, _ = make()
    assert code == 130 and "resumes" in printed
    assert len(json.loads((tmp_path / "descriptions" / "mine_cse_1.json.part").read_text())) == 2


@pytest.mark.parametrize(("status", "reason"), [(401, "Set OPENAI_API_KEY"), (404, "404"), (400, "slow down"),
                                                (302, "302")])
def test_a_refusal_ends_it_at_once_with_one_paragraph_and_without_the_key(make, server, status, reason):
    server.script = [status]
    code, printed, _ = make()
    assert code == 2 and reason in printed and len(server.asked) == 1
    assert "Traceback" not in printed


def test_a_class_that_never_works_is_named_and_the_others_are_kept(make, server, tmp_path):
    server.script = ["", *["say no"] * 4]
    code, printed, made = make()
    assert code == 2 and made is None and "1 of 3 classes could not be described" in printed and "'cat'" in printed
    assert list(json.loads((tmp_path / "descriptions" / "mine_cse_1.json.part").read_text())) == ["big dog",
                                                                                                  "small_bird"]


def test_the_estimate_comes_first_and_a_dry_run_asks_nobody(make, server):
    code, printed, made = make("--dry-run")
    (answer,) = re.findall(r"about \d+ prompt and (\d+) answer", printed)
    assert code == 0 and not server.asked and made is None and int(answer) == 3 * 4 * 30
    assert "The first question" in printed and '"big dog"' in printed


def test_without_a_terminal_nothing_is_spent_unless_told(server, classes, tmp_path, capsys, monkeypatch):
    argv = ["make", "--classes", str(classes), "--kind", "des", "--endpoint", server.url, "--model", "m", "--root",
            str(tmp_path)]
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert describe.main(argv) == 2 and "Add --yes" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda text: "n")
    assert describe.main(argv) == 2 and "Nothing was asked." in capsys.readouterr().err
    assert not server.asked


def test_causes_topic_and_prompt_are_the_users_to_choose(make, server):
    make("--topic", "bird", "--causes", "beak, plumage")
    assert "each show one bird" in server.asked[0] and "the beak of" in server.asked[0]
    make("--prompt", "{count} lines on the {cause} of {name}, a {topic}", per_class=5)
    assert server.asked[-1] == '1 lines on the shape of "small bird", a object'


@pytest.mark.parametrize(("flags", "message"), [
    (["--prompt", "no class"], "names no class"), (["--prompt", "{name} {nam}"], "known are {name}"),
    (["--prompt", "{name"], "single brace"), (["--kind", "cse_4"], "there are 3: shape, colour, texture"),
    (["--kind", "desc"], "got 'desc'"), (["--kind", "des", "dist", "--out", "x.json"], "--out names one file"),
    (["--endpoint", "localhost:1/v1"], "begins with http"), (["--per-class", "0"], "at least 1")])
def test_wrong_options_are_one_paragraph(make, server, flags, message):
    code, printed, _ = make(*flags)
    assert code == 2 and message in printed and not server.asked


def test_the_papers_topics_and_causes_are_known():
    assert len(questions.TOPICS) == 12 and all(len(causes) == 3 for _, causes in questions.TOPICS.values())
    asked = questions.question("cse_2", "saint_bernard", 25, "pet", questions.TOPICS["oxford_pets"][1][1])
    assert 'the species and body shape of "saint bernard"' in asked and "{" not in asked


def sentence(number):
    return f"A sentence of some use, number {number}."


def inspect(tmp_path, content, m=3):
    path = tmp_path / "file.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return description_check.inspect(path, NAMES, m)


FINE = {name: [sentence(i) for i in range(4)] for name in NAMES}


def test_a_good_file_is_fine_and_its_row_counts(tmp_path):
    report = inspect(tmp_path, FINE)
    assert not report.problems and not report.notes
    assert report.row()[1:] == ["3 of 3", 12, "4 - 4", 12, "fine"]


@pytest.mark.parametrize(("change", "found"), [
    ({"cat": None}, r"1 class is missing: 'cat'\. Add"),
    ({"cat": None, "catt": [sentence(i) for i in range(4)]}, r"missing: 'cat' \(nearest: 'catt'\)"),
    ({"big dgo": [sentence(0)]}, r"1 key is not a class: 'big dgo' \(nearest: 'big dog'\)"),
    ({"cat": [sentence(0)]}, r"1 class is short of the 3 .*: 'cat' \(1\)"),
    ({"cat": ["short"] * 5}, r"1 class is short of the 3 .*: 'cat' \(0\)"),
    ({"cat": [*(sentence(i) for i in range(4)), "word " * 90]}, r"1 class is described by a sentence of more than")])
def test_each_thing_to_mend_is_named(tmp_path, change, found):
    content = {name: own for name, own in {**FINE, **change}.items() if own is not None}
    report = inspect(tmp_path, content)
    assert any(re.search(found, line) for line in report.problems), report.problems


def test_a_key_that_stands_twice_is_seen_although_json_keeps_the_last(tmp_path):
    text = json.dumps(FINE)
    report = inspect(tmp_path, f'{{"cat": {json.dumps(FINE["cat"])}, {text[1:]}')
    assert any("1 class is there twice: 'cat'" in line for line in report.problems)


def test_short_and_repeated_sentences_are_notes(tmp_path):
    report = inspect(tmp_path, {**FINE, "cat": [sentence(0), sentence(0), sentence(1), "short"]})
    assert not report.problems
    assert "left out: 'cat' (1)" in report.notes[0] and "repeat another" in report.notes[1]


def test_check_ends_with_2_where_something_is_to_mend(tmp_path, classes, capsys):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(FINE))
    bad.write_text("[]")
    assert describe.main(["check", str(good), "--classes", str(classes), "--m", "4"]) == 0
    assert describe.main(["check", str(good), str(bad), "--classes", str(classes), "--m", "4"]) == 2
    assert "not a file of descriptions" in capsys.readouterr().out


def test_a_byte_order_mark_is_no_part_of_the_class_that_is_asked_about(make, server, classes):
    classes.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(NAMES).encode())
    code, _, made = make()
    assert code == 0 and list(made) == NAMES and "\ufeff" not in "".join(server.asked)


@pytest.mark.parametrize(("url", "key", "warned"), [
    ("http://api.example.com/v1", KEY, True), ("https://api.example.com/v1", KEY, False),
    ("http://localhost:8000/v1", KEY, False), ("http://127.0.0.1/v1", KEY, False), ("http://[::1]:1/v1", KEY, False),
    ("http://api.example.com/v1", "", False)])
def test_a_key_that_leaves_the_machine_without_encryption_is_warned_of(url, key, warned, monkeypatch, classes, tmp_path,
                                                                       capsys):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    words = ["make", "--classes", str(classes), "--kind", "des", "--root", str(tmp_path), "--model", "m", "--dry-run"]
    assert describe.main([*words, "--endpoint", url]) == 0
    said = capsys.readouterr().err
    assert ("OPENAI_API_KEY goes to api.example.com without encryption" in said) == warned and KEY not in said


@pytest.mark.parametrize(("content", "message"), [
    (b"", "it is empty"), (b"cat\ncat", "'cat' is there twice"), (None, "cannot be read"),
    (b"caf\xe9\n", "is not a readable text"), ("cat\ndog".encode("utf-16"), "is not a readable text")])
def test_a_wrong_file_of_class_names_is_told(tmp_path, capsys, content, message):
    path = tmp_path / "names.txt"
    if content is not None:
        path.write_bytes(content)
    assert describe.main(["check", "x.json", "--classes", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_class_names_of_a_dataset_are_its_own_and_a_missing_one_tells_the_ways_out(tmp_path, capsys):
    path = tmp_path / "digits_des.json"
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    path.write_text(json.dumps({word: [sentence(i) for i in range(20)] for word in words}))
    assert describe.main(["check", str(path), "--dataset", "digits", "--root", str(tmp_path)]) == 0
    assert "10 of 10" in capsys.readouterr().out
    assert describe.main(["check", str(path), "--dataset", "oxford_pets", "--root", str(tmp_path)]) == 2
    assert "--classes" in capsys.readouterr().err and not (tmp_path / "oxford_pets").exists()


def test_list_tells_own_files_present_ones_and_those_to_fetch(tmp_path, capsys):
    (tmp_path / "descriptions").mkdir()
    (tmp_path / "descriptions" / "dtd_des.json").write_text(json.dumps(FINE))
    assert describe.main(["list", "--root", str(tmp_path)]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if "  " in line}
    assert rows["DescribableTextures"][:4] == ["dtd", "here", "to", "fetch"]
    assert rows["Shapes"][:3] == ["shapes", "its", "own"]
    assert rows["ImageNet"] == ["imagenet", "to", "fetch", "to", "fetch", "-", "-", "-"]
    assert describe.main(["list", "--root", str(tmp_path), "--dataset", "dtd"]) == 0
    printed = capsys.readouterr().out
    assert str(tmp_path / "descriptions" / "dtd_des.json") in printed and "Shapes" not in printed
