"""Names, files and archives of weights: what loads, what is refused, and that nothing in a file is executed."""
import hashlib
import json
import os
import pickle
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import open_clip
import pytest
import torch
from open_clip import factory
from open_clip.model import CLIP
from safetensors.torch import save_file

from clip import BACKBONES, FrozenCLIP, InputError, WeightsNotFound, encode_texts, load_clip, weights
from clip import clip as openai
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


WRAPPED = {
    "module.": lambda w: {f"module.{k}": v for k, v in w.items()},
    "open_clip's training": lambda w: {"epoch": 5, "state_dict": {f"module.{k}": v for k, v in w.items()},
                                       "optimizer": {"state": {0: {"step": torch.ones(())}}, "param_groups": [{}]}},
    "Lightning": lambda w: {"state_dict": {**{f"model.{k}": v for k, v in w.items()}, "loss.weight": torch.ones(2)}},
    "model": lambda w: {"model": w, "args": {"lr": 0.1}}, "nested": lambda w: {"state": {"model_state_dict": w}},
    "compiled": lambda w: {k.replace("visual.", "_orig_mod.visual._orig_mod."): v for k, v in w.items()},
    "logit_bias": lambda w: {**w, "logit_bias": torch.ones(())},
}


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_what_training_programs_put_around_a_state_dict_is_taken_off(wrapped, tmp_path, tiny_clip, tiny_clip_weights):
    torch.save(WRAPPED[wrapped](tiny_clip_weights), tmp_path / "w.pt")
    assert same(load_clip(str(tmp_path / "w.pt")), tiny_clip)
    url = openai._MODELS[str(tmp_path / "w.pt")]
    assert torch.load(openai._download(url), weights_only=True).keys() == tiny_clip_weights.keys()


@pytest.mark.parametrize(("change", "words"), [
    (lambda w: {"text_model.embeddings.token_embedding.weight": w["token_embedding.weight"], "logit_scale":
                w["logit_scale"]}, "layout of Hugging Face's transformers"),
    (lambda w: {**w, "visual.proj_lora_A": torch.zeros(2, 2)}, "1 weights of LoRA that are not merged"),
    (lambda w: {**w, "visual.proj": torch.zeros(64, 64, dtype=torch.int8)}, "visual.proj in .* is int8, not floating"),
    (lambda w: {**w, "ln_final.weight": torch.full((64,), float("nan"))}, "ln_final.weight in .* NaN or infinite"),
    (lambda w: {f"{p}.{k}": v for k, v in w.items() for p in ("model", "ema")}, r"several CLIPs, 'model\.', 'ema\.'"),
    (lambda w: {"model": w, "ema": w}, "several models, model, ema"),
    (lambda w: {f"text.{k}" if not k.startswith(("visual", "logit")) else k: v for k, v in w.items()},
     "open_clip's layout.*architecture in front"),
    (lambda w: {**w, "logit_scale": torch.tensor(100.0)}, "logit_scale in .* is 100"),
    (lambda w: {**w, "text_projection": w["text_projection"].to("meta")},
     "text_projection in .* sparse or has no numbers"),
    (lambda w: torch.nn.Linear(2, 2), r"an object of Python's, torch\.nn\.modules\.linear\.Linear"),
])
def test_other_layouts_are_refused_by_name(change, words, tmp_path, tiny_clip_weights):
    torch.save(change(tiny_clip_weights), tmp_path / "w.pt")
    with pytest.raises(InputError, match=words) as caught:
        load_clip(str(tmp_path / "w.pt"))
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


@pytest.mark.parametrize(("content", "words"), [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "pointer of Git LFS"),
    (b"<!DOCTYPE html><html>", "a web page"), (b"\x08\x07onnx", "not a readable file of weights")])
def test_a_file_of_another_kind_is_refused_without_advice_to_run_it(content, words, tmp_path):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        load_clip(str(tmp_path / "w.pt"))
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("name", ["w.pt", "W.SAFETENSORS"])
def test_a_safetensors_file_is_known_by_its_content(name, tmp_path, tiny_clip, tiny_clip_weights):
    save_file(tiny_clip_weights, tmp_path / name)
    assert same(load_clip(str(tmp_path / name)), tiny_clip)


@pytest.fixture
def small_models(tmp_path, monkeypatch):
    """open_clip knows two small architectures of one shape, one with wide heads, and one with a text tower apart."""
    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", list(factory._MODEL_CONFIG_PATHS))
    text = {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 2}
    vision = {"image_size": 32, "layers": 2, "width": 128, "patch_size": 8}
    for name, more in {"small": {}, "small-quickgelu": {"quick_gelu": True}, "apart": {"custom_text": True},
                       "wide": {"quick_gelu": True, "vision_cfg": {**vision, "width": 320, "head_width": 80}}}.items():
        config = {"embed_dim": 64, "vision_cfg": vision, "text_cfg": text, **more}
        (tmp_path / f"{name}.json").write_text(json.dumps(config))
        open_clip.add_model_config(tmp_path / f"{name}.json")
    yield
    monkeypatch.undo()
    factory._rescan_model_configs()


@pytest.mark.parametrize("arch", ["small", "small-quickgelu", "wide", "apart"])
def test_a_file_behind_its_architecture_gives_open_clips_own_features(arch, small_models, tmp_path):
    torch.manual_seed(0)
    theirs, images = open_clip.create_model(arch).eval(), torch.randn(4, 3, 32, 32)
    for name, p in theirs.named_parameters():               # as large as trained ones, where activations differ
        p.data *= 40 if "c_fc" in name else 20 if "in_proj" in name else 1
    torch.save({"state_dict": {f"module.{k}": v for k, v in theirs.state_dict().items()}}, tmp_path / "w.pt")
    ours, texts = load_clip(f"{arch}:{tmp_path}/w.pt"), ["a photo of a circle.", "a drawing of two dogs."]
    with torch.no_grad():
        expected = theirs.encode_image(images, normalize=True)
        torch.testing.assert_close(ours.encode_image(images), expected, atol=1e-5, rtol=1e-5)
        expected = theirs.encode_text(open_clip.tokenize(texts), normalize=True)
        torch.testing.assert_close(encode_texts(ours, texts), expected, atol=1e-5, rtol=1e-5)


def test_a_file_that_does_not_say_how_it_computes_is_refused_where_the_ways_differ(small_models, tmp_path):
    for arch, words in (("small", "small, small-quickgelu of open_clip's.*tuned from OpenAI's are small-quickgelu"),
                        ("wide", f"wide of open_clip's.*in front: wide:{tmp_path}")):
        torch.save(open_clip.create_model(arch).state_dict(), tmp_path / "w.pt")
        with pytest.raises(InputError, match=words):
            load_clip(str(tmp_path / "w.pt"))


def test_a_file_of_unknown_shape_is_read_as_openais_and_told(tmp_path, tiny_clip_weights, caplog):
    torch.save(tiny_clip_weights, tmp_path / "w.pt")
    load_clip(str(tmp_path / "w.pt"))
    assert "does not say its activation" in caplog.text and "OpenAI's are assumed" in caplog.text
    caplog.clear()
    torch.save({**tiny_clip_weights, "input_resolution": torch.tensor(32)}, tmp_path / "w.pt")     # OpenAI's mark
    load_clip(str(tmp_path / "w.pt"))
    assert not caplog.records
    with pytest.raises(InputError, match="Give its path alone"):
        load_clip(f"ViT-B-32:{tmp_path}/w.pt")


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
    with pytest.raises(InputError, match="No weight file at .*gone.pt. ViT-B-16: takes"):
        resolve("ViT-B-16:gone.pt")


def test_missing_weights_say_where_was_looked_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(WeightsNotFound) as caught:
        load_clip("ViT-B/16")
    message = str(caught.value)
    for part in ("ViT-B/16", str(tmp_path / "cache" / "ViT-B-16.pt"), ".cache/clip/ViT-B-16.pt",
                 "https://openaipublic", "scripts/dapt.sh digits 16"):
        assert part in message
    assert message.count("\n") <= 6 and not list((tmp_path / "cache").glob("*"))


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
    with pytest.raises(WeightsNotFound, match="open_clip could not fetch them.*name it as ViT-B-32:PATH"):
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
    good = Local("w", 32, hashlib.sha256(content).hexdigest())
    assert weights.fetch(good).read_bytes() == content
    (folder / "w.pt").unlink()
    assert weights.fetch(good).read_bytes() == content

    (folder / "bad.pt").write_bytes(b"other")
    with pytest.raises(InputError, match="not the published"):
        weights.fetch(Local("bad", 32, "0" * 64))
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
