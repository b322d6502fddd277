"""Every kind of image file is read right, or named in one clear error before training."""
import os
import warnings

import numpy as np
import pytest
from PIL import Image

from dassl.data.check import check_dataset
from dassl.data.datasets import DatasetBase, Datum
from dassl.utils import UserError, read_image, tools
from dassl.utils.tools import why_unreadable

RED, BLUE = (250, 4, 6), (5, 8, 240)


def two_halves() -> np.ndarray:
    """(20, 40, 3): the left half red, the right half blue."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20], pixels[:, 20:] = RED, BLUE
    return pixels


def near(image, colours, tolerance=12):
    """Whether the left and right centre of an RGB image have these colours."""
    pixels = np.asarray(image).astype(int)
    height, width, channels = pixels.shape
    seen = [pixels[height // 2, width // 4], pixels[height // 2, 3 * width // 4]]
    return channels == 3 and np.abs(np.array(seen) - np.array(colours)).max() <= tolerance


def save(path, mode, **options):
    Image.fromarray(two_halves()).convert(mode).save(path, **options)
    return str(path)


@pytest.mark.parametrize("name, mode", [("a.png", "RGB"), ("a.JPG", "RGB"), ("Ä b ☃.JPeG", "RGB"), ("cmyk.jpg", "CMYK"),
                                        ("palette.png", "P"), ("palette.gif", "P"), ("alpha.png", "RGBA"),
                                        ("a.webp", "RGBA"), ("a.tiff", "CMYK"), ("a.bmp", "RGB")])
def test_colours_survive_every_mode_and_spelling_of_the_name(tmp_path, name, mode):
    path = save(tmp_path / name, mode)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(path)
    assert image.mode == "RGB" and image.size == (40, 20) and near(image, (RED, BLUE), 25 if mode == "P" else 12)
    assert why_unreadable(path) == ""


def test_a_transparent_palette_is_read_without_a_warning(tmp_path):
    path = save(tmp_path / "p.png", "P", transparency=bytes([0, 120]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert near(read_image(path), (RED, BLUE), 25)


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_greyscale_becomes_three_equal_channels(tmp_path, mode):
    grey = Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 20, 1).repeat(20, 0)).convert(mode)
    grey.save(tmp_path / "g.png")
    assert near(read_image(str(tmp_path / "g.png")), ((0, 0, 0), (255, 255, 255)), 0)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_are_scaled_and_not_cut(tmp_path, suffix):
    values = np.repeat(np.array([[16_384, 49_152]], np.uint16), 20, 1).repeat(20, 0)
    Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
    image = read_image(str(tmp_path / f"deep.{suffix}"))
    assert near(image, ((64,) * 3, (192,) * 3), 1)


@pytest.mark.parametrize("orientation, size, colours", [(1, (40, 20), (RED, BLUE)), (3, (40, 20), (BLUE, RED)),
                                                        (2, (40, 20), (BLUE, RED)), (6, (20, 40), None)])
def test_a_photo_stands_as_the_camera_noted_it(tmp_path, orientation, size, colours):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = read_image(save(tmp_path / "a.jpg", "RGB", exif=exif))
    assert image.size == size
    if colours:
        assert near(image, colours)
    else:
        assert abs(np.asarray(image)[10, 10].astype(int) - RED).max() < 12        # left becomes top


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_make_the_image_unreadable(tmp_path):
    assert near(read_image(save(tmp_path / "a.jpg", "RGB", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")), (RED, BLUE))


def cut(path):
    """Keep the first 60 % of a file."""
    content = path.read_bytes()
    path.write_bytes(content[:int(len(content) * 0.6)])


def broken(tmp_path, kind):
    path = tmp_path / f"{kind}.jpg"
    noise = np.random.RandomState(0).randint(0, 255, (64, 64, 3), dtype=np.uint8)
    if kind == "truncated":
        Image.fromarray(noise).save(path)
        cut(path)
    elif kind == "truncated png":
        Image.fromarray(noise).save(path, format="png")
        cut(path)
    elif kind == "float":
        Image.fromarray(np.zeros((4, 4), np.float32)).save(path, format="tiff")
    elif kind == "huge":
        Image.new("1", (20_000, 20_000)).save(path, format="png")
    else:
        path.write_bytes({"empty": b"", "text": b"<html>404"}[kind])
    return str(path)


REASONS = {"truncated": "truncated", "truncated png": "truncated|broken", "empty": r"it is empty \(0 bytes\)",
           "text": "no known image format", "float": "floating-point", "huge": "more than 179 million pixels"}


@pytest.mark.parametrize("kind", REASONS)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_cannot_be_read_is_named_with_the_reason_before_training(tmp_path, kind):
    path = broken(tmp_path, kind)
    with pytest.raises(UserError, match=REASONS[kind]) as caught:
        read_image(path)
    assert path in str(caught.value) and "\n" not in str(caught.value)
    good = save(tmp_path / "good.png", "RGB")
    dataset = DatasetBase(train_x=[Datum(good, 0, classname="a"), Datum(path, 1, classname="b")],
                          test=[Datum(good, 0, classname="a")])
    with pytest.raises(UserError, match=f"1 of 2 images cannot be read, first .*{REASONS[kind]}"):
        check_dataset(dataset, "Mine")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_large_photo_below_the_limit_is_read(tmp_path):
    Image.new("L", (12_000, 8_000), 77).save(tmp_path / "large.png")
    assert read_image(str(tmp_path / "large.png")).getpixel((5, 5)) == (77, 77, 77)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_picture_in_the_transparency_alone_is_told_once(mode, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tools, "_warned_of", [])
    drawn = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    drawn.paste((0, 0, 0, 255), (2, 2, 6, 6))
    for name in ("a.png", "b.png"):
        drawn.convert(mode).save(tmp_path / name)
    assert {read_image(str(tmp_path / name)).getextrema() for name in ("a.png", "b.png")} == {((0, 0),) * 3}
    assert caplog.text.count("is of one colour once its transparency is dropped") == 1 and "a.png" in caplog.text
    monkeypatch.setattr(tools, "_warned_of", [])
    caplog.clear()
    Image.new("RGBA", (8, 8), (0, 0, 0, 255)).save(tmp_path / "plain.png")          # black, and meant so
    drawn.paste((255, 0, 0, 255), (3, 3, 5, 5))
    drawn.save(tmp_path / "seen.png")
    for name in ("plain.png", "seen.png"):
        read_image(str(tmp_path / name))
    assert not caplog.records


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_among_images_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "0.png")
    assert "no regular file" in why_unreadable(str(tmp_path / "0.png"))
