"""Find, verify and load CLIP's weights: offline first, nothing in a file is run, a failure says where it looked."""
from __future__ import annotations

import hashlib
import logging
import os
import urllib.error
import urllib.request
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from .backbones import BACKBONES, TINY, Backbone, HubName, ImageFacts, OpenCLIPName, TunedTower, image_facts, resolve
from .errors import InputError
from .state_dicts import check_complete, check_openais, image_tower, read_state_dict, to_open_clip
from .tiny import TINY_FILE, read_tiny
from .towers import FrozenCLIP

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 15
_kept: dict[tuple[str, int, int], tuple[dict[str, Tensor], frozenset[int] | None]] = {}

_OFFLINE_HINT = ("the embedded model needs no download: --config tiny with your own images, or "
                 "bash scripts/dapt.sh digits 16")


class WeightsNotFound(InputError):
    """The weights are neither on this machine nor could they be fetched."""


def load_clip(name: str, device: str | torch.device = "cpu") -> FrozenCLIP:
    """Frozen towers for MODEL.BACKBONE.NAME.

    Args:
        name: "tiny", a name of OpenAI's ("ViT-B/16"), "arch:tag" of open_clip's ("ViT-B-16:laion2b_s34b_b88k", or
            the tag `random`), "arch:path" for a file of such an architecture's weights, "hf-hub:owner/model" of the
            hub's, or the path of a file in OpenAI's layout (its .pt archive, a state dict .pt or .safetensors), read as
            OpenAI's models compute. A file of an image tower alone takes the place of that of "tiny:path" or, of a
            name of OpenAI's, "ViT-B/32:path".
        device: where the towers live.
    Returns:
        FrozenCLIP in float32, its `name` and `sha256` set.
    Raises:
        InputError: unknown name, unreadable file; WeightsNotFound: no file and no network.
    """
    found = resolve(name)
    if isinstance(found, OpenCLIPName):
        clip, sha256 = _load_open_clip(found)
    elif isinstance(found, HubName):
        clip, sha256 = _load_from_hub(found)
    elif isinstance(found, TunedTower):
        clip, sha256 = _with_tower(found)
    else:
        path = TINY_FILE if found == TINY else fetch(found) if isinstance(found, Backbone) else found
        clip, sha256 = load_file(path), file_sha256(path)
        logger.info("Loaded %s from %s, sha256 %s", name, path, sha256[:8])
    clip.name, clip.sha256 = name, sha256
    return clip.to(device)


def facts_of_images(name: str) -> ImageFacts:
    """Side and statistics of the images that `load_clip(name)` takes; a file is read once for them. Raises as that."""
    if (known := image_facts(name)) is not None:
        return known
    found = resolve(name)
    return _facts_in(name, _stamp(found) if isinstance(found, Path) else (name, 0, 0))


@lru_cache(maxsize=16)
def _facts_in(name: str, stamp: tuple[str, int, int]) -> ImageFacts:
    clip = load_clip(name)
    return ImageFacts(clip.image_size, clip.mean, clip.std)


def keep_in_memory(name: str) -> bool:
    """Read a backbone's file now, if it is on this machine, so that forks of this process share what it holds.

    Returns:
        Whether there was such a file. What cannot be read is left to whoever loads it.
    """
    try:
        found = resolve(name)
        path = TINY_FILE if found == TINY else find(found) if isinstance(found, Backbone) else found
        if not isinstance(path, Path) or not path.is_file():
            return False
        file_sha256(path)
        _kept[_stamp(path)] = _read(path)
    except (InputError, OSError):
        return False
    return True


def load_file(path: Path) -> FrozenCLIP:
    """Frozen towers from one file: the embedded model's, OpenAI's archive, or a state dict in OpenAI's key layout.

    Raises:
        InputError: it is no such file, or its shapes are those of a model that computes in another way.
    """
    weights, known = _kept.get(_stamp(path)) or _read(path)
    clip = FrozenCLIP.from_state_dict(weights)
    clip.known_tokens = known
    return clip


def _read(path: Path) -> tuple[dict[str, Tensor], frozenset[int] | None]:
    """Weights, and the BPE ids that have a learned embedding, where that is not all of them."""
    return read_tiny(path) if path == TINY_FILE else (check_openais(read_state_dict(path), path), None)


def _stamp(path: Path) -> tuple[str, int, int]:
    """By which a file is known again while nobody changes it."""
    facts = path.stat()
    return str(path.resolve()), facts.st_size, facts.st_mtime_ns


def cache_folders() -> list[Path]:
    """Where weight files are looked for, in order; the first is where a download goes."""
    given = [Path(os.environ["CLIP_CACHE"]).expanduser()] if os.environ.get("CLIP_CACHE") else []
    return [*given, Path("~/.cache/clip").expanduser()]


def find(backbone: Backbone) -> Path | None:
    """The backbone's file on this machine, or None."""
    return next((f / backbone.file for f in cache_folders() if (f / backbone.file).is_file()), None)


def fetch(backbone: Backbone) -> Path:
    """The backbone's file, downloaded with resume if it is nowhere on this machine, its sha256 verified.

    Raises:
        WeightsNotFound: it is nowhere and cannot be fetched. InputError: the file is not the published one.
    """
    path = find(backbone)
    if path is None:
        path = cache_folders()[0] / backbone.file
        part = path.with_suffix(".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = path.with_suffix(".lock")
            with _alone(lock):
                try:
                    if not path.is_file():          # another run may have brought it meanwhile
                        _bring(backbone, part)
                        part.replace(path)
                finally:
                    lock.unlink(missing_ok=True)    # a waiting FileLock sees that its file is gone and takes the next
        except (OSError, urllib.error.URLError) as error:
            if part.exists() and not part.stat().st_size:
                part.unlink()
            raise WeightsNotFound(missing_weights(backbone, str(error))) from error
    elif (got := file_sha256(path)) != backbone.sha256:
        raise InputError(f"{path} has sha256 {got}, but {backbone.name}'s is {backbone.sha256}: it is another file or "
                         f"a cut download. Move it away and run again, or give MODEL.BACKBONE.NAME {path} to use it.")
    return path


def _bring(backbone: Backbone, part: Path) -> None:
    """Download what is missing of a file, be it nothing, and verify it."""
    if not part.exists() or file_sha256(part) != backbone.sha256:
        try:
            download(backbone.url, part)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 416:                   # 416: there are more bytes than the file has, so they are others
                raise
            part.unlink()
            download(backbone.url, part)
    if (got := file_sha256(part)) != backbone.sha256:
        part.unlink()
        raise InputError(f"The download of {backbone.name} from {backbone.url} has sha256 {got}, not the published "
                         f"{backbone.sha256}; it was removed. Try again, or place the right file at "
                         f"{part.with_name(backbone.file)}.")


def _alone(lock: Path):
    """Context that holds a lock, which ends with its process, after waiting for a run that holds it."""
    from filelock import FileLock, Timeout

    try:
        return FileLock(lock).acquire(blocking=False)
    except Timeout:
        logger.warning("Waiting for another run that downloads to %s", lock.parent)
        return FileLock(lock).acquire()


def missing_weights(backbone: Backbone, reason: str = "") -> str:
    """What is missing, where it was looked for, how to get it, and what runs meanwhile: one item a line."""
    looked = " and ".join(str(folder / backbone.file) for folder in cache_folders())
    failed = f"  download: failed ({reason})\n" if reason else ""
    return (f"The weights of {backbone.name} are not on this machine.\n  looked for: {looked}\n{failed}"
            f"  get: {backbone.url}, on any machine\n"
            f"  place it: at {cache_folders()[0] / backbone.file}, or set CLIP_CACHE to its folder\n"
            f"  meanwhile: {_OFFLINE_HINT}")


def file_sha256(path: Path) -> str:
    """Hex digest; a file that has not changed since is not read a second time."""
    return _sha256(path, _stamp(path))


@lru_cache(maxsize=16)
def _sha256(path: Path, stamp: tuple[str, int, int]) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def download(url: str, part: Path) -> None:
    """Append what is missing of `url` to `part`."""
    from tqdm import tqdm

    if os.environ.get("DASSL_OFFLINE") == "1":
        raise OSError("DASSL_OFFLINE=1 forbids downloads")
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as reply:
        resumed = have and reply.status == 206
        total = int(reply.headers.get("Content-Length") or 0) + (have if resumed else 0)
        with open(part, "ab" if resumed else "wb") as file, tqdm(
                total=total or None, initial=have if resumed else 0, unit="B", unit_scale=True, desc=part.stem) as bar:
            while block := reply.read(1 << 18):
                file.write(block)
                bar.update(len(block))
    if total and part.stat().st_size < total:
        raise OSError(f"the connection closed after {part.stat().st_size} of {total} bytes; run again to continue")


def _load_open_clip(found: OpenCLIPName) -> tuple[FrozenCLIP, str]:
    import open_clip

    from .open_clip_models import from_open_clip

    arch, name = found.arch, f"{found.arch}:{found.file or found.tag}"
    if found.tag == "random":
        return from_open_clip(open_clip.create_model(arch, pretrained=None), name), "random"
    row = {} if found.file else open_clip.get_pretrained_cfg(arch, found.tag)
    path = found.file or _published(found, row)
    if found.file and image_tower(read_state_dict(found.file)) is not None:
        return _with_tower(TunedTower(_openais_name(found), found.file))
    weights = _of_architecture(path) if found.file else None
    model = open_clip.create_model(arch, pretrained=None, force_quick_gelu=bool(row.get("quick_gelu")))
    try:
        if weights is None:
            open_clip.load_checkpoint(model, str(path), weights_only=True)
        else:
            model.load_state_dict(to_open_clip(weights, model))
    except RuntimeError as error:
        raise InputError(f"{path} does not fit {arch} ({' '.join(str(error).split())}).") from error
    logger.info("Loaded %s from %s", name, path)
    clip = from_open_clip(model, name)
    clip.mean, clip.std = tuple(row.get("mean") or clip.mean), tuple(row.get("std") or clip.std)
    return clip, file_sha256(path)


def _with_tower(found: TunedTower) -> tuple[FrozenCLIP, str]:
    """Towers of the base's name, with the file's image tower.

    Raises:
        InputError: a file that holds no image tower alone, or one of another shape.
    """
    if (weights := image_tower(read_state_dict(found.file))) is None:
        raise InputError(f"{found.file} does not hold an image tower alone, which {found.base}: takes in place of its "
                         "own. Give the path of a whole CLIP by itself.")
    clip = load_clip(found.base)
    try:
        clip.visual.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"The image tower in {found.file} does not fit {found.base} ({' '.join(str(error).split())})."
                         ) from error
    logger.info("Loaded the image tower of %s from %s", found.base, found.file)
    return clip, hashlib.sha256(f"{clip.sha256} {file_sha256(found.file)}".encode()).hexdigest()


def _openais_name(found: OpenCLIPName) -> str:
    """OpenAI's name of that architecture, whose text tower goes with an image tower alone."""
    arch = found.arch.removesuffix("-quickgelu")
    if (name := next((row.name for row in BACKBONES.values() if row.arch == arch), None)) is None:
        raise InputError(f"{found.file} holds an image tower alone, and the texts that go with it are known for "
                         f"OpenAI's models: {', '.join(BACKBONES)}, got {found.arch}.")
    return name


def _load_from_hub(found: HubName) -> tuple[FrozenCLIP, str]:
    import open_clip

    from .open_clip_models import from_open_clip

    name = f"hf-hub:{found.repo}"
    try:
        if os.environ.get("DASSL_OFFLINE") == "1":
            _stay_offline({"hf_hub": found.repo})
        model = open_clip.create_model(name, cache_dir=str(cache_folders()[0]), weights_only=True)
    except Exception as error:  # the hub's client raises many types; each means that there is no such model
        reason = f"{type(error).__name__}: {(str(error) or 'no reason given').splitlines()[0]}"
        raise WeightsNotFound(f"The model {name} is not in {cache_folders()[0]} and could not be fetched ({reason}). "
                              "Check its name, or set CLIP_CACHE to a folder that has it. "
                              f"{_OFFLINE_HINT}") from error
    clip = from_open_clip(model, name)
    digest = hashlib.sha256()
    for key, value in clip.state_dict().items():
        digest.update(key.encode() + value.cpu().contiguous().numpy().tobytes())
    logger.info("Loaded %s, sha256 of its weights %s", name, digest.hexdigest()[:8])
    return clip, digest.hexdigest()


def _published(found: OpenCLIPName, row: dict) -> Path:
    """The file of open_clip's published weights, fetched by its client if it is not in the cache."""
    import open_clip

    try:
        if os.environ.get("DASSL_OFFLINE") == "1":
            _stay_offline(row)
        return Path(open_clip.download_pretrained(row, cache_dir=str(cache_folders()[0])))
    except Exception as error:  # the hub's client raises many types; each means that there is no file
        raise WeightsNotFound(
            f"The weights {found.arch}:{found.tag} are not in {cache_folders()[0]} and open_clip could not fetch them "
            f"from {row.get('hf_hub') or row.get('url')} ({type(error).__name__}: {str(error).splitlines()[0]}). Fetch "
            f"the file on a machine with network and name it as {_with_activation(found.arch, row)}:PATH, or set "
            f"CLIP_CACHE to its folder. {_OFFLINE_HINT}"
        ) from error


def _of_architecture(path: Path) -> dict[str, Tensor]:
    weights = read_state_dict(path)
    if "input_resolution" in weights:
        raise InputError(f"{path} is an archive of OpenAI's, which says how its towers compute. Give its path alone.")
    check_complete(weights, path)
    return weights


def _with_activation(arch: str, row: dict) -> str:
    """The architecture's name by which a file of these published weights computes as they were trained."""
    import open_clip

    quick = f"{arch}-quickgelu"
    return quick if row.get("quick_gelu") and quick in open_clip.list_models() else arch


def _stay_offline(row: dict) -> None:
    """Have open_clip take what is in the cache and ask no server. Raises OSError for a file that is not there."""
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True                 # read from the environment once, when the hub's client was imported
    if not row.get("hf_hub") and not (cache_folders()[0] / os.path.basename(row["url"])).is_file():
        raise OSError("DASSL_OFFLINE=1 forbids downloads")
