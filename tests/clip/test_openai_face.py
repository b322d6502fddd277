"""OpenAI's names of CLIP: the same features as our own towers', files that load as public code loads them."""

import open_clip
import pytest
import torch
from open_clip.model import CLIP as OpenCLIP
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from clip import FrozenCLIP, InputError, TextTokens, embed_texts, encode_texts, load_clip
from clip import clip as face
from clip import model as towers
from clip.simple_tokenizer import SimpleTokenizer

TEXTS = ["a photo of a cat.", "hello", "a much longer sentence about a dog on a hill."]


def load_clip_to_cpu(backbone_name, design_details=None):
    """As public trainers do it, line by line (CoOp, trainers/coop.py; MaPLe, trainers/maple.py)."""
    url = face._MODELS[backbone_name]
    model_path = face._download(url)
    try:
        model = torch.jit.load(model_path, map_location="cpu").eval()
        state_dict = None
    except RuntimeError:
        state_dict = torch.load(model_path, map_location="cpu")
    if design_details is None:
        return face.build_model(state_dict or model.state_dict())
    return face.build_model(state_dict or model.state_dict(), design_details)


class TextEncoder(nn.Module):
    """The text tower as CoOp's trainers call it: every access is part of the contract."""

    def __init__(self, clip_model):
        super().__init__()
        self.transformer, self.ln_final = clip_model.transformer, clip_model.ln_final
        self.positional_embedding = clip_model.positional_embedding
        self.text_projection, self.dtype = clip_model.text_projection, clip_model.dtype

    def forward(self, prompts, tokenized_prompts):
        x = prompts + self.positional_embedding.type(self.dtype)
        x = x.permute(1, 0, 2)
        x = self.transformer(x)
        x = x.permute(1, 0, 2)
        x = self.ln_final(x).type(self.dtype)
        return x[torch.arange(x.shape[0]), tokenized_prompts.argmax(dim=-1)] @ self.text_projection


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))                   # an earlier test may have filled the cache below it
    monkeypatch.setenv("CLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def tiny_face(tiny_clip_weights):
    return towers.build_model(tiny_clip_weights).float()


VIT = dict(layers=3, width=128, head_width=64, patch_size=8, image_size=32)
RESNET = dict(layers=[1, 2, 1, 1], width=64, image_size=64)


@pytest.mark.parametrize("vision", [VIT, RESNET], ids=["vit", "resnet"])
def test_features_equal_open_clips_and_our_frozen_towers(vision):
    torch.manual_seed(0)
    text = dict(context_length=77, vocab_size=49408, width=128, heads=2, layers=2)
    theirs = OpenCLIP(48, dict(vision), text, quick_gelu=True).eval()
    weights = {k: v for k, v in theirs.state_dict().items() if k != "attn_mask"}
    ours, frozen = towers.build_model(weights).float(), FrozenCLIP.from_state_dict(weights)
    size, tokens = vision["image_size"], face.tokenize(TEXTS)
    images = torch.randn(3, 3, size, size)
    assert (ours.visual.input_resolution, ours.visual.output_dim, ours.dtype) == (size, 48, torch.float32)
    with torch.no_grad():
        for a, b, c in [(ours.encode_image(images), theirs.encode_image(images), frozen.encode_image(images)),
                        (ours.encode_text(tokens), theirs.encode_text(tokens), encode_texts(frozen, TEXTS))]:
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(unit(a), c, atol=1e-5, rtol=1e-5)
        per_image, per_text = ours(images, tokens)
        theirs_per_image = theirs.get_logits(images, tokens)[0]
    torch.testing.assert_close(per_image, theirs_per_image, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(per_text, per_image.T)


def test_a_coop_text_encoder_gives_the_features_and_gradients_of_our_frozen_tower(tiny_face, tiny_clip):
    prompts = [f"X X X X {name}." for name in ("cat", "yellow bird", "dog")]
    ids = face.tokenize(prompts)
    embedding = tiny_face.token_embedding(ids).type(tiny_face.dtype).detach()
    ctx, weight = torch.randn(4, 64).requires_grad_(), torch.randn(3, 32)
    whole = torch.cat([embedding[:, :1], ctx.expand(3, -1, -1), embedding[:, 5:]], dim=1)
    theirs = unit(TextEncoder(tiny_face)(whole, ids))
    ours = tiny_clip.encode_text(TextTokens(whole, ids.argmax(-1)))
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.autograd.grad((theirs * weight).sum(), ctx)[0],
                               torch.autograd.grad((ours * weight).sum(), ctx)[0], atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("form", ["plain", "legacy", "wrapped", "safetensors", "archive"])
def test_public_loading_code_reads_every_kind_of_file(form, tmp_path, tiny_clip_weights, tiny_face, own_cache):
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pt")
    if form == "safetensors":
        save_file(tiny_clip_weights, path)
    elif form == "archive":
        script_archive(tiny_face, path)
    else:
        torch.save({"state_dict": tiny_clip_weights} if form == "wrapped" else tiny_clip_weights, path,
                   _use_new_zipfile_serialization=form != "legacy")
    loaded = load_clip_to_cpu(str(path)).float()
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, tiny_clip_weights[name]), name
    assert len(list(own_cache.glob("*"))) == (form not in ("plain", "legacy"))
    assert face._download(face._MODELS[str(path)]) == face._download(str(path))


def script_archive(model, path):
    """A TorchScript file of the module, which `torch.jit.load` would read and run."""
    images, ids = torch.zeros(1, 3, 32, 32), face.tokenize("x")
    torch.jit.trace(model, (images, ids), check_trace=False).save(str(path))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_the_embedded_model_loads_by_its_name(own_cache):
    frozen, images = load_clip("tiny"), torch.randn(2, 3, 32, 32)
    for model in (load_clip_to_cpu("tiny").float(), face.load("tiny", device="cpu")[0]):
        with torch.no_grad():
            torch.testing.assert_close(unit(model.encode_image(images)), frozen.encode_image(images), atol=1e-5, rtol=0)
            torch.testing.assert_close(unit(model.encode_text(face.tokenize("a photo of a circle."))),
                                       encode_texts(frozen, ["a photo of a circle."]), atol=1e-5, rtol=0)
    assert len(list(own_cache.iterdir())) == 1


def test_a_file_in_download_root_is_taken_only_if_it_is_the_published_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "ViT-B-16.pt").write_bytes(b"another file")
    with pytest.raises(InputError, match="The weights of ViT-B/16 are not on this machine"):
        face._download(face._MODELS["ViT-B/16"], root=str(tmp_path))


def test_what_is_no_backbone_is_refused_with_the_nearest_name():
    assert len(face.available_models()) == 10 and "ViT-B/16" in face.available_models()
    with pytest.raises(InputError, match=r"did you mean 'ViT-B/16'\?"):
        face.load("ViT-B16")
    with pytest.raises(InputError, match="open_clip's.*activation"):
        face._MODELS["ViT-B-16:laion2b_s34b_b88k"]
    with pytest.raises(InputError, match="neither an address of OpenAI's release nor a file"):
        face._download("https://example.org/ViT-B-16.pt")


@pytest.mark.parametrize(("change", "message"), [
    (lambda w: {"state": w["ln_final.weight"]}, "OpenAI's layout holds 'visual.conv1"),
    (lambda w: {**w, "visual.VPT": torch.zeros(2, 64)}, "visual.VPT is missing or unexpected"),
    (lambda w: {k: v for k, v in w.items() if k != "ln_final.bias"}, "ln_final.bias is missing or unexpected"),
    (lambda w: {**w, "ln_final.bias": torch.zeros(3)}, "does not fit together"),
])
def test_another_state_dict_is_refused_by_what_is_wrong_with_it(change, message, tiny_clip_weights):
    with pytest.raises(InputError, match=message):
        towers.build_model(change(tiny_clip_weights))


def test_the_state_dict_given_is_not_changed(tiny_clip_weights):
    given = {**tiny_clip_weights, "input_resolution": torch.tensor(32)}
    towers.build_model(given)
    assert "input_resolution" in given


def test_half_precision_is_where_openai_has_it_and_float_gives_the_exact_weights(tiny_clip_weights):
    model = towers.build_model(tiny_clip_weights)
    half = {k for k, p in model.named_parameters() if p.dtype == torch.float16}
    assert model.dtype == torch.float16 and {"text_projection", "visual.proj", "visual.conv1.weight"} <= half
    assert all(("attn" in k or "mlp" in k) == (k in half) for k in model.state_dict() if "resblocks" in k)
    assert not any("ln_" in k or "embedding" in k for k in half)
    with torch.no_grad():
        model.text_projection.add_(1)
    changed = model.text_projection.float()
    assert model.float() is model and torch.equal(model.text_projection, changed)
    assert all(torch.equal(p, tiny_clip_weights[k]) for k, p in model.state_dict().items() if k != "text_projection")


@pytest.mark.parametrize("vision", [VIT, RESNET], ids=["vit", "resnet"])
def test_half_precision_towers_work_on_a_cpu_and_are_near_float32(vision):
    torch.manual_seed(0)
    text = dict(context_length=77, vocab_size=49408, width=128, heads=2, layers=2)
    model = towers.build_model(OpenCLIP(48, dict(vision), text, quick_gelu=True).eval().state_dict())
    images, ids = torch.randn(2, 3, vision["image_size"], vision["image_size"]), face.tokenize(TEXTS)

    def features():
        prompts = model.token_embedding(ids).type(model.dtype).detach().requires_grad_()
        text_features = unit(TextEncoder(model)(prompts, ids))
        gradient = torch.autograd.grad(text_features[:, :9].float().sum(), prompts)[0]
        return [unit(model.visual(images.type(model.dtype))), unit(model.encode_image(images)), text_features, gradient]

    half = features()
    model.float()
    exact = features()
    assert all(x.dtype == torch.float16 for x in half) and all(x.dtype == torch.float32 for x in exact)
    for a, b in zip(half, exact):
        torch.testing.assert_close(a.float(), b, rtol=0, atol=5e-3 * float(b.detach().abs().max()))


def test_images_are_resized_cropped_and_normalised_as_clip_was_trained(tiny_clip_file):
    _, preprocess = face.load(str(tiny_clip_file), device="cpu")
    theirs = open_clip.image_transform(32, is_train=False)
    for mode in ("RGB", "L", "RGBA", "P"):
        image = Image.linear_gradient("L").resize((90, 60)).convert(mode)
        ours = preprocess(image)
        assert ours.shape == (3, 32, 32) and len(preprocess.transforms) == 5
        if mode in ("RGB", "L"):
            assert torch.equal(ours, theirs(image))


def test_the_tokenizer_has_openais_ids_and_names(golden):
    theirs, ours = golden("tokens"), SimpleTokenizer()
    assert ours.encoder["<|startoftext|>"] == 49406 and ours.encoder["<|endoftext|>"] == 49407
    assert len(ours.encoder) == len(ours.decoder) == 49408
    for text, row in zip(theirs.json("prompts"), theirs.tensor("tokens")):
        assert [49406, *ours.encode(text), 49407] == row[:row.nonzero().max() + 1].tolist()
    assert ours.decode(face.tokenize("a Photo")[0][:4]) == "<|startoftext|>a photo <|endoftext|>"
    assert ours.bpe("hello") == "hello</w>"


def test_a_text_that_is_too_long_raises_openais_type_of_error():
    with pytest.raises(RuntimeError, match="too long for context length 77"):
        face.tokenize("word " * 90)


def test_openais_names_are_those_of_the_package():
    import clip
    from clip import model

    assert face.load is clip.load and face.tokenize is clip.tokenize and face.build_model
    assert clip.available_models() == list(clip.clip._MODELS) and clip.model is model


def test_embeddings_are_the_frozen_towers(tiny_face, tiny_clip):
    tokens = embed_texts(tiny_clip, TEXTS)
    ids = face.tokenize(TEXTS)[:, :tokens.embeddings.shape[1]]
    assert torch.equal(tiny_face.token_embedding(ids), tokens.embeddings)
