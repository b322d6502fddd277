"""Names, files and archives of weights: what loads, what is refused, and that nothing in a file is executed."""
import hashlib
import os
import pickle
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file

from clip import BACKBONES, FrozenCLIP, InputError, WeightsNotFound, load_clip, weights
from clip.archive import is_torchscript, read_torchscript
from clip.backbones import Backbone, OpenCLIPName, resolve
from clip.tiny import hashed_rows, read_tiny
from clip.weights import keep_in_memory


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("form", ["pt", "wrapped", "half", "safetensors"])
def test_a_local_file_loads_in_every_form(form, tmp_path, tiny_clip, tiny_clip_weights):
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    if form == "safetensors":
        save_file({k: v.contiguous() for k, v in tiny_clip_weights.items()}, path)
    elif form == "half":
        torch.save({k: v.half() for k, v in tiny_clip_weights.items()}, path)
    else:
        torch.save({"state_dict": tiny_clip_weights} if form == "wrapped" else tiny_clip_weights, path)
    loaded = load_clip(str(path))
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() and loaded.name == str(path)
    if form == "half":
        assert all(p.dtype == torch.float32 for p in loaded.parameters())
    else:
        assert same(loaded, tiny_clip)


def script_archive(path):
    """A TorchScript file laid out as OpenAI's are: a traced CLIP with fp16 weights and integer extras."""
    torch.manual_seed(0)
    model = CLIP(32, dict(layers=2, width=64, patch_size=8, image_size=32),
                 dict(context_length=77, vocab_size=49408, width=64, heads=1, layers=1), quick_gelu=True).eval()
    for name, value in dict(input_resolution=32, context_length=77, vocab_size=49408).items():
        if name in ("context_length", "vocab_size") and hasattr(model, name):
            delattr(model, name)
        model.register_buffer(name, torch.tensor(value))
    traced = torch.jit.trace(model, (torch.zeros(1, 3, 32, 32), torch.zeros(1, 77, dtype=torch.long)),
                             check_trace=False)
    traced.save(str(path))
    return traced


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_archive_is_read_without_torch_jit(tmp_path, monkeypatch):
    path = tmp_path / "archive.pt"
    theirs = script_archive(path).state_dict()
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: pytest.fail("the archive's code was loaded"))
    assert is_torchscript(path)
    ours = read_torchscript(path)
    assert {k for k in theirs if k != "attn_mask"} <= ours.keys()
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs if k in ours)
    assert load_clip(str(path)).image_size == 32


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    plain, archive = tmp_path / "plain.pt", tmp_path / "archive.pt"
    torch.save({"x": Evil()}, plain)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("m/code/__torch__.py", "")
        file.writestr("m/data.pkl", pickle.dumps(Evil()))
    for path in (plain, archive):
        with pytest.raises(InputError, match="is not a readable"):
            load_clip(str(path))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("cut", [0, 10, 5000])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_cut_file_is_refused_by_name(cut, suffix, tmp_path, tiny_clip_weights):
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    small = {k: v.contiguous() for k, v in tiny_clip_weights.items() if k != "token_embedding.weight"}
    (save_file if suffix == ".safetensors" else torch.save)(small, whole)
    path.write_bytes(whole.read_bytes()[:cut])
    with pytest.raises(InputError, match=f"cut{suffix}"):
        load_clip(str(path))


def test_every_openai_name_resolves_and_misspellings_get_the_nearest():
    assert len(BACKBONES) == 9 and all(resolve(name).name == name for name in BACKBONES)
    with pytest.raises(InputError, match=r"did you mean 'ViT-B/16'\?"):
        resolve("VIT-B/16")
    with pytest.raises(InputError, match="No weight file at .*gone.pt"):
        resolve("gone.pt")


def test_open_clip_names_need_a_known_architecture_and_tag():
    assert resolve("ViT-B-16:laion2b_s34b_b88k") == OpenCLIPName("ViT-B-16", "laion2b_s34b_b88k")
    assert resolve("ViT-B/32:random") == OpenCLIPName("ViT-B-32", "random")
    with pytest.raises(InputError, match="no architecture 'ViT-B-61'.*ViT-B-16"):
        resolve("ViT-B-61:openai")
    with pytest.raises(InputError, match="no weights 'laion' for ViT-B-16; it has openai"):
        resolve("ViT-B-16:laion")


def test_missing_weights_say_where_was_looked_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(WeightsNotFound) as caught:
        load_clip("ViT-B/16")
    message = str(caught.value)
    for part in ("ViT-B/16", str(tmp_path / "cache" / "ViT-B-16.pt"), ".cache/clip/ViT-B-16.pt",
                 "https://openaipublic", "scripts/dapt.sh digits 16"):
        assert part in message
    assert "\n" not in message and not list((tmp_path / "cache").glob("*"))


@pytest.mark.parametrize("row", [{"url": "http://127.0.0.1:9/weights.pt"}, {"hf_hub": "someone/model/"}])
def test_offline_no_server_is_asked_for_open_clips_weights(row, tmp_path, monkeypatch):
    import open_clip
    from huggingface_hub import constants

    monkeypatch.setenv("DASSL_OFFLINE", "1")
    monkeypatch.setenv("CLIP_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda arch, tag: row)
    for asks in ("socket.socket.connect", "socket.getaddrinfo"):
        monkeypatch.setattr(asks, lambda *_, **__: pytest.fail("a server was asked"))
    with pytest.raises(WeightsNotFound, match="open_clip could not fetch them"):
        load_clip("ViT-B-32:laion2b_s34b_b79k")


@pytest.fixture
def server(tmp_path):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    yield folder, f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


class Local(Backbone):
    """A backbone whose address is the test's own server."""

    base = ""

    @property
    def url(self):
        return f"{self.base}/{self.file}"


def test_weights_are_fetched_verified_and_found_again(server, tmp_path, monkeypatch):
    folder, base = server
    content = b"weights" * 1000
    (folder / "w.pt").write_bytes(content)
    monkeypatch.setattr(Local, "base", base)
    monkeypatch.setenv("CLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DASSL_OFFLINE")
    good = Local("w", "w", 32, hashlib.sha256(content).hexdigest(), "w.pt")
    assert weights.fetch(good).read_bytes() == content
    (folder / "w.pt").unlink()
    assert weights.fetch(good).read_bytes() == content

    (folder / "bad.pt").write_bytes(b"other")
    with pytest.raises(InputError, match="not the published"):
        weights.fetch(Local("bad", "bad", 32, "0" * 64, "bad.pt"))
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["w.pt"]


def test_the_embedded_model_loads_with_its_whole_vocabulary():
    clip = load_clip("tiny")
    assert isinstance(clip, FrozenCLIP) and clip.image_size == 32 and clip.token_embedding.num_embeddings == 49408
    assert clip.visual.transformer.resblocks[0].attn.head_width == 64
    assert weights.TINY_FILE.stat().st_size <= 4 * 2 ** 20
    rows, known = read_tiny()
    assert len(known) < 5000 and torch.equal(clip.token_embedding.weight, rows["token_embedding.weight"])


def test_words_outside_the_embedded_vocabulary_are_named(caplog):
    from clip import encode_texts

    clip = load_clip("tiny")
    encode_texts(clip, ["a photo of a circle."])
    assert not caplog.records
    encode_texts(clip, ["a photo of a yorkshire terrier."])
    assert "yorkshire" in caplog.text and "terrier" in caplog.text and "photo" not in caplog.text


def test_hashed_rows_depend_on_nothing_but_id_and_column():
    assert torch.equal(hashed_rows(10, 4, 0.5)[:5], hashed_rows(5, 4, 0.5))
    rows = hashed_rows(2000, 64, 0.5)
    assert abs(rows.std() - 0.5) < 0.01 and abs(rows.mean()) < 0.01
    assert rows[7, 5].item() == pytest.approx(literal_splitmix(7 * 64 + 5) * 0.5 * 12 ** 0.5, abs=1e-6)


def literal_splitmix(n):
    """Steele et al., OOPSLA 2014: the n-th output of a generator that starts at 0, as a number in [-0.5, 0.5)."""
    x = n * 0x9E3779B97F4A7C15 % 2 ** 64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2 ** 64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2 ** 64
    return ((x ^ x >> 31) >> 40) / 2 ** 24 - 0.5


def test_weights_that_are_kept_in_memory_are_those_of_the_file_until_it_changes(tmp_path, tiny_clip_weights):
    path = tmp_path / "clip.pt"
    torch.save(tiny_clip_weights, path)
    assert keep_in_memory(str(path)) and not keep_in_memory(str(tmp_path / "none.pt"))
    kept = load_clip(str(path))
    assert all(torch.equal(kept.state_dict()[name], value) for name, value in tiny_clip_weights.items())
    with torch.no_grad():
        kept.ln_final.weight.add_(1.0)                  # a user's model, not what is kept
    assert torch.equal(load_clip(str(path)).ln_final.weight, tiny_clip_weights["ln_final.weight"])
    torch.save({**tiny_clip_weights, "ln_final.weight": torch.full((64,), 3.0)}, path)
    os.utime(path, ns=(1, 1))
    changed = load_clip(str(path))
    assert changed.ln_final.weight[0] == 3.0 and changed.sha256 != kept.sha256


def test_the_embedded_weights_can_be_kept_too():
    assert keep_in_memory("tiny")
    assert load_clip("tiny").known_tokens == read_tiny()[1]
