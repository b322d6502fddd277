"""Clips of frames: how they are sampled, read and transformed.

A clip is a folder of frames, an animated image (GIF, PNG, WebP) or a video file. Videos are read with PyAV, because
decord is no longer maintained and torchcodec needs FFmpeg on the machine; the others need Pillow alone.
"""
from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from PIL import Image, ImageSequence, UnidentifiedImageError

from dassl.config import CfgNode
from dassl.data.data_manager import DatasetWrapper, seed_streams, streams_kept
from dassl.utils import UserError, is_hidden, read_image

logger = logging.getLogger(__name__)

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
ANIMATED_SUFFIXES = (".gif", ".png", ".apng", ".webp")
VIDEO_SUFFIXES = (".avi", ".mp4", ".webm", ".mkv", ".mov", ".mpg", ".mpeg", ".m4v", ".wmv", ".flv")


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.VIDEO = CfgNode()
    c.FRAMES = 8                # of a clip, T; more see more of the motion and cost as much as so many images
    c.STRIDE = 0                # every STRIDE-th frame from one place on; 0: one frame of each of T equal segments
    c.CLIPS = 1                 # tested of each video, from places spread over it (STRIDE above 0); predictions average
    c.CROPS = 1                 # tested of each clip: 1, the centre; 3, both ends of the longer side too


class ClipReader(DatasetWrapper):
    """Reads clips: "img" is (T, 3, H, W), or (V, T, 3, H, W) where VIDEO.CLIPS times VIDEO.CROPS tests V > 1 of each.

    All frames of a clip get the same random crop and flip. In training the frames are drawn from the stream that the
    loader seeds for the item; in evaluation they are the middle ones of their segments, or start at even distances.
    """

    def __init__(self, cfg: CfgNode, data_source, transform=None, is_train: bool = False):
        super().__init__(cfg, data_source, transform, is_train)
        c = self.video = cfg.VIDEO
        for key, least, most in (("FRAMES", 1, 1024), ("STRIDE", 0, 1024), ("CLIPS", 1, 64)):
            if not least <= c[key] <= most:
                raise UserError(f"VIDEO.{key} must be {least} to {most}, got {c[key]}.")
        if c.CROPS not in (1, 3):
            raise UserError(f"VIDEO.CROPS must be 1 (the centre) or 3 (along the longer side), got {c.CROPS}.")
        if c.CLIPS > 1 and not c.STRIDE:
            raise UserError(f"VIDEO.CLIPS {c.CLIPS} starts clips at several places, which takes VIDEO.STRIDE above 0; "
                            "with 0 the frames of one clip cover the whole video.")
        if self.k_tfm > 1 or isinstance(transform, (list, tuple)):
            raise UserError("A clip has one random view in training; set DATALOADER.K_TRANSFORMS 1.")
        if hasattr(transform, "count"):
            raise UserError("Methods that compare several views of a test image do not take clips of frames.")

    @staticmethod
    def why_unreadable(path: str) -> str:
        """Why not even the first frame of a clip can be read; "" if it can."""
        try:
            with open_clip(path) as clip:
                clip.read([0])
        except (UserError, OSError, SyntaxError, ValueError) as error:
            return str(error)
        return ""

    def before_workers(self) -> None:
        """Clips are not kept decoded."""

    def __getitems__(self, indices: Sequence[int]) -> list[dict]:
        return [self[i] for i in indices]

    def _item(self, idx, transform) -> dict:
        item, seed = self.data_source[idx], getattr(idx, "seed", None)
        seed = random.getrandbits(32) if seed is None else seed
        with streams_kept():
            clips = self._clips(item.impath, transform, seed)
        return {"img": clips if len(clips) > 1 else clips[0], "label": item.label, "domain": item.domain,
                "impath": item.impath, "index": int(idx)}

    def _clips(self, path: str, transform, seed: int) -> torch.Tensor:
        """(V, T, 3, H, W)."""
        seed_streams(seed)
        with open_clip(path) as clip:
            places = sample(len(clip), self.video.FRAMES, self.video.STRIDE, 1 if self.is_train else self.video.CLIPS,
                            self.is_train, path)
            frames = clip.read(sorted(set(sum(places, []))))
        shown = [frames] if self.is_train or self.video.CROPS == 1 else \
            [dict(zip(frames, each)) for each in zip(*map(along_longer_side, frames.values()))]
        return torch.stack([torch.stack([self._transformed(crop[i], transform, seed) for i in chosen])
                            for crop in shown for chosen in places])

    def _transformed(self, frame: Image.Image, transform, seed: int) -> torch.Tensor:
        seed_streams(seed)                                      # every frame alike
        return (transform or self.to_tensor)(frame)


def along_longer_side(frame: Image.Image) -> list[Image.Image]:
    """The largest squares at one end, in the middle and at the other end of the longer side.

    Source: linziyi96/st-adapter bded03c, video_dataset/dataset.py _generate_spatial_crops, which resizes first.
    """
    side, (W, H) = min(frame.size), frame.size
    return [frame.crop((left, top, left + side, top + side))
            for left, top in ((0, 0), ((W - side) // 2, (H - side) // 2), (W - side, H - side))]


def sample(length: int, frames: int, stride: int, clips: int, drawn: bool, name: str = "") -> list[list[int]]:
    """The frames of each of `clips` clips, of a video of `length` frames.

    Args:
        stride: 0 takes one frame of each of `frames` equal segments.
        drawn: with Python's random stream; otherwise the middle of a segment, or starts at even distances.
        name: of the video, for the error.
    Raises:
        UserError: the video has fewer frames than that takes.
    """
    needed = frames if not stride else (frames - 1) * stride + 1
    if length < needed:
        way = f"{frames} segments" if not stride else f"{frames} frames at a stride of {stride}"
        raise UserError(f"{name} has {length} frames, and {way} take at least {needed}. Set VIDEO.FRAMES or "
                        "VIDEO.STRIDE lower, or leave this video out.")
    if not stride:
        bounds = pairwise(length * i // frames for i in range(frames + 1))
        return [[random.randrange(a, b) if drawn else (a + b - 1) // 2 for a, b in bounds]]
    room = length - needed
    starts = [random.randint(0, room)] if drawn else \
        [room // 2] if clips == 1 else [round(room / (clips - 1) * i) for i in range(clips)]
    return [[start + stride * i for i in range(frames)] for start in starts]


@contextlib.contextmanager
def open_clip(path: str):
    """What has a length in frames, and `read(places) -> {place: RGB image}` for places in rising order.

    Raises:
        UserError: no such file, a folder without frames, a broken video, or one without pictures.
    """
    place = Path(path)
    if place.is_dir():
        yield _Folder(place)
    elif place.suffix.lower() in ANIMATED_SUFFIXES:
        try:
            with Image.open(place) as image:
                yield _Animation(image)
        except (OSError, SyntaxError, UnidentifiedImageError) as error:
            raise UserError(f"{path} cannot be read as an animated image: {error}.") from error
    else:
        with _video(path) as video:
            yield video


class _Folder:
    def __init__(self, folder: Path):
        self.files = sorted(file for file in folder.iterdir()
                            if file.suffix.lower() in FRAME_SUFFIXES and not is_hidden(file.name))
        if not self.files:
            raise UserError(f"{folder} has no frames ({', '.join(FRAME_SUFFIXES)}).")

    def __len__(self) -> int:
        return len(self.files)

    def read(self, places: Sequence[int]) -> dict[int, Image.Image]:
        return {i: read_image(str(self.files[i])) for i in places}


class _Animation:
    def __init__(self, image: Image.Image):
        self.image = image

    def __len__(self) -> int:
        return getattr(self.image, "n_frames", 1)

    def read(self, places: Sequence[int]) -> dict[int, Image.Image]:
        wanted = set(places)
        return {i: frame.convert("RGB") for i, frame in enumerate(ImageSequence.Iterator(self.image)) if i in wanted}


@contextlib.contextmanager
def _video(path: str):
    try:
        import av
    except ImportError as error:
        raise UserError(f"{path}: video files are read with PyAV, which is not installed. Install it (pip install av), "
                        "or give folders of frames.") from error
    try:
        with av.open(path) as container:
            if not container.streams.video:
                kinds = ", ".join(stream.type for stream in container.streams) or "nothing"
                raise UserError(f"{path} has no pictures, only {kinds}. Leave it out.")
            yield _Video(container, path)
    except (av.error.FFmpegError, OSError) as error:
        raise UserError(f"{path} cannot be read as a video: {getattr(error, 'strerror', None) or error}. Fetch it "
                        "again, or leave it out.") from error


class _Video:
    """Decoded from its start: seeking is not exact in many files, and a few-shot list is small."""

    def __init__(self, container, path: str):
        self.container, self.path, self.stream = container, path, container.streams.video[0]
        self.stream.thread_type = "AUTO"
        self._count = self.stream.frames

    def __len__(self) -> int:
        if not self._count:                                     # the header does not say
            self._count = sum(1 for _ in self.container.decode(self.stream))
            self.container.seek(0)
        return self._count

    def read(self, places: Sequence[int]) -> dict[int, Image.Image]:
        wanted, found, last = set(places), {}, None
        for i, frame in enumerate(self.container.decode(self.stream)):
            last = frame
            if i in wanted:
                found[i] = frame.to_image()
                if len(found) == len(wanted):
                    break
        if last is None:
            raise UserError(f"{self.path} has no frame that can be decoded. Fetch it again, or leave it out.")
        if absent := sorted(wanted - found.keys()):
            logger.warning("%s promises %d frames and ends before frame %d: its last frame takes the place of the rest",
                           self.path, len(self), absent[0])
        return {i: found.get(i) or last.to_image() for i in places}
