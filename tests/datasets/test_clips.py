"""Clips of frames: which ones are sampled, how each kind of file is read, and what is refused."""
import itertools
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import datasets.clips
import datasets.folder
from dassl.config import get_cfg_default
from dassl.data.check import check_dataset
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.data.samplers import SeededIndex
from dassl.data.transforms import build_transform
from dassl.utils import UserError
from datasets import extend_cfg
from datasets.clips import ClipReader, open_clip, sample
from datasets.moving_shapes import MOTIONS, MovingShapes, moving_shapes
from datasets.videos import VideoDir


def make_cfg(root="", **video):
    cfg = get_cfg_default()
    for extend in (extend_cfg, datasets.clips.extend_cfg, datasets.folder.extend_cfg):
        extend(cfg)
    cfg.DATASET.ROOT, cfg.INPUT.SIZE = str(root), (32, 32)
    for key, value in video.items():
        cfg.VIDEO[key] = value
    return cfg


def write_frames(folder, count=10, size=(8, 6)):
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", size, (i, 0, 0)).save(folder / f"{i:03d}.png")
    return folder


def write_video(path, count=10):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 * i, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_segments_cover_the_video_and_strides_keep_their_distance():
    assert sample(8, 8, 0, 1, False) == [list(range(8))]
    assert sample(12, 4, 0, 1, False) == [[1, 4, 7, 10]]
    drawn = sample(100, 5, 0, 1, True)[0]
    assert all(20 * i <= place < 20 * (i + 1) for i, place in enumerate(drawn))
    assert sample(20, 4, 3, 3, False) == [[0, 3, 6, 9], [5, 8, 11, 14], [10, 13, 16, 19]]
    assert sample(20, 4, 3, 1, False) == [[5, 8, 11, 14]]
    start, *_ = sample(20, 4, 3, 1, True)[0]
    assert 0 <= start <= 10


@pytest.mark.parametrize(("stride", "needed"), [(0, 4), (5, 16)])
def test_a_clip_shorter_than_the_sampling_is_named(stride, needed):
    with pytest.raises(UserError, match=f"a.mp4 has 3 frames.*at least {needed}"):
        sample(3, 4, stride, 1, False, "a.mp4")


def test_folders_animations_and_videos_give_the_frames_that_were_asked_for(tmp_path):
    frames = [Image.new("RGB", (8, 6), (20 * i, 0, 0)) for i in range(10)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    for place, step in ((write_frames(tmp_path / "frames"), 1), (tmp_path / "a.png", 20),
                        (write_video(tmp_path / "a.mp4"), 20)):
        with open_clip(str(place)) as clip:
            assert len(clip) == 10
            found = clip.read([1, 4, 9])
        for i, image in found.items():
            assert abs(image.getpixel((2, 2))[0] - step * i) < 5, place
        assert list(found) == [1, 4, 9]


def test_broken_empty_and_soundless_files_are_named(tmp_path):
    av = pytest.importorskip("av")
    (tmp_path / "broken.mp4").write_bytes(b"no video at all" * 50)
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    for name in ("broken.mp4", "broken.png", "empty", "sound.mkv", "absent.mp4"):
        with pytest.raises(UserError, match=name), open_clip(str(tmp_path / name)):
            pass


def test_broken_clips_of_all_splits_are_named_before_the_training(tmp_path):
    for name, content in (("good", None), ("cut", b"\x89PNG\r\n\x1a\n")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
        if content:
            (tmp_path / name / "0.png").write_bytes(content)
    good, cut = (Datum(str(tmp_path / name), 0, classname="a") for name in ("good", "cut"))
    check_dataset(DatasetBase(train_x=[good], val=[good], test=[good]), "Mine", ClipReader.why_unreadable)
    with pytest.raises(UserError, match=r"cut .*split val"):
        check_dataset(DatasetBase(train_x=[good], val=[cut], test=[good]), "Mine", ClipReader.why_unreadable)


def test_all_frames_of_a_clip_get_the_same_crop_and_the_streams_stay(tmp_path):
    for i in range(4):
        (tmp_path / "still").mkdir(exist_ok=True)
        Image.fromarray(np.random.RandomState(0).randint(0, 255, (40, 40, 3), np.uint8)).save(
            tmp_path / "still" / f"{i}.png")
    cfg = make_cfg(FRAMES=4)
    cfg.INPUT.TRANSFORMS = ("random_resized_crop", "random_flip", "normalize")
    reader = ClipReader(cfg, [Datum(str(tmp_path / "still"), 1)], build_transform(cfg, is_train=True), True)
    before = torch.get_rng_state(), random.getstate()
    one, two, same = (reader[SeededIndex(0, seed)]["img"] for seed in (1, 2, 1))
    assert one.shape == (4, 3, 32, 32) and torch.equal(one, same) and not torch.equal(one, two)
    assert all(torch.equal(one[0], frame) for frame in one)
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()


def test_several_clips_of_a_test_video_start_at_even_distances(tmp_path):
    write_frames(tmp_path / "video", 10, (32, 32))
    cfg = make_cfg(FRAMES=2, STRIDE=2, CLIPS=3)
    cfg.INPUT.TRANSFORMS = ()
    reader = ClipReader(cfg, [Datum(str(tmp_path / "video"))], build_transform(cfg, is_train=False))
    clips = (255 * reader[0]["img"][:, :, 0, 0, 0]).round().int()
    assert clips.tolist() == [[0, 2], [4, 6], [7, 9]]                       # rounded as published


@pytest.mark.parametrize("size", [(8, 4), (4, 8)])
def test_three_crops_of_a_clip_lie_along_its_longer_side(tmp_path, size):
    folder = tmp_path / "video"
    folder.mkdir()
    along = np.arange(8, dtype=np.uint8)[None, :, None] * np.ones((4, 1, 3), np.uint8)
    for i in range(3):
        Image.fromarray((along if size[0] == 8 else along.swapaxes(0, 1)) + 10 * i).save(folder / f"{i}.png")
    cfg = make_cfg(FRAMES=1, STRIDE=1, CLIPS=2, CROPS=3)
    cfg.INPUT.TRANSFORMS, cfg.INPUT.SIZE = (), (4, 4)
    for is_train, seen in ((False, [0, 20, 2, 22, 4, 24]), (True, None)):
        reader = ClipReader(cfg, [Datum(str(folder))], build_transform(cfg, is_train), is_train=is_train)
        clips = (255 * reader[0]["img"]).round().int()
        assert clips.shape == ((6, 1, 3, 4, 4) if seen else (1, 3, 4, 4))
        assert not seen or clips[:, 0, 0, 0, 0].tolist() == seen


@pytest.mark.parametrize(("video", "said"), [
    ({"FRAMES": 0}, "FRAMES must be 1 to 1024, got 0"), ({"STRIDE": -1}, "got -1"), ({"CLIPS": 3}, "CLIPS 3"),
    ({"CLIPS": 10 ** 6}, "got 1000000"), ({"CROPS": 2}, "1 .the centre. or 3 .*got 2")])
def test_sampling_that_makes_no_sense_is_refused(video, said):
    with pytest.raises(UserError, match=said):
        ClipReader(make_cfg(**video), [])


def test_every_class_of_moving_shapes_has_the_same_first_frames_and_another_order():
    clips = {motion: moving_shapes(motion, 3) for motion in MOTIONS}
    assert all(np.array_equal(clip[:, 0], clips["growing"][:, 0]) for clip in clips.values())
    assert all(not np.array_equal(clips[a][:, 1:], clips[b][:, 1:]) for a in MOTIONS for b in MOTIONS if a < b)
    ahead, back = clips["moving right"].astype(int), clips["moving left"].astype(int)
    assert abs(np.roll(ahead[:, 4], -12, axis=2) - back[:, 4]).mean() < 12      # 4 steps of 1.6 pixels each way


def test_moving_shapes_are_drawn_and_split_by_class(tmp_path, monkeypatch):
    draw, cfg = MovingShapes._draw, make_cfg(tmp_path)
    monkeypatch.setattr(MovingShapes, "_draw", lambda dataset: itertools.islice(draw(dataset), 70))     # all take long
    dataset = MovingShapes(cfg)
    assert [len(x) for x in (dataset.train_x, dataset.val, dataset.test)] == [320, 160, 400]
    assert dataset.classnames == list(MOTIONS)
    with open_clip(dataset.test[0].impath) as clip:
        assert len(clip) == 16


def test_own_clips_are_found_in_folders_of_classes_and_split(tmp_path):
    for name in ("jump", "run"):
        for i in range(5):
            write_frames(tmp_path / "sport" / name / f"clip{i}", 2)
    cfg = make_cfg()
    cfg.DATASET.DIR = str(tmp_path / "sport")
    dataset = VideoDir(cfg)
    assert dataset.classnames == ["jump", "run"] and dataset.name == "sport"
    paths = [item.impath for part in (dataset.train_x, dataset.val, dataset.test) for item in part]
    assert len(set(paths)) == len(paths) == 10 and len(dataset.test) == 4 and len(dataset.val) == 2
    write_frames(tmp_path / "one" / "jump" / "clip", 2)
    for name, said in (("absent", "absent"), ("one", "at least 2 classes")):
        cfg.DATASET.DIR = str(tmp_path / name)
        with pytest.raises(UserError, match=said):
            VideoDir(cfg)


def test_splits_of_own_clips_are_named_as_those_of_images(tmp_path):
    for split, count in (("Training", 3), ("Validation", 1), ("Testing", 2)):
        for name in ("jump", "run", "@eaDir"):
            for i in range(count):
                write_frames(tmp_path / "sport" / split / name / f"clip{i}", 2)
    cfg = make_cfg()
    cfg.DATASET.DIR = str(tmp_path / "sport")
    dataset = VideoDir(cfg)
    assert dataset.classnames == ["jump", "run"]
    assert [len(part) for part in (dataset.train_x, dataset.val, dataset.test)] == [6, 2, 4]


def test_ucf101s_lists_are_read_and_what_lacks_is_named(tmp_path):
    cfg, UCF101Videos = make_cfg(tmp_path), DATASET_REGISTRY.get("UCF101Videos")
    with pytest.raises(UserError, match="UCF101Videos was not found.*UCF-101"):
        UCF101Videos(cfg)
    lists = tmp_path / "ucf101_videos" / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (tmp_path / "ucf101_videos" / "UCF-101").mkdir()
    (lists / "classInd.txt").write_text("1 ApplyEyeMakeup\n2 YoYo\n")
    train = [f"{name}/v_{name}_g{i:02d}.avi {label}" for label, name in ((1, "ApplyEyeMakeup"), (2, "YoYo"))
             for i in range(5)]
    (lists / "trainlist01.txt").write_text("\n".join(train))
    (lists / "testlist01.txt").write_text("YoYo/v_YoYo_g07.avi\nApplyEyeMakeup/v_ApplyEyeMakeup_g08.avi\n")
    dataset = UCF101Videos(cfg)
    assert dataset.classnames == ["Apply_Eye_Makeup", "Yo_Yo"]
    assert [len(x) for x in (dataset.train_x, dataset.val, dataset.test)] == [8, 2, 2]
    assert Path(dataset.test[0].impath).name == "v_YoYo_g07.avi" and dataset.test[0].label == 1
