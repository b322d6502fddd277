"""Damaged and distorted files: splits, few-shot lists, descriptions, checkpoints, images, lists, archives."""
from __future__ import annotations

import csv
import io
import json
import pickle
import random
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dassl.utils import UserError, load_checkpoint
from tools import train

from .bad_configs import command
from .cases import Case, some
from .damage import damaged, distorted

SPLIT = "split_zhou_OxfordPets.json"


def pets(root: Path) -> Path:
    """Three breeds with their images, in CoOp's layout with a published split file; returns the dataset's folder."""
    folder, rows = root / "oxford_pets", {"train": [], "val": [], "test": []}
    (folder / "images").mkdir(parents=True)
    for label, name in enumerate(("beagle", "pug", "sphynx")):
        for i in range(6):
            file = f"{name}_{i}.jpg"
            _picture(10 * label + i).save(folder / "images" / file)
            rows[("train", "train", "train", "val", "val", "test")[i]].append([file, label, name])
    (folder / SPLIT).write_text(json.dumps(rows), encoding="utf-8")
    return folder


def pets_command(root: Path, output: Path, *opts: str) -> list[str]:
    words = command(root, output, "CoOp", *opts)
    words[words.index("configs/datasets/digits.yaml")] = "configs/datasets/oxford_pets.yaml"
    return words


def splits(folder: Path, scale: float = 1.0, seed: int = 0) -> Iterator[Case]:
    rng, content = random.Random(seed), None
    for number in range(some(80, scale)):
        root = folder / str(number)
        place = pets(root) / SPLIT
        content = json.loads(place.read_text())
        place.write_bytes(distorted(content, rng) if number % 2 else damaged(place.read_bytes(), rng))
        words = pets_command(root, folder / "runs" / str(number))
        yield Case("split files", f"{number}", lambda words=words: train.cli(words), folder / "runs")


def few_shot_lists(folder: Path, scale: float = 1.0, seed: int = 0) -> Iterator[Case]:
    rng, original = random.Random(seed), folder / "original"
    pets(original)
    assert train.cli(pets_command(original, folder / "first")) == 0
    drawn = original / "oxford_pets" / "split_fewshot" / "shot_1-seed_1.json"
    content, lists = json.loads(drawn.read_text()), drawn.read_bytes()
    from dassl.data.datasets import Datum
    old = pickle.dumps({split: [Datum(impath=f"/data/oxford_pets/images/{path}", label=label, classname=name)
                                for path, label, name in content[split]] for split in ("train", "val")})
    for number in range(some(60, scale)):
        root = folder / str(number)
        shutil.copytree(original, root)
        kept = root / "oxford_pets" / "split_fewshot"
        if number % 3 == 2:
            (kept / "shot_1-seed_1.pkl").write_bytes(damaged(old, rng))
        else:
            (kept / drawn.name).write_bytes(distorted(content, rng) if number % 3 else damaged(lists, rng))
        words = pets_command(root, folder / "runs" / str(number))
        yield Case("few-shot lists", f"{number}", lambda words=words: train.cli(words), folder / "runs")


def descriptions(folder: Path, scale: float = 1.0, seed: int = 0) -> Iterator[Case]:
    rng = random.Random(seed)
    good = {str(name): [f"sentence {i} about the digit {name}, long enough" for i in range(20)]
            for name in ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")}
    for number in range(some(60, scale)):
        place = folder / f"descriptions{number}"
        place.mkdir(parents=True)
        data = json.dumps(good).encode()
        (place / "des.json").write_bytes(distorted(good, rng) if number % 2 else damaged(data, rng))
        (place / "dist.json").write_bytes(data)
        words = command(folder / "data", folder / "runs" / str(number), "AttrVR",
                        "TRAINER.ATTRVR.DESCRIPTIONS", str(place))
        yield Case("descriptions", f"{number}", lambda words=words: train.cli(words), folder / "runs")


class _Runs:
    """A pickle that would leave a file behind if it were executed."""

    def __init__(self, place: Path):
        self.place = place

    def __reduce__(self):
        return open, (str(self.place), "w")


def checkpoints(folder: Path, scale: float = 1.0, seed: int = 0) -> Iterator[Case]:
    rng, run = random.Random(seed), folder / "good"
    assert train.cli(command(folder / "data", run, "CoOp")) == 0
    saved = run / "prompt_learner" / "model.pth.tar-1"
    data, pwned = saved.read_bytes(), folder / "pwned"

    def tested(content: bytes, number: str) -> Callable[[], int]:
        place = folder / f"model{number}" / "prompt_learner"
        place.mkdir(parents=True)
        (place / saved.name).write_bytes(content)
        words = command(folder / "data", folder / "runs" / number, "CoOp")
        words[words.index("TEST.NO_TEST") + 1] = "False"

        def start() -> int:
            code = train.cli(["--eval-only", "--model-dir", str(place.parent), "--load-epoch", "1", *words])
            if code == 0 and not torch.equal(_ctx(place / saved.name), _ctx(saved)):
                raise AssertionError("other weights than were saved were tested without a word")
            return code

        return start

    for number in range(some(100, scale)):
        yield Case("checkpoints", f"damaged {number}", tested(damaged(data, rng), str(number)), folder / "runs")
    evil = {"state_dict": {"ctx": _Runs(pwned)}, "epoch": 1}
    for protocol in range(6):
        start = tested(pickle.dumps(evil, protocol=protocol), f"evil{protocol}")
        yield Case("checkpoints", f"a pickle that runs code, protocol {protocol}",
                   lambda start=start: _not_run(start, pwned), folder / "runs", accepts=False)


def _not_run(start: Callable[[], int], pwned: Path) -> int:
    code = start()
    if pwned.exists():
        raise AssertionError("the checkpoint's code was run")
    return code


def _ctx(file: Path) -> torch.Tensor:
    return load_checkpoint(str(file))["state_dict"]["ctx"]


def _picture(number: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    pixels = np.random.RandomState(number).randint(0, 256, (*size, 3)).astype(np.uint8)
    return Image.fromarray(pixels)


def _encoded(number: int, kind: str) -> bytes:
    file = io.BytesIO()
    _picture(number).save(file, kind)
    return file.getvalue()


def images(folder: Path, scale: float = 1.0, seed: int = 0) -> Iterator[Case]:
    rng = random.Random(seed)
    strange = [b"", b"GIF89a", _encoded(0, "PNG")[:60], b"\x89PNG\r\n\x1a\n" + bytes(100), b"<svg xmlns='a'/>",
               b"BM" + bytes(50)]
    for number in range(some(80, scale)):
        place = folder / f"images{number}"
        for label in ("a", "b"):
            for i in range(5):
                (place / label).mkdir(parents=True, exist_ok=True)
                _picture(i).save(place / label / f"{i}.png")
        kind = rng.choice(("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"))
        content = strange[number] if number < len(strange) else damaged(_encoded(number, kind), rng)
        (place / "a" / f"9.{kind.lower()}").write_bytes(content)
        words = command(folder / "data", folder / "runs" / str(number), "CoOp")
        words[words.index("DATASET.NUM_SHOTS") + 1] = "-1"
        at = words.index("--dataset-config-file")
        words[at:at + 2] = ["--dataset-dir", str(place)]
        yield Case("images", f"{number} {kind}", lambda words=words: train.cli(words), folder / "runs")


def own_lists(folder: Path, scale: float = 1.0, seed: int = 0) -> Iterator[Case]:
    """CSV and JSON lists of one's own images, and files of class names."""
    rng, pictures = random.Random(seed), folder / "pictures"
    pictures.mkdir(parents=True)
    rows = [{"path": f"pictures/{i}.png", "label": i % 2, "classname": ("cat", "dog")[i % 2]} for i in range(12)]
    for i in range(12):
        _picture(i).save(pictures / f"{i}.png")
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    for number in range(some(60, scale)):
        place, names = folder / (f"l{number}.csv" if number % 3 == 0 else f"l{number}.json"), []
        if number % 3 == 0:
            place.write_bytes(damaged(text.getvalue().encode(), rng))
        else:
            place.write_bytes(distorted(rows, rng) if number % 3 == 1 else json.dumps(rows).encode())
        if number % 3 == 2:
            (folder / f"n{number}.json").write_bytes(distorted({"0": "cat", "1": "dog"}, rng))
            names = ["--classnames", str(folder / f"n{number}.json")]
        words = command(folder / "data", folder / "runs" / str(number), "CoOp")
        at = words.index("--dataset-config-file")
        words[at:at + 2] = ["--dataset-dir", str(place), *names]
        yield Case("lists of images", f"{place.name}", lambda words=words: train.cli(words), folder / "runs")


def archives(folder: Path, scale: float = 1.0, seed: int = 0) -> Iterator[Case]:
    """Unpacked: damaged ones, and members that would land outside, in links, devices, or twice."""
    from datasets.download import extract

    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    good = {kind: _archive(folder / f"good.{kind}", kind) for kind in ("zip", "tar.gz")}

    def unpack(path: Path, target: Path) -> int:
        target.mkdir()
        outside = set(folder.iterdir())
        try:
            extract(path, target)
        except UserError as error:
            print(error, file=sys.stderr)
            if any(target.iterdir()):
                raise AssertionError("a refused archive left files behind") from error
            return 2
        finally:
            if set(folder.iterdir()) - outside:
                raise AssertionError("an archive wrote outside its folder")
        return 0

    for number in range(some(60, scale)):
        kind = ("zip", "tar.gz")[number % 2]
        path = folder / f"a{number}.{kind}"
        path.write_bytes(damaged(good[kind].read_bytes(), rng))
        yield Case("archives", path.name, lambda path=path, n=number: unpack(path, folder / f"t{n}"))
    for name in ("../out", "/tmp/out-of-archive", "a/../../out", "..\\out", "C:\\out"):
        path = folder / f"slip{abs(hash(name))}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, "x")
        yield Case("archives", f"zip {name}", lambda path=path: unpack(path, path.with_suffix("")))
        path = path.with_suffix(".tar")
        with tarfile.open(path, "w") as archive:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
        yield Case("archives", f"tar {name}", lambda path=path: unpack(path, path.with_suffix(".d")))
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        path, member = folder / f"kind{kind.decode()}.tar", tarfile.TarInfo("link")
        member.type, member.linkname = kind, "/etc/passwd"
        with tarfile.open(path, "w") as archive:
            archive.addfile(member)
        yield Case("archives", f"tar member of type {kind}", lambda path=path: unpack(path, path.with_suffix(".d")))


def _archive(path: Path, kind: str) -> Path:
    files = {f"top/{i}.txt": bytes([65 + i]) * 300 for i in range(4)}
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path
