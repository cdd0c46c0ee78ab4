"""Every kind of picture: what is read, refused and told. Expected pixels follow from formulas, not from Pillow."""

import colorsys
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from cmbench.data.images import Config, Data
from cmbench.errors import UsageError
from cmbench.pictures import decode, listing
from cmbench.pictures.decode import RefusedError

CPU = torch.device("cpu")
RANDOM = np.random.default_rng(0)
H, W = 4, 6
RGB = RANDOM.integers(0, 256, (H, W, 3)).astype(np.uint8)
GREY = RANDOM.integers(0, 256, (H, W)).astype(np.uint8)
DEEP = RANDOM.integers(0, 65536, (H, W)).astype(np.uint16)
ALPHA = np.array([[0, 255, 128, 1, 254, 64]] * H, np.uint8)
FLOATS = RANDOM.random((H, W)).astype(np.float32)
INDEX = (np.arange(H * W).reshape(H, W) % 5).astype(np.uint8)
PALETTE = RANDOM.integers(0, 256, (5, 3)).astype(np.uint8)
FLAT = np.repeat(
    np.repeat(np.array([[[200, 40, 60], [30, 180, 90]], [[20, 60, 220], [240, 230, 20]]], np.uint8), 16, 0), 24, 1
)


def png(path: Path, rows: np.ndarray, depth: int, colour: int, *before: tuple[bytes, bytes], cut: int = 0) -> None:
    """Write a PNG by the book; rows (H, bytes a row) are as they stand in the file, `before` are chunks before them."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] * depth
    width = rows.shape[1] * 8 // samples
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *before, (b"IDAT", data), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    path.write_bytes(content[: len(content) - cut])


def big(x: np.ndarray) -> np.ndarray:
    """(H, W, ...) uint16 as the bytes of PNG's rows."""
    return np.ascontiguousarray(x.astype(">u2")).reshape(len(x), -1).view(np.uint8)


def flat_rows(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).reshape(len(x), -1)


def grey(x: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(x, float)[..., None], 3, axis=-1)


def over(x: np.ndarray, alpha: np.ndarray, background: int) -> np.ndarray:
    share = alpha[..., None] / 255
    return np.asarray(x, float) * share + background * (1 - share)


def of_cmyk(cmyk: np.ndarray) -> np.ndarray:
    return (255.0 - cmyk[..., :3]) * (255.0 - cmyk[..., 3:]) / 255


def of_ycbcr(x: np.ndarray) -> np.ndarray:
    """JFIF's equations."""
    y, cb, cr = (x[..., i].astype(float) for i in range(3))
    cb, cr = cb - 128, cr - 128
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1)
    return rgb.clip(0, 255)


def of_lab(x: np.ndarray) -> np.ndarray:
    """CIE L*a*b* at D50, then Bradford's adaptation and the transfer curve of sRGB."""
    x = x.astype(float)
    L, a, b = x[..., 0] * 100 / 255, x[..., 1] - 128.0, x[..., 2] - 128.0
    fy = (L + 16) / 116
    f = np.stack([fy + a / 500, fy, fy - b / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.9642, 1.0, 0.8249]
    to_rgb = [[3.1339, -1.6169, -0.4906], [-0.9788, 1.9161, 0.0335], [0.0719, -0.2290, 1.4052]]
    linear = (xyz @ np.array(to_rgb).T).clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


CMYK = RANDOM.integers(0, 256, (H, W, 4)).astype(np.uint8)
YCBCR = RANDOM.integers(90, 160, (H, W, 3)).astype(np.uint8)
LAB = np.stack([RANDOM.integers(100, 180, (H, W)), *RANDOM.integers(118, 138, (2, H, W))], axis=-1).astype(np.uint8)


def saved(mode: str, x: np.ndarray, **options: object) -> Callable[[Path], None]:
    bands = [Image.fromarray(np.ascontiguousarray(x[..., i])) for i in range(x.shape[-1])]
    return lambda path: Image.merge(mode, bands).save(path, **options)


def array(x: np.ndarray, **options: object) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(x).save(path, **options)


def frames(path: Path) -> None:
    first, second = Image.fromarray(RGB), Image.fromarray(255 - RGB)
    first.save(path, save_all=True, append_images=[second])


@dataclass
class Kind:
    """A picture: the name of its file, how it is written, the pixels (H, W, 3) that it has, what is told of it."""

    file: str
    write: Callable[[Path], None]
    pixels: np.ndarray
    found: set[str] = field(default_factory=set)
    within: float = 0.51  # rounding
    alpha: str = "white"


PAIR = np.stack([GREY, ALPHA], axis=-1)
RGBA = np.concatenate([RGB, ALPHA[..., None]], axis=-1)
OPAQUE = np.concatenate([RGB, np.full((H, W, 1), 255, np.uint8)], axis=-1)
KEY = np.where((RGB[0, 0] == RGB).all(-1), 0, 255)
PLTE = (b"PLTE", PALETTE.tobytes())
PACKED = np.packbits(GREY > 127, axis=1)
TWO_BITS = np.array([[0b00011011, 0b11100100]], np.uint8)
_OF_YCBCR = Kind("a.tif", saved("YCbCr", YCBCR), of_ycbcr(YCBCR), {"YCbCr"}, 1.5)
KINDS = {
    "bilevel png": Kind("a.png", lambda p: png(p, np.tile(PACKED, (1, 1)), 1, 0), None, {"grey"}),
    "2-bit grey png": Kind(
        "a.png", lambda p: png(p, TWO_BITS, 2, 0), grey([[0, 85, 170, 255, 255, 170, 85, 0]]), {"grey"}
    ),
    "grey png": Kind("a.png", lambda p: png(p, GREY, 8, 0), grey(GREY), {"grey"}),
    "grey jpeg": Kind("a.jpg", array(FLAT[..., 0], quality=95), grey(FLAT[..., 0]), {"grey"}, 6),
    "grey webp": Kind("a.webp", array(RGB, lossless=True), RGB),
    "grey and alpha over white": Kind(
        "a.png", lambda p: png(p, flat_rows(PAIR), 8, 4), over(grey(GREY), ALPHA, 255), {"grey", "transparent"}, 1
    ),
    "grey and alpha over black": Kind(
        "a.png",
        lambda p: png(p, flat_rows(PAIR), 8, 4),
        over(grey(GREY), ALPHA, 0),
        {"grey", "transparent"},
        1,
        "black",
    ),
    "palette png": Kind("a.png", lambda p: png(p, INDEX, 8, 3, PLTE), PALETTE[INDEX]),
    "palette with transparency": Kind(
        "a.png",
        lambda p: png(p, INDEX, 8, 3, PLTE, (b"tRNS", bytes([0, 128, 255]))),
        over(PALETTE[INDEX], np.array([0, 128, 255, 255, 255])[INDEX], 255),
        {"transparent"},
        1,
    ),
    "palette gif": Kind("a.gif", lambda p: Image.fromarray(RGB).quantize(256).save(p), RGB),
    "rgb png": Kind("a.png", lambda p: png(p, flat_rows(RGB), 8, 2), RGB),
    "rgb bmp": Kind("a.bmp", array(RGB), RGB),
    "rgb ppm": Kind("a.ppm", lambda p: p.write_bytes(b"P6 6 4 255\n" + RGB.tobytes()), RGB),
    "rgb jpeg": Kind("a.jpg", array(FLAT, quality=95, subsampling=0), FLAT, set(), 6),
    "jpeg called .png": Kind(
        "a.png", lambda p: Image.fromarray(FLAT).save(p, "JPEG", quality=95, subsampling=0), FLAT, set(), 6
    ),
    "upper case": Kind("a.PNG", lambda p: png(p, flat_rows(RGB), 8, 2), RGB),
    "rgba over white": Kind(
        "a.png", lambda p: png(p, flat_rows(RGBA), 8, 6), over(RGB, ALPHA, 255), {"transparent"}, 1
    ),
    "rgba over black": Kind(
        "a.png", lambda p: png(p, flat_rows(RGBA), 8, 6), over(RGB, ALPHA, 0), {"transparent"}, 1, "black"
    ),
    "rgba without a hole": Kind("a.png", lambda p: png(p, flat_rows(OPAQUE), 8, 6), RGB, set(), 0, "refused"),
    "rgba webp": Kind(
        "a.webp", saved("RGBA", RGBA, lossless=True, exact=True), over(RGB, ALPHA, 255), {"transparent"}, 1
    ),
    "rgba tiff": Kind("a.tiff", saved("RGBA", RGBA), over(RGB, ALPHA, 255), {"transparent"}, 1),
    "rgb with a transparent colour": Kind(
        "a.png",
        lambda p: png(p, flat_rows(RGB), 8, 2, (b"tRNS", struct.pack(">3H", *RGB[0, 0]))),
        over(RGB, KEY, 255),
        {"transparent"},
    ),
    "grey with a transparent shade": Kind(
        "a.png",
        lambda p: png(p, GREY, 8, 0, (b"tRNS", struct.pack(">H", GREY[1, 1]))),
        over(grey(GREY), np.where(GREY[1, 1] == GREY, 0, 255), 255),
        {"grey", "transparent"},
    ),
    "16-bit grey png": Kind("a.png", lambda p: png(p, big(DEEP), 16, 0), grey(DEEP / 257), {"grey", "16-bit"}),
    "16-bit grey png with a transparent shade": Kind(
        "a.png",
        lambda p: png(p, big(DEEP), 16, 0, (b"tRNS", struct.pack(">H", DEEP[2, 2]))),
        over(grey(DEEP / 257), np.where(DEEP[2, 2] == DEEP, 0, 255), 255),
        {"grey", "16-bit", "transparent"},
    ),
    "16-bit rgb png": Kind("a.png", lambda p: png(p, big(257 * RGB.astype(np.uint16)), 16, 2), RGB),
    "16-bit rgba png": Kind(
        "a.png", lambda p: png(p, big(257 * RGBA.astype(np.uint16)), 16, 6), over(RGB, ALPHA, 255), {"transparent"}, 1
    ),
    "16-bit tiff": Kind("a.tif", array(DEEP), grey(DEEP / 257), {"grey", "16-bit"}),
    "16-bit tiff, big-endian": Kind("a.tif", array(DEEP.astype(">u2")), grey(DEEP / 257), {"grey", "16-bit"}),
    "16-bit pgm": Kind(
        "a.pgm",
        lambda p: p.write_bytes(b"P5 6 4 65535\n" + DEEP.astype(">u2").tobytes()),
        grey(DEEP / 257),
        {"grey", "16-bit"},
    ),
    "12-bit pgm": Kind(
        "a.pgm",
        lambda p: p.write_bytes(b"P5 6 4 4095\n" + (DEEP // 16).astype(">u2").tobytes()),
        grey((DEEP // 16) / 4095 * 255),
        {"grey", "16-bit"},
    ),
    "32-bit integers up to 65535": Kind("a.tif", array(DEEP.astype(np.int32)), grey(DEEP / 257), {"grey", "16-bit"}),
    "floats": Kind("a.tif", array(FLOATS), grey(255 * FLOATS), {"grey", "float"}),
    "cmyk tiff": Kind("a.tif", saved("CMYK", CMYK), of_cmyk(CMYK), {"CMYK"}, 1.01),
    # Pillow before 13 cannot read what it writes so
    **({"ycbcr tiff": _OF_YCBCR} if int(PIL.__version__.split(".")[0]) >= 13 else {}),
    "lab tiff": Kind("a.tif", saved("LAB", LAB), of_lab(LAB), {"LAB"}, 2),
    "animated gif": Kind("a.gif", lambda p: frames(p), RGB, {"animated"}, 0),
    "animated png": Kind("a.png", lambda p: frames(p), RGB, {"animated"}),
    "tiff of two pages": Kind("a.tiff", lambda p: frames(p), RGB, {"animated"}),
}
KINDS["bilevel png"].pixels = grey(255 * np.unpackbits(PACKED, axis=1))
KINDS["animated gif"].write = lambda p: (
    Image.fromarray(RGB).quantize(256).save(p, save_all=True, append_images=[Image.fromarray(255 - RGB).quantize(256)])
)


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_a_picture_is_read_as_it_is(tmp_path, kind):
    kind.write(tmp_path / kind.file)
    image, found = decode.read(tmp_path / kind.file, kind.alpha)
    assert image.mode == "RGB"
    np.testing.assert_allclose(np.asarray(image, float), kind.pixels, rtol=0, atol=kind.within)
    assert found == kind.found
    assert Path(kind.file).suffix.lower() in listing.KINDS


def of_hsv(hsv: np.ndarray) -> np.ndarray:
    return np.array([[255 * np.array(colorsys.hsv_to_rgb(*(pixel / 255))) for pixel in row] for row in hsv])


MULTIPLIED = np.concatenate([(RGB * (ALPHA[..., None] / 255)).round().astype(np.uint8), ALPHA[..., None]], axis=-1)
IN_MEMORY = {
    "HSV": (CMYK[..., :3], of_hsv(CMYK[..., :3]), 3, {"HSV"}),
    "RGBX": (RGBA, RGB, 0, set()),
    "RGBa": (MULTIPLIED, over(RGB, ALPHA, 255), 2, {"transparent"}),
}


@pytest.mark.parametrize("mode", IN_MEMORY)
def test_modes_that_no_common_file_has(mode):
    x, pixels, within, marks = IN_MEMORY[mode]
    opened = Image.frombytes(mode, (W, H), np.ascontiguousarray(x).tobytes())
    image, found = decode.upright_rgb(opened)
    np.testing.assert_allclose(np.asarray(image, float), pixels, rtol=0, atol=within)
    assert found == marks


UPRIGHT = np.zeros((24, 32, 3), np.uint8)
UPRIGHT[:8, :8] = (250, 20, 20)  # the upper left corner
UPRIGHT[:8, 24:] = (20, 250, 20)  # the upper right one
# How a camera of each orientation stores an upright picture: EXIF 2.3, "the 0th row / column is the visual ..."
STORED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: x.transpose(1, 0, 2)[::-1],
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: x.transpose(1, 0, 2)[:, ::-1],
}


@pytest.mark.parametrize("file", ["a.jpg", "a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("orientation", STORED)
def test_a_picture_of_a_turned_camera_stands_upright(tmp_path, orientation, file):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if file == "a.jpg" else {"lossless": True} if file == "a.webp" else {}
    Image.fromarray(np.ascontiguousarray(STORED[orientation](UPRIGHT))).save(tmp_path / file, exif=exif, **options)
    image, found = decode.read(tmp_path / file)
    np.testing.assert_allclose(np.asarray(image, float), UPRIGHT, rtol=0, atol=40 if file == "a.jpg" else 0)
    assert found == ({"rotated"} if orientation > 1 else set())


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_none_is_passed_over(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    image, found = decode.read(tmp_path / "a.png")
    assert np.array_equal(np.asarray(image), RGB)
    assert not found


def test_broken_exif_leaves_the_picture_as_it_lies(tmp_path):
    Image.fromarray(FLAT).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\xff\xff", quality=95, subsampling=0)
    image, _ = decode.read(tmp_path / "a.jpg")
    np.testing.assert_allclose(np.asarray(image, float), FLAT, atol=6)


def cut(write: Callable[[Path], None], left: float) -> Callable[[Path], None]:
    def write_part(path: Path) -> None:
        write(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(left * len(content))])

    return write_part


NOISE = RANDOM.integers(0, 256, (64, 64, 3)).astype(np.uint8)
REFUSED = {
    "truncated png": ("a.png", cut(array(NOISE), 0.5), "truncated"),
    "truncated jpeg": ("a.jpg", cut(array(NOISE), 0.5), "truncated"),
    "truncated gif": ("a.gif", cut(lambda p: Image.fromarray(NOISE).quantize(256).save(p), 0.5), "."),
    "truncated webp": ("a.webp", cut(array(NOISE), 0.5), "."),
    "truncated tiff": ("a.tif", cut(array(NOISE), 0.5), "."),
    "a header alone": ("a.png", cut(array(NOISE), 0.003), "no picture, or a damaged one"),
    "empty": ("a.png", lambda p: p.write_bytes(b""), "empty"),
    "text": ("a.jpg", lambda p: p.write_text("not a picture"), "no picture, or a damaged one"),
    "postscript": ("a.png", lambda p: p.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "no picture"),
    "wrong checksum": (
        "a.png",
        lambda p: (png(p, GREY, 8, 0), p.write_bytes(p.read_bytes().replace(b"IDAT", b"IDAT\x01"))),
        ".",
    ),
    "absurdly large": (
        "a.png",
        lambda p: png(p, GREY, 8, 0, (b"IHDR", struct.pack(">IIBBBBB", 10**5, 10**5, 8, 0, 0, 0, 0))),
        ".",
    ),
    "absurdly large bmp": (
        "a.bmp",
        lambda p: p.write_bytes(
            b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 20000, 5000, 1, 24, *[0] * 6)
        ),
        "absurdly large: more than 89,478,485 pixels",
    ),
    "transparent": (
        "a.png",
        lambda p: png(p, flat_rows(RGBA), 8, 6),
        "transparent in places, and data.alpha = 'refused'",
    ),
    "integers of 32 bits": (
        "a.tif",
        array(DEEP.astype(np.int32) * 1000),
        "32-bit integers from .* allowed: 0 to 65535",
    ),
    "floats from 0 to 255": ("a.tif", array(255 * FLOATS), "floats from .* allowed: 0 to 1"),
    "floats that are not finite": (
        "a.tif",
        array(np.where(FLOATS > 0.5, np.nan, FLOATS).astype(np.float32)),
        "not finite",
    ),
    "a pipe": ("a.png", os.mkfifo, "not a regular file"),
    "a link to nothing": ("a.png", lambda p: p.symlink_to("nowhere"), "No such file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_picture_that_cannot_be_read_is_refused_with_the_reason(tmp_path, name):
    file, write, reason = REFUSED[name]
    write(tmp_path / file)
    with pytest.raises(RefusedError, match=reason) as caught:
        decode.read(tmp_path / file, "refused")
    assert "\n" not in str(caught.value)


# Folders


def a_class(folder: Path, n: int = 4, colour: tuple[int, int, int] = (9, 99, 199)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.new("RGB", (8, 8), (*colour[:2], min(255, colour[2] + i))).save(folder / f"{i}.png")


def load(root: Path, **settings: object) -> Data:
    return Data(Config(name="folder", root=str(root), size=8, **settings), CPU)


def test_numbers_in_names_of_classes_count_by_their_value(tmp_path):
    for i in range(12):
        a_class(tmp_path / str(i), 2, (20 * i, 0, 0))
    data = load(tmp_path)
    assert data.names == tuple(map(str, range(12)))
    for pictures, labels in ((data.train, data.train_labels), (data.test, data.test_labels)):
        assert torch.equal(pictures[:, 0, 0, 0] / 20, labels)


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["b10", "b9", "a"], ["a", "b9", "b10"]),
        (["2", "10", "1"], ["1", "2", "10"]),
        (["cat", "Dog", "ant"], ["ant", "cat", "Dog"]),
        (["1a", "1", "01"], ["01", "1", "1a"]),
        (["x1y10", "x1y9"], ["x1y9", "x1y10"]),
    ],
)
def test_natural_order(names, ordered):
    assert sorted(names, key=listing.natural) == ordered


def test_what_is_hidden_is_no_class_and_what_is_unknown_is_counted(tmp_path):
    for name in ("cat", "dog", ".ipynb_checkpoints", "__MACOSX", ".git"):
        a_class(tmp_path / name)
    a_class(tmp_path / "dog" / "more" / "deep", 2)
    a_class(tmp_path / "dog" / ".thumbnails", 3)
    for name in ("cat/._0.png", "cat/notes.txt", "cat/b.heic", "dog/README", "labels.csv", "stray.png"):
        (tmp_path / name).write_text("x")
    data = load(tmp_path)
    assert (data.names, data.counts, data.classes) == (("cat", "dog"), (4, 6), 2)
    assert data.summary == (
        "10 pictures of 2 classes (cat: 4, dog: 6), 6 skipped: 1 .csv, 1 .heic, 1 .txt, "
        "1 beside the classes, 1 hidden, 1 without a kind"
    )


def test_the_summary_counts_what_was_found(tmp_path):
    a_class(tmp_path / "a", 3)
    (tmp_path / "b").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(2):
        Image.fromarray(RGB).save(tmp_path / "b" / f"{i}.png", exif=exif)
    Image.fromarray(GREY).save(tmp_path / "b" / "grey.png")
    Image.fromarray(DEEP).save(tmp_path / "b" / "deep.png")
    Image.fromarray(RGBA).save(tmp_path / "b" / "alpha.png")
    assert load(tmp_path).summary == (
        "8 pictures of 2 classes (a: 3, b: 5), 2 grey, 2 rotated, 1 16-bit, 1 transparent (over white)"
    )


def test_many_classes_are_summed_up(tmp_path):
    for i in range(13):
        a_class(tmp_path / f"c{i}", 1 + i % 3)
    assert load(tmp_path).summary == "25 pictures of 13 classes (1 to 3 pictures each)"


def test_every_file_that_cannot_be_read_is_named(tmp_path):
    a_class(tmp_path / "a", 6)
    for i in range(6):
        (tmp_path / "a" / f"torn{i}.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(
        UsageError, match=r"6 of 12 pictures cannot be read: a/torn0.jpg: .*a/torn3.jpg.*; and 2 more"
    ) as e:
        load(tmp_path)
    assert "\n" not in str(e.value)


def test_a_class_without_pictures_is_refused(tmp_path):
    a_class(tmp_path / "a")
    (tmp_path / "b").mkdir()
    with pytest.raises(UsageError, match=r"no pictures in .*/b; allowed: some in every sub-folder"):
        load(tmp_path)


def test_a_long_thin_picture_is_refused_before_it_fills_the_memory(tmp_path):
    a_class(tmp_path / "a")
    Image.new("L", (1, 60000)).save(tmp_path / "a" / "thin.png")
    with pytest.raises(UsageError, match=r"a/thin.png: absurdly long: 1x60000"):
        Data(Config(name="folder", root=str(tmp_path), size=64), CPU)


def test_a_name_that_is_no_text_is_shown_by_what_stands_for_it(tmp_path):
    a_class(tmp_path / os.fsdecode(b"a\xff"))
    a_class(tmp_path / "b\x1b[31m")
    data = load(tmp_path)
    assert data.names == ("a\ufffd", "b\x1b[31m")
    assert data.summary.isprintable()
    data.summary.encode()


def test_links_to_folders_are_followed_once(tmp_path):
    a_class(tmp_path / "a")
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert load(tmp_path).counts == (4, 4)


def test_runs_of_earlier_versions_read_their_folders_as_they_did(tmp_path):
    """Classes, pixels, order and split equal those of torchvision's ImageFolder, which read them then."""
    from torchvision import datasets
    from torchvision.transforms import v2

    for name, n in (("10", 3), ("2", 4), (".hidden", 2)):
        a_class(tmp_path / name, n, (len(name) * 40, n, 7))
    Image.fromarray(RGBA).save(tmp_path / "2" / "alpha.png")
    Image.fromarray(NOISE[:, :40]).save(tmp_path / "2" / "noise.jpg")
    (tmp_path / "2" / "a.gif").write_bytes(b"")
    crop = v2.Compose([v2.Resize(8), v2.CenterCrop(8), v2.PILToTensor()])
    before = datasets.ImageFolder(str(tmp_path), transform=crop)
    pictures, labels = torch.stack([x for x, _ in before]), torch.tensor(before.targets)
    order = torch.randperm(len(before), generator=torch.Generator().manual_seed(0))
    now = load(tmp_path, reader="torchvision", layout="classes")
    assert torch.equal(torch.cat([now.test, now.train]), pictures[order])
    assert torch.equal(torch.cat([now.test_labels, now.train_labels]), labels[order])
    assert list(now.names) == before.classes
    assert "as torchvision does" in now.summary


def test_plain_pictures_are_read_as_ever(tmp_path):
    for name in ("a", "b"):
        a_class(tmp_path / name)
    Image.fromarray(NOISE[:, :40]).save(tmp_path / "b" / "noise.jpg")
    assert torch.equal(load(tmp_path).train, load(tmp_path, reader="torchvision").train)
