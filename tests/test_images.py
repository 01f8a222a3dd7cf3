"""Image files of every kind: what viewers show, or one sentence that names the file."""

import base64
import io
import json
import pathlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from epnet_tf import cli
from epnet_tf.runtime.images import read_image

ROOT = pathlib.Path(__file__).parents[1]
PICTURES = ROOT / "android_demo/app/src/jvmTest/resources/pictures"
RAMP = np.arange(0, 256, 17, np.uint8).reshape(4, 4)
WHITE, GRAY, BLACK = 255, 128, 0


def png(values: np.ndarray, depth: int, colour: int, *chunks: bytes, side=0) -> bytes:
    """A PNG file of rows of big-endian values, written by hand; `side` is a lie."""

    def chunk(content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content) - 4)
            + content
            + struct.pack(">I", zlib.crc32(content))
        )

    height, width = (side, side) if side else values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    parts = [b"IHDR" + header, *chunks, b"IDAT" + zlib.compress(rows), b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(chunk, parts))


@pytest.fixture
def read(tmp_path):
    """Reads an image, or a file's bytes, through a file of some ending."""

    def read(content, channels=1, ending="png", shape=None, **options):
        path = tmp_path / f"picture.{ending}"
        if isinstance(content, bytes):
            path.write_bytes(content)
            with Image.open(path) as file:
                size = file.size
        else:
            content.save(path, **options)
            size = content.size
        return read_image(path, shape or (*size[::-1], channels))

    return read


def pixels(image: np.ndarray) -> list:
    return image.tolist()


def test_what_a_model_takes_stays_as_it_is(read):
    rgba = np.random.default_rng(0).integers(0, 256, (4, 5, 4), np.uint8)
    for channels in (3, 4):
        image = np.ascontiguousarray(rgba[..., :channels])
        np.testing.assert_array_equal(read(Image.fromarray(image), channels), image)
    np.testing.assert_array_equal(read(Image.fromarray(RAMP))[..., 0], RAMP)


def test_grayscale_and_colours_for_each_other(read):
    gray = read(Image.fromarray(RAMP), 3)
    np.testing.assert_array_equal(gray, np.stack([RAMP] * 3, axis=-1))
    red_green_blue = Image.fromarray(255 * np.eye(3, dtype=np.uint8)[np.newaxis])
    # 0.299, 0.587 and 0.114 of 255.
    assert pixels(read(red_green_blue)[0, :, 0]) == [76, 150, 29]


def test_a_model_of_four_channels(read):
    opaque = read(Image.fromarray(RAMP), 4)
    assert (opaque[..., 3] == 255).all()
    np.testing.assert_array_equal(opaque[..., 0], RAMP)
    gray_alpha = Image.merge("LA", [Image.fromarray(RAMP), Image.fromarray(255 - RAMP)])
    assert pixels(read(gray_alpha, 4)[0, 1]) == [17, 17, 17, 238]


@pytest.mark.parametrize("channels", [2, 5])
def test_a_model_of_other_channels_is_told_so(tmp_path, channels):
    with pytest.raises(
        ValueError, match=rf"{channels} channels, and the file .*x\.png"
    ):
        read_image(tmp_path / "x.png", (4, 4, channels))


# Where the picture's top left corner is stored, for each value of the EXIF tag.
CORNERS = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0)}
CORNERS |= {5: (0, 0), 6: (-1, 0), 7: (-1, -1), 8: (0, -1)}


@pytest.mark.parametrize("ending", ["png", "tiff", "jpg"])
@pytest.mark.parametrize("orientation", CORNERS)
def test_exif_orientation(read, orientation, ending):
    # The standard says where the stored row 0 and column 0 are in the picture.
    stored = np.full((16, 24), BLACK, np.uint8)
    row, column = CORNERS[orientation]
    stored[slice(0, 8) if row == 0 else slice(8, 16)] += GRAY - 1
    stored[:, slice(0, 8) if column == 0 else slice(16, 24)] += GRAY
    exif = Image.Exif()
    exif[0x112] = orientation
    found = read(
        Image.fromarray(stored),
        shape=(24, 16, 1) if orientation > 4 else (16, 24, 1),
        ending=ending,
        exif=exif,
    )
    tolerance = 3 if ending == "jpg" else 0
    # Brightest at the top left, black at the bottom right.
    assert abs(int(found[0, 0, 0]) - 255) <= tolerance
    assert abs(int(found[-1, -1, 0]) - 0) <= tolerance
    top_right, bottom_left = int(found[0, -1, 0]), int(found[-1, 0, 0])
    upright = (GRAY - 1, GRAY) if orientation <= 4 else (GRAY, GRAY - 1)
    assert np.allclose((top_right, bottom_left), upright, atol=tolerance)


def test_an_orientation_that_does_not_exist_turns_nothing(read):
    exif = Image.Exif()
    exif[0x112] = 77
    found = read(Image.fromarray(RAMP), exif=exif)
    np.testing.assert_array_equal(found[..., 0], RAMP)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_16_bits_of_gray(read, channels, order, ending):
    image = Image.fromarray((RAMP * np.uint16(257)).astype(order))
    np.testing.assert_array_equal(read(image, channels, ending)[..., 0], RAMP)


def test_16_bits_in_other_ways(read):
    upper = (RAMP * np.uint16(256)).astype(">u2")
    portable = read(b"P5 4 4 65535\n" + upper.tobytes())
    np.testing.assert_array_equal(portable[..., 0], RAMP)
    both = np.stack([upper, 65535 - upper, upper], axis=-1).astype(">u2")
    found = read(png(both, 16, 2), 3)
    np.testing.assert_array_equal(found[..., 0], RAMP)
    np.testing.assert_array_equal(found[..., 1], 255 - RAMP)
    # One value, not all with its upper half, is transparent.
    values = np.array([[0x1234, 0x1235]], ">u2")
    see_through = png(values, 16, 0, b"tRNS" + struct.pack(">H", 0x1234))
    assert pixels(read(see_through)[0, :, 0]) == [WHITE, 0x12]
    assert pixels(read(see_through, 4)[0, :, 3]) == [0, 255]
    gray_alpha = png(np.array([[[0, 0], [0, 65535]]], ">u2"), 16, 4)
    assert pixels(read(gray_alpha)[0, :, 0]) == [WHITE, BLACK]


def test_1_bit(read):
    image = Image.fromarray(RAMP > 100)
    assert image.mode == "1"
    for channels in (1, 3):
        found = read(image, channels)
        np.testing.assert_array_equal(found[..., 0], 255 * (RAMP > 100))


def test_transparent_pixels_lie_over_white(read):
    # Black, at none, half and all of its opacity.
    image = np.zeros((1, 3, 4), np.uint8)
    image[0, :, 3] = 0, 128, 255
    for channels in (1, 3):
        found = read(Image.fromarray(image), channels)
        assert pixels(found[0, :, 0]) == [255, 127, 0]
    # The colour that a transparent pixel has does not show.
    image[..., 0] = 200
    assert pixels(read(Image.fromarray(image), 3)[0, 0]) == [255, 255, 255]


def test_transparent_gray(read):
    alpha = Image.fromarray(np.array([[0, 51, 255]], np.uint8))
    gray = Image.fromarray(np.array([[9, 5, 9]], np.uint8))
    # 51 / 255 of 5, and the rest of 255.
    assert pixels(read(Image.merge("LA", [gray, alpha]))[0, :, 0]) == [255, 205, 9]
    one_value = png(np.array([[3, 5]], np.uint8), 8, 0, b"tRNS\0\5")
    assert pixels(read(one_value)[0, :, 0]) == [3, WHITE]


@pytest.mark.parametrize("ending", ["png", "gif"])
def test_palette(read, ending):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 0, 255, 10, 20, 30])
    assert pixels(read(image, 3, ending)[0]) == [[255, 0, 0], [0, 0, 255], [10, 20, 30]]
    assert pixels(read(image, 1, ending)[0, :, 0]) == [76, 29, 18]
    found = read(image, 3, ending, transparency=1)
    assert pixels(found[0]) == [[255, 0, 0], [255, 255, 255], [10, 20, 30]]


def test_cmyk(read):
    image = Image.fromarray(np.zeros((16, 16, 4), np.uint8), "CMYK")
    image.paste((0, 255, 255, 0), (0, 0, 8, 16))  # Red, and white.
    for ending in ("jpg", "tiff"):
        found = read(image, 3, ending).astype(int)
        np.testing.assert_allclose(found[8, 2], [255, 0, 0], atol=4)
        np.testing.assert_allclose(found[8, 13], [255, 255, 255], atol=4)
        assert abs(read(image, 1, ending)[8, 2, 0] - 76.0) <= 4


@pytest.mark.parametrize("ending", ["gif", "png", "webp"])
def test_of_an_animation_the_first_frame(read, ending):
    frames = [Image.new("L", (4, 4), value) for value in (40, 200)]
    found = read(
        frames[0], 3, ending, save_all=True, append_images=frames[1:], lossless=True
    )
    assert (found == 40).all()


def test_another_size_is_scaled_bilinearly_with_antialiasing(read):
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (8, 8)))
    narrow = read(stripes, shape=(4, 4, 1))
    # Away from the edges all is gray, where sampling alone would see black or white.
    assert np.isin(narrow[:, 1:-1], [127, 128]).all()
    wide = read(Image.fromarray(np.array([[0, 200]], np.uint8)), shape=(1, 4, 1))
    assert pixels(wide[0, :, 0]) == [0, 50, 150, 200]
    # Averaged over what shows, not over hidden colours.
    half = np.array([[[0, 0, 0, 0], [0, 0, 0, 255]]], np.uint8)
    assert pixels(read(Image.fromarray(half), shape=(1, 1, 3))) == [[[128, 128, 128]]]


def good_png() -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()


def good_jpeg() -> bytes:
    stream = io.BytesIO()
    with Image.open(io.BytesIO(good_png())) as image:
        image.save(stream, "JPEG")
    return stream.getvalue()


BROKEN = {
    "empty.png": b"",
    "text.png": b"no image",
    "cut.png": good_png()[:4000],
    "cut.jpg": good_jpeg()[:1500],
    "head.png": good_png()[:20],
    "huge.png": png(np.zeros((1, 1), np.uint8), 8, 0, side=20_000),
    "float.tiff": Image.fromarray(np.ones((4, 4), np.float32)),
    "long.tiff": Image.fromarray(np.ones((4, 4), np.int32)),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_is_no_image_is_one_sentence_that_names_it(tmp_path, name, channels):
    path = tmp_path / name
    if isinstance(BROKEN[name], bytes):
        path.write_bytes(BROKEN[name])
    else:
        BROKEN[name].save(path)
    with pytest.raises(ValueError) as error:
        read_image(path, (4, 4, channels))
    message = str(error.value)
    assert message.startswith(f"Expected an image file. Received: {path}; ")
    assert "\n" not in message and message.endswith(".")


def test_every_byte_may_be_wrong(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "flipped"
    for content in (good_png(), good_jpeg()):
        for _ in range(150):
            spoiled = bytearray(content)
            for place in rng.integers(0, min(600, len(content)), 3):
                spoiled[place] ^= rng.integers(1, 256)
            path.write_bytes(spoiled)
            try:
                assert read_image(path, (8, 8, 3)).shape == (8, 8, 3)
            except ValueError as error:
                assert str(path) in str(error)


def test_lack_of_memory_is_no_fault_of_the_file(tmp_path, monkeypatch):
    def full(*_):
        raise MemoryError

    path = tmp_path / "good.png"
    path.write_bytes(good_png())
    monkeypatch.setattr(ImageOps, "exif_transpose", full)
    with pytest.raises(MemoryError) as error:
        read_image(path, (4, 4, 1))
    assert cli.sentence(error.value).startswith("Out of memory. ")
    assert cli.sentence(error.value).endswith(f" It ended with {path}.")


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        read_image(tmp_path / "no.png", (4, 4, 1))
    assert error.value.filename == str(tmp_path / "no.png")
    with pytest.raises(IsADirectoryError):
        read_image(tmp_path, (4, 4, 1))


def test_the_app_s_tests_expect_what_is_read():
    seen = json.loads((PICTURES / "pictures.json").read_text())
    assert len({entry["file"] for entry in seen}) == len(list(PICTURES.iterdir())) - 1
    for entry in seen:
        shape, crop = tuple(entry["shape"]), entry["crop"]
        found = read_image(PICTURES / entry["file"], shape, crop)
        expected = np.frombuffer(base64.b64decode(entry["pixels"]), np.uint8)
        # Decoders of JPEG may round in other ways.
        off = 1 if entry["file"].endswith("jpg") else 0
        assert abs(found.ravel().astype(int) - expected).max() <= off
