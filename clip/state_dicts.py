"""State dicts of CLIP as training programs save them: containers and prefixes are opened, the rest is refused by name.

A state dict does not say the activation nor the number of heads. A file of OpenAI's layout has QuickGELU and
width // 64 heads only if OpenAI's model, or one tuned from it, wrote it; open_clip's often has neither.
Source: CLIP (openai/CLIP) clip/model.py, build_model; open_clip's model_configs/*.json.
"""
from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from .archive import is_torchscript, read_torchscript
from .errors import InputError
from .tokenizer import VOCABULARY_SIZE

logger = logging.getLogger(__name__)

Weights = dict[str, Tensor]
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}       # of PyTorch's own
_LOG_SCALE_MAX = 20                             # training keeps it below 5; a larger one is the scale itself
_OPENAIS = "input_resolution"                   # only OpenAI's archives hold it


def read_state_dict(path: Path) -> Weights:
    """Tensors of a .safetensors, a TorchScript archive or a torch file, by the names that their CLIP gives them.

    An outer dictionary ({"state_dict": ...}, {"model": ...}) and prefixes of the wrappers around a model (module.,
    _orig_mod., Lightning's) are taken off.

    Raises:
        InputError: the file is cut, holds more than tensors, or several CLIPs.
    """
    if _is_safetensors(path):
        from safetensors import SafetensorError
        from safetensors.torch import load_file as read_safetensors

        try:
            content = read_safetensors(path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is not a readable safetensors file ({error}). Fetch it again.") from error
    elif is_torchscript(path):
        content = read_torchscript(path)
    else:
        content = _read_torch(path)
    return _without_prefix(_without_wrappers(_opened(content, path)), path)


def is_plain(path: Path) -> bool:
    """Whether `torch.load` gives what `read_state_dict` does. Raises as that does."""
    names = read_state_dict(path).keys()
    if _is_safetensors(path) or is_torchscript(path):
        return False
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)).keys() == names


def check_openais(weights: Weights, path: Path) -> Weights:
    """The weights, if they may be read as OpenAI's: QuickGELU and width // 64 heads.

    Warns where a file does not say so and nothing contradicts it.

    Raises:
        InputError: another layout, or shapes of an architecture of open_clip's that computes in another way.
    """
    check_complete(weights, path)
    if any(name.startswith(("visual.trunk.", "text.")) for name in weights):
        raise InputError(f"{path} has open_clip's layout of a model whose towers are not OpenAI's. Name its "
                         f"architecture in front, as in ViT-B-16-SigLIP:{path}.")
    if _OPENAIS in weights:
        return weights
    try:
        alike = list(_alike(weights))
    except KeyError:                            # what has no towers is refused by FrozenCLIP.from_state_dict
        return weights
    if any(not as_openai for _, as_openai in alike):
        names = [name for name, _ in alike]
        tuned = next((f" Weights tuned from OpenAI's are {name}." for name, as_openai in alike if as_openai), "")
        raise InputError(f"{path} does not say how its towers compute: {', '.join(names)} of open_clip's have these "
                         "shapes, with other activations (GELU or QuickGELU) or numbers of heads. Name the one that it "
                         f"is in front: {names[0]}:{path}.{tuned}")
    logger.warning("%s does not say its activation and number of heads; OpenAI's are assumed, QuickGELU and "
                   "width // 64. If open_clip made it, name its architecture in front: ARCH:%s", path, path)
    return weights


def check_complete(weights: Weights, path: Path) -> None:
    """Raises InputError for Hugging Face's layout, adapters that were not merged, and numbers that are no weights."""
    if any(name.startswith(("text_model.", "vision_model.")) for name in weights):
        raise InputError(f"{path} has the layout of Hugging Face's transformers (CLIPModel). Give the same weights in "
                         "OpenAI's or open_clip's layout: by open_clip's name of them, or OpenAI's file.")
    if adapters := [name for name in weights if "lora" in name.lower()]:
        raise InputError(f"{path} holds {len(adapters)} weights of LoRA that are not merged into its matrices, first "
                         f"{adapters[0]}. Without them it is another model: merge them and save it again.")
    for name, value in weights.items():
        if name.endswith(("attn_mask", "position_ids")):
            continue
        if value.layout != torch.strided or value.is_meta:
            raise InputError(f"{name} in {path} is sparse or has no numbers. Save all weights as dense tensors.")
        if value.dim() and not value.is_floating_point():
            raise InputError(f"{name} in {path} is {str(value.dtype).removeprefix('torch.')}, not floating point. "
                             "Quantised weights are not read; save the model before it was quantised.")
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(f"{name} in {path} has numbers that are NaN or infinite. Take an earlier file.")
        if name == "logit_scale" and value.max() > _LOG_SCALE_MAX:
            raise InputError(f"logit_scale in {path} is {float(value.max()):g}. It must be the logarithm of the scale, "
                             "4.6 for 100. Save it as the model holds it.")


def image_tower(weights: Weights) -> Weights | None:
    """Those of an image tower alone, in OpenAI's names without "visual."; None of a whole CLIP or something else.

    As robust image towers are published (TeCoA, FARE), or as a run of ours saves the tower that it learned.
    """
    names = {name: name.removeprefix("tower.").replace("/", ".").removeprefix("visual.") for name in weights}
    whole = any(name.endswith(("token_embedding.weight", "logit_scale")) for name in names)
    if whole or "conv1.weight" not in names.values() \
            or not {"class_embedding", "attnpool.positional_embedding"} & set(names.values()):
        return None
    return {names[name]: value.float() for name, value in weights.items()}


def to_open_clip(weights: Weights, model: torch.nn.Module) -> Weights:
    """The same under the names that this model of open_clip's has for them."""
    from open_clip.model import convert_to_custom_text_state_dict

    if "positional_embedding" in weights and not hasattr(model, "positional_embedding"):
        weights = convert_to_custom_text_state_dict(weights)
    if "logit_scale" in weights:
        weights["logit_scale"] = weights["logit_scale"].reshape(model.logit_scale.shape)
    return weights


def _is_safetensors(path: Path) -> bool:
    """Whether it begins as such a file does, whatever its name: eight bytes of a length, then JSON."""
    with open(path, "rb") as file:
        return file.read(9)[8:] == b"{"


def _read_torch(path: Path):
    with open(path, "rb") as file:
        start = file.read(200).decode("latin-1").strip()
    if start.startswith("version https://git-lfs"):
        raise InputError(f"{path} is a pointer of Git LFS, not a file of weights. Fetch it with git lfs pull.")
    if start.startswith("<"):
        raise InputError(f"{path} is not a readable file of weights but a web page ({start[:15]}...). Fetch it again.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types for a damaged file; all mean the same to the user
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise InputError(f"{path} holds an object of Python's, {found[1]}, as torch.save(model) writes it. "
                             "It is not a readable file of weights: nothing but tensors is loaded, so that no code in "
                             "a file runs. Save model.state_dict() and name that file.") from error
        # PyTorch's own advice is to run what is in the file.
        reason = str(error).splitlines()[0] if str(error) and "weights_only" not in str(error) else type(error).__name__
        raise InputError(f"{path} is not a readable file of weights ({reason}). Fetch it again.") from error


def _opened(content, path: Path) -> Weights:
    """The state dict in a file's content, which may be one entry among others, such as an optimiser's."""
    if isinstance(content, dict) and content and all(isinstance(value, Tensor) for value in content.values()):
        return content
    inner = {name: value for name, value in content.items() if isinstance(value, dict) and _holds_weights(value)} \
        if isinstance(content, dict) else {}
    if len(inner) == 1:
        return _opened(*inner.values(), path)
    what = f"several models, {', '.join(inner)}" if inner else f"{type(content).__name__}, not a state dict of tensors"
    raise InputError(f"{path} holds {what}. Save model.state_dict() of the one that is meant to a file and name that.")


def _holds_weights(content: dict) -> bool:
    """Whether it is a state dict (an optimiser's has numbers for names), or has one inside."""
    values = content.values()
    return all(isinstance(name, str) for name in content) and (
        bool(content) and all(isinstance(value, Tensor) for value in values)
        or any(isinstance(value, dict) and _holds_weights(value) for value in values))


def _without_wrappers(weights: Weights) -> Weights:
    return {".".join(part for part in name.split(".") if part not in _WRAPPERS): value
            for name, value in weights.items()}


def _without_prefix(weights: Weights, path: Path) -> Weights:
    """What lies where `logit_scale` does, which every CLIP has once, at the top."""
    prefixes = [name.removesuffix("logit_scale") for name in weights if re.search(r"(^|\.)logit_scale$", name)]
    if len(prefixes) > 1:
        raise InputError(f"{path} holds several CLIPs, {', '.join(map(repr, prefixes))}. Save the state dict of the "
                         "one that is meant.")
    prefix = prefixes[0] if prefixes else ""
    if beside := [name for name in weights if not name.startswith(prefix)]:
        logger.warning("%s: %d weights besides the CLIP in it are ignored: %s", path, len(beside),
                       ", ".join(beside[:5]))
    # All classes get the same logit_bias, so softmax does not see it.
    return {name.removeprefix(prefix): value for name, value in weights.items()
            if name.startswith(prefix) and name != f"{prefix}logit_bias"}


def _alike(weights: Weights) -> Iterator[tuple[str, bool]]:
    """Architectures of open_clip's with these shapes, and whether they compute as OpenAI's."""
    import open_clip

    shapes = shapes_of(weights)
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        vision, text = config["vision_cfg"], config["text_cfg"]
        apart = vision.get("timm_model_name") or text.get("hf_model_name") or config.get("custom_text")
        if not apart and _shapes_in(config) == shapes:
            yield name, bool(config.get("quick_gelu")) and vision.get("head_width", 64) == 64 and \
                text.get("width", 512) == 64 * text.get("heads", 8)


def shapes_of(weights: Mapping[str, Tensor]) -> tuple:
    """Depths, widths, patches, grid, joint width, context and vocabulary. Raises KeyError for what is not a CLIP."""
    def depth(stem: str) -> int:
        return len({name[len(stem):].split(".")[0] for name in weights if name.startswith(stem)})

    stem, words = weights["visual.conv1.weight"], weights["token_embedding.weight"]
    is_vit = "visual.class_embedding" in weights
    places = weights["visual.positional_embedding" if is_vit else "visual.attnpool.positional_embedding"]
    layers = depth("visual.transformer.resblocks.") if is_vit else [depth(f"visual.layer{i}.") for i in (1, 2, 3, 4)]
    return (layers, len(stem) * (1 if is_vit else 2), stem.shape[-1] if is_vit else 32,
            round((len(places) - 1) ** 0.5), weights["text_projection"].shape[-1],
            depth("transformer.resblocks."), words.shape[1], len(weights["positional_embedding"]), len(words))


def _shapes_in(config: dict) -> tuple:
    """The same of a configuration of open_clip's."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    layers, side = vision.get("layers", 12), vision.get("image_size", 224)
    patch = vision.get("patch_size", 16) if isinstance(layers, int) else 32
    return (layers, vision.get("width", 768), patch, (side if isinstance(side, int) else side[0]) // patch,
            config["embed_dim"], text.get("layers", 12), text.get("width", 512), text.get("context_length", 77),
            text.get("vocab_size", VOCABULARY_SIZE))
