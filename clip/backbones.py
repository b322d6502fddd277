"""Names of backbones: OpenAI's, any of open_clip's with a pretrained tag, one of the hub's, a local file, or `tiny`.

Source of the table: CLIP (openai/CLIP), clip/clip.py `_MODELS`; the folder in each address is the file's sha256.
"""
from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from .errors import InputError

TINY, TINY_SIZE = "tiny", 32
PIXEL_MEAN, PIXEL_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_HUB = "hf-hub"
_OPENAI = "https://openaipublic.azureedge.net/clip/models"


@dataclass(frozen=True)
class Backbone:
    """One row of OpenAI's release.

    Attributes:
        name: OpenAI's, e.g. "ViT-B/16".
        image_size: pixels a side.
        sha256: of the file; also part of its address.
    """

    name: str
    image_size: int
    sha256: str

    @property
    def file(self) -> str:
        """Its name in OpenAI's release and in the cache folder."""
        return f"{self.name.replace('/', '-').replace('@', '-')}.pt"

    @property
    def arch(self) -> str:
        """open_clip's name of the same architecture."""
        return self.file.removesuffix(".pt").removesuffix("px")

    @property
    def url(self) -> str:
        return f"{_OPENAI}/{self.sha256}/{self.file}"


BACKBONES = {row.name: row for row in (
    Backbone("RN50", 224, "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"),
    Backbone("RN101", 224, "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599"),
    Backbone("RN50x4", 288, "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd"),
    Backbone("RN50x16", 384, "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa"),
    Backbone("RN50x64", 448, "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c"),
    Backbone("ViT-B/32", 224, "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"),
    Backbone("ViT-B/16", 224, "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"),
    Backbone("ViT-L/14", 224, "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"),
    Backbone("ViT-L/14@336px", 336, "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"),
)}


@dataclass(frozen=True)
class ImageFacts:
    """How a tower wants its images: side in pixels, statistics per channel, and how they are resized."""

    size: int
    mean: tuple[float, float, float] = PIXEL_MEAN
    std: tuple[float, float, float] = PIXEL_STD
    interpolation: str = "bicubic"


@dataclass(frozen=True)
class OpenCLIPName:
    """`arch:tag`, e.g. ViT-B-16:laion2b_s34b_b88k; the tag `random` means untrained weights.

    Attributes:
        file: that the tag names in place of published weights, or None.
    """

    arch: str
    tag: str
    file: Path | None = None


@dataclass(frozen=True)
class HubName:
    """`hf-hub:owner/model`: a model of open_clip's that somebody published, such as hf-hub:chs20/fare2-clip."""

    repo: str


@dataclass(frozen=True)
class TunedTower:
    """`tiny:path`: towers of another name, with the image tower of a file in place of their own.

    The same holds for a name of OpenAI's, `ViT-B/32:path`, where the file holds an image tower alone.
    """

    base: str
    file: Path


def resolve(name: str) -> Backbone | OpenCLIPName | HubName | TunedTower | Path | str:
    """What MODEL.BACKBONE.NAME stands for.

    Args:
        name: "tiny", a name of OpenAI's, "arch:tag" of open_clip's (or "arch:path"), "tiny:path", "hf-hub:owner/model",
            or the path of a file.
    Returns:
        TINY, a `Backbone`, a `Path`, a `TunedTower`, a `HubName` or an `OpenCLIPName`, in that order of precedence.
    Raises:
        InputError: none of these; names the nearest known one.
    """
    if name == TINY:
        return TINY
    if name in BACKBONES:
        return BACKBONES[name]
    if Path(name).expanduser().is_file():
        return Path(name).expanduser()
    arch, colon, tag = name.partition(":")
    if arch == TINY and colon:
        if not (path := Path(tag).expanduser()).is_file():
            raise InputError(f"No weight file at {path.absolute()}. {TINY}: takes the path of an existing file, which "
                             "holds another image tower.")
        return TunedTower(TINY, path)
    if arch == _HUB and colon:
        if len([part for part in tag.split("/") if part]) != 2:
            raise InputError(f"A model of the hub is named {_HUB}:OWNER/MODEL, as in {_HUB}:chs20/fare2-clip, got "
                             f"{name!r}.")
        return HubName(tag)
    if colon and len(arch) > 1:                         # one letter is a drive of Windows'
        return _open_clip_name(arch, tag)
    if Path(name).suffix in _WEIGHT_FILES:
        raise InputError(f"No weight file at {Path(name).expanduser().absolute()}. MODEL.BACKBONE.NAME is the path of "
                         f"an existing file, one of {_known()}, or open_clip's arch:tag or arch:path.")
    near = get_close_matches(name, [TINY, *BACKBONES], 1, cutoff=0.4)
    raise InputError(f"Unknown backbone {name!r}{f'; did you mean {near[0]!r}?' if near else '.'} MODEL.BACKBONE.NAME "
                     f"is one of {_known()}, open_clip's arch:tag (such as ViT-B-16:laion2b_s34b_b88k) or arch:path, "
                     "or a path.")


def file_in(name: str) -> Path | None:
    """The file that a name with an ending of weight files stands for, in `arch:path` too; else None."""
    arch, colon, tail = name.partition(":")
    path = Path(tail if colon and len(arch) > 1 else name).expanduser()
    return path if path.suffix in _WEIGHT_FILES else None


def _open_clip_name(arch: str, tag: str) -> OpenCLIPName:
    import open_clip

    arch = BACKBONES[arch].arch if arch in BACKBONES else arch
    if arch not in open_clip.list_models():
        near = get_close_matches(arch, open_clip.list_models(), 3, cutoff=0.4)
        raise InputError(f"open_clip has no architecture {arch!r}; near it: {', '.join(near) or 'none'}.")
    if (path := Path(tag).expanduser()).is_file():
        return OpenCLIPName(arch, tag, path)
    if path.suffix in _WEIGHT_FILES or len(path.parts) > 1:
        raise InputError(f"No weight file at {path.absolute()}. {arch}: takes one of open_clip's tags or the path of "
                         "an existing file.")
    tags = open_clip.list_pretrained_tags_by_model(arch)
    if tag not in (*tags, "random"):
        raise InputError(f"open_clip has no weights {tag!r} for {arch}; it has {', '.join(tags) or 'none'}.")
    return OpenCLIPName(arch, tag)


def image_facts(name: str) -> ImageFacts | None:
    """Of the backbone `name`, without loading it; None for a file or the hub's, which say them when they are read.

    Raises:
        InputError: as `resolve`.
    """
    found = resolve(name)
    if isinstance(found, OpenCLIPName):
        import open_clip

        tags = open_clip.get_pretrained_cfg(found.arch, found.tag) or {}
        size = open_clip.get_model_config(found.arch)["vision_cfg"]["image_size"]
        return ImageFacts(size[0] if isinstance(size, (list, tuple)) else size, tuple(tags.get("mean") or PIXEL_MEAN),
                          tuple(tags.get("std") or PIXEL_STD), tags.get("interpolation") or "bicubic")
    if isinstance(found, (HubName, Path)):
        return None
    return ImageFacts(TINY_SIZE if found == TINY or isinstance(found, TunedTower) else found.image_size)


def _known() -> str:
    return ", ".join([TINY, *BACKBONES])


_WEIGHT_FILES = {".pt", ".pth", ".bin", ".safetensors"}
