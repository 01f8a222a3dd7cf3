"""Makes the picture files that Python's reader and the app's must see alike.

    python android_demo/tools/make_test_pictures.py

writes app/src/jvmTest/resources/pictures: files of every kind that both can read, and
pictures.json with the pixels that `epnet_tf.runtime.images.read_image` gives for models
of several shapes, stretched or cropped, in base64.
"""

import base64
import json
import pathlib

import numpy as np
from PIL import Image

from epnet_tf.runtime.images import read_image

DEMO = pathlib.Path(__file__).resolve().parents[1]
PICTURES = DEMO / "app/src/jvmTest/resources/pictures"
HEIGHT, WIDTH = 16, 24
# The stored shape, turned, and another; whether pictures are cropped to it.
MODELS = [
    ((HEIGHT, WIDTH, 1), False),
    ((HEIGHT, WIDTH, 3), False),
    ((WIDTH, HEIGHT, 3), False),
    ((7, 10, 3), False),
    ((7, 10, 3), True),
]


def scene() -> np.ndarray:
    """No two corners and no two channels alike, and smooth: uint8 [16, 24, 3]."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    channels = [10 * x, 15 * y, 255 - 5 * x - 6 * y]
    return np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8)


def write_pictures(folder: pathlib.Path) -> None:
    """Writes the files."""
    colours = Image.fromarray(scene())
    gray = colours.convert("L")
    opacity = Image.fromarray(
        np.tile(np.arange(WIDTH, dtype=np.uint8) * 11, (HEIGHT, 1))
    )
    palette = colours.quantize(16, dither=Image.Dither.NONE)
    sixteen = np.asarray(gray).astype(np.uint16) * 256 + 77
    rgba = colours.copy()
    rgba.putalpha(opacity)
    for name, image, options in (
        ("colours.png", colours, {}),
        ("colours.jpg", colours, {"quality": 95}),
        ("gray.png", gray, {}),
        ("gray.jpg", gray, {"quality": 95}),
        ("gray-transparent.png", Image.merge("LA", (gray, opacity)), {}),
        ("transparent.png", rgba, {}),
        ("palette.png", palette, {}),
        ("palette.gif", palette, {}),
        ("palette-transparent.png", palette, {"transparency": 3}),
        ("16-bits.png", Image.fromarray(sixteen), {}),
        ("1-bit.png", gray.point(lambda value: 255 * (value > 120), "1"), {}),
        ("cmyk.jpg", colours.convert("CMYK"), {"quality": 95}),
        ("first-of-two.gif", palette, {"save_all": True, "append_images": [gray]}),
    ):
        image.save(folder / name, **options)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x112] = orientation
        colours.save(folder / f"exif-{orientation}.jpg", quality=95, exif=exif)


def main() -> None:
    """Writes the files, and what Python sees in them."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    write_pictures(PICTURES)
    seen = [
        {
            "file": path.name,
            "shape": shape,
            "crop": crop,
            "pixels": base64.b64encode(
                read_image(path, shape, crop).tobytes()
            ).decode(),
        }
        for path in sorted(PICTURES.iterdir())
        if path.suffix != ".json"
        for shape, crop in MODELS
    ]
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in seen)
    (PICTURES / "pictures.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
