"""The page's server: answers its own page on this machine, takes images within limits, and nothing else."""
import http.client
import io
import json
import re
import socket
import threading
import time
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dassl.utils import UserError
from tools import predict
from tools.labs.serve import upload
from tools.predict import classifier_of, parser

uvicorn = pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
pytest.importorskip("starlette", reason="the extra `serve` is not installed")
MARKUP = '<img src=x onerror="alert(1)">'


@pytest.fixture(scope="module")
def classifier():
    words = ["--backbone", "tiny", "--device", "cpu", "--classes", f"circle, {MARKUP}"]
    return classifier_of(parser().parse_args(words))


@pytest.fixture(scope="module")
def make(classifier):
    words = ["--backbone", "tiny", "--device", "cpu"]
    return lambda names: classifier_of(parser().parse_args(words), classes=names) if names else classifier


@pytest.fixture(scope="module")
def port(make):
    """The page as --serve shows it, on a free port."""
    from tools.labs.serve.server import application, bound

    place = bound("127.0.0.1", 0)
    config = uvicorn.Config(application(make, 5, ("127.0.0.1", "localhost")), log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield place.getsockname()[1]
    server.should_exit = True
    thread.join()
    place.close()


def ask(port, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in {"Content-Length": str(len(body or b"")), **headers}.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders(body)
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply, content


def picture(kind="PNG", size=(40, 30), **options):
    file = io.BytesIO()
    Image.fromarray(np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(size[1], size[0], 3)).save(
        file, kind, **options)
    return file.getvalue()


def post(port, body, **headers):
    reply, content = ask(port, "POST", "/predict", body, **{"Content_Type": "image/png", **headers})
    return reply.status, json.loads(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_an_image_gets_the_classifiers_own_answer(kind, port, classifier):
    status, answer = post(port, picture(kind))
    wanted = classifier.predict(Image.open(io.BytesIO(picture(kind))))[0].as_dict()["top"]
    assert status == 200 and answer["top"] == wanted and (answer["width"], answer["height"]) == (40, 30)


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/icon.svg", "/about", "/gone"])
def test_every_reply_forbids_other_sources_frames_and_sniffing(path, port):
    reply, _ = ask(port, "GET", path)
    policy = reply.getheader("Content-Security-Policy")
    assert reply.status == (404 if path == "/gone" else 200)
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert reply.getheader("X-Content-Type-Options") == "nosniff"


@pytest.mark.parametrize("path", ["/../tools/predict.py", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/page.html",
                                  "/server.py", "/page.js/../server.py"])
def test_no_file_of_the_machine_is_given_out(path, port):
    reply, content = ask(port, "GET", path)
    assert reply.status == 404 and b"root:" not in content and b"import" not in content


def test_the_page_loads_nothing_from_elsewhere_and_holds_no_script_of_its_own(port):
    html, script, style = (ask(port, "GET", path)[1].decode() for path in ("/", "/page.js", "/page.css"))
    for text in (html, script, style):
        assert not re.search(r"https?://|//[a-z]+\.", text.replace("http://www.w3.org", ""))
    assert not re.search(r"<script[^>]*>[^<]|\son\w+=|style=", html)
    assert "innerHTML" not in script and "eval(" not in script and "prefers-color-scheme: dark" in style


def test_class_names_reach_the_page_as_data_only(port):
    html, about = (ask(port, "GET", path) for path in ("/", "/about"))
    assert MARKUP.encode() not in html[1]
    assert json.loads(about[1])["classes"] == ["circle", MARKUP]
    assert about[0].getheader("Content-Type") == "application/json"


@pytest.mark.parametrize(("body", "status"), [
    (b"", 415), (b"no image", 415), (picture()[:200], 422), (b"%PDF-1.4", 415),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415), (picture("PPM"), 415)])
def test_what_is_no_whole_image_of_a_known_format_is_refused(body, status, port):
    found, answer = post(port, body)
    assert found == status and set(answer) == {"error"} and "0x" not in answer["error"]


def test_other_class_names_of_the_page_are_answered_and_bad_ones_refused(port):
    status, answer = post(port, picture(), X_Classes="a%20cat%2C%20a%20dog,caf%C3%A9")
    assert status == 200 and {entry["class"] for entry in answer["top"]} == {"a cat", "a dog", "café"}
    for names in ("alone", "twice,twice"):
        status, answer = post(port, picture(), X_Classes=names)
        assert status == 422 and set(answer) == {"error"}


def test_example_images_are_those_of_the_runs_test_and_no_other_file(tmp_path, classifier, make):
    from tools.labs.serve.server import _examples

    for name in "ab":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    (tmp_path / "secret.txt").write_text("root:")
    rows = [f"{tmp_path / 'a.png'},x,x", f"{tmp_path / 'b.png'},x,y", f"{tmp_path / 'secret.txt'},y,y",
            f"{tmp_path / 'gone.png'},z,z", f"{tmp_path / 'b.png'},w,w"]
    (tmp_path / "predictions.csv").write_text("\n".join(["path,true,predicted", *rows]))
    found = _examples(str(tmp_path))
    assert len(found) == 2 and all(content.startswith(b"\x89PNG") for content in found)
    assert _examples("") == []


def bomb(side):
    """A PNG of side x side pixels, of which its head alone tells."""
    def part(kind, content):
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    head = side.to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(b"\0" * 1000)) + part(b"IEND", b"")


@pytest.mark.parametrize("side", [8_000, 20_000, 60_000])
def test_more_pixels_than_allowed_are_refused_unread(side, port):
    assert post(port, bomb(side))[0] == 413


def test_more_bytes_than_allowed_are_refused_whether_told_or_not(port, monkeypatch):
    monkeypatch.setattr(upload, "MAX_BYTES", 5000)
    assert post(port, b"x" * 6000)[0] == 413
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/predict", iter([b"x" * 3000] * 3), {"Content-Type": "image/png"}, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_other_sites_cannot_send_images_or_reach_the_page_under_their_name(port):
    here = f"127.0.0.1:{port}"
    assert post(port, picture(), Origin="http://evil.example")[0] == 403
    assert post(port, picture(), Origin="null")[0] == 403
    assert post(port, picture(), Origin=f"http://{here}")[0] == 200
    assert post(port, picture(), Content_Type="text/plain")[0] == 415          # what a page may send without asking
    for host, status in (("evil.example", 421), (f"evil.example:{port}", 421), (here, 200), (f"localhost:{port}", 200)):
        assert ask(port, "GET", "/about", Host=host)[0].status == status


def test_other_methods_are_not_answered(port):
    assert ask(port, "GET", "/predict")[0].status == 405 and ask(port, "DELETE", "/")[0].status == 405


def test_a_port_that_is_taken_and_images_with_serve_are_told(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        words = ["--serve", "--port", str(other.getsockname()[1]), "--backbone", "tiny", "--classes", "a,b"]
        assert predict.cli(words) == 2 and "--port 0" in capsys.readouterr().err
    assert predict.cli([*words, "a.png"]) == 2 and "leave a.png out" in capsys.readouterr().err


def test_no_classes_to_name_are_refused_before_the_page_is_shown(monkeypatch, capsys):
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)
    words = ["--serve", "--port", "0", "--backbone", "tiny", "--classes", "a,b", "--topk", "0"]
    assert predict.cli(words) == 2 and "--topk, the number of classes to name" in capsys.readouterr().err


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
def test_who_else_can_see_the_page_is_told(host, warned, classifier, monkeypatch, capsys):
    from tools.labs.serve.server import serve

    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)
    assert serve(lambda names: classifier, SimpleNamespace(host=host, port=0, topk=5, images=[])) == 0
    out, err = capsys.readouterr()
    assert re.match(rf"http://{host}:\d+ ", out) and ("can use this page" in err) == warned


def test_missing_packages_are_named(monkeypatch):
    from tools.labs.serve import server

    monkeypatch.setattr(server, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install starlette uvicorn"):
        server.serve(None, SimpleNamespace(images=[]))
