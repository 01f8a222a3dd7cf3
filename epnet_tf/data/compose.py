"""Images of known difficulty, composed from small ones: Max-Min and Multi-scale.

Pure functions of arrays and a random generator (paper, section 5.1). The caller
splits the source images first, so that no digit and no garment is in two of
training, validation and test.
"""

import itertools

import numpy as np
from PIL import Image

MAX_MIN_LEVELS = ("easy", "medium", "hard")
MULTI_SCALE_TYPES = ("type 1", "type 2", "type 3", "type 4")

_DIGITS_PER_LEVEL = (1, 2, 4)
_LEVEL_RATIO = (2, 1, 1)
_TYPE_RATIO = (1, 1, 1, 1)
_SMALL, _LARGE = 0.6, 1.5


def compose_max_min(
    digits: np.ndarray,
    digit_labels: np.ndarray,
    count: int,
    rng: np.random.Generator,
    canvas: int = 50,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compose Max-Min images: one, two or four digits on a black canvas.

    An easy image shows one digit and has its label; a medium one shows two, a hard
    one four, and the label is the largest less the smallest. Easy, medium and hard
    come 2:1:1, in random order. Digits are cropped to their ink and placed uniformly;
    an image's positions are redrawn until no two boxes overlap, so that each label
    can be read.

    Each level goes through the source digits in a random order, and starts over in a
    new one when they are used up: no digit is used more than once more often than
    another within a level.

    Args:
        digits: uint8 `[n, h, w]`, source digits on black (0).
        digit_labels: int `[n]`, their values, 0 to 9.
        count: number of images to compose.
        rng: `np.random.Generator`; it alone decides what is composed.
        canvas: height and width of the images in pixels; at least twice the larger
            side of any cropped digit, so that four always fit.

    Returns:
        Tuple of images (uint8 `[count, canvas, canvas]`), labels (int32 `[count]`)
        and difficulty (int8 `[count]`, index into `MAX_MIN_LEVELS`).

    Raises:
        ValueError: the canvas is too small for these digits.
    """
    corners, sizes = _ink_boxes(digits)
    if 2 * sizes.max() > canvas:
        raise ValueError(
            "The canvas must be at least twice as large as the largest digit "
            f"({sizes.max()} pixels). Received: canvas={canvas}"
        )
    images = np.zeros((count, canvas, canvas), np.uint8)
    labels = np.empty(count, np.int32)
    difficulty = _shuffled_levels(count, _LEVEL_RATIO, rng)
    for level, per_image in enumerate(_DIGITS_PER_LEVEL):
        members = np.flatnonzero(difficulty == level)
        used = _cycle(len(digits), len(members) * per_image, rng)
        used = used.reshape(-1, per_image)
        values = digit_labels[used].astype(np.int32)
        spread = values.max(axis=1) - values.min(axis=1)
        labels[members] = values[:, 0] if per_image == 1 else spread
        positions = _place_apart(sizes[used], canvas, rng)
        for image, sources, places in zip(members, used, positions, strict=True):
            for source, (y, x) in zip(sources, places, strict=True):
                (top, left), (h, w) = corners[source], sizes[source]
                ink = digits[source, top : top + h, left : left + w]
                images[image, y : y + h, x : x + w] = ink
    return images, labels, difficulty


def compose_multi_scale(
    garments: np.ndarray,
    garment_labels: np.ndarray,
    count: int,
    rng: np.random.Generator,
    canvas: int = 50,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compose Multi-scale images: one or two rescaled garments on a black canvas.

    The four types come in equal parts, in random order: (1) one garment at 0.6 of its
    size, anywhere; (2) one at 1.5, centred; (3) one at 1.5, anywhere; (4) one at 1.5
    and, drawn over it, another at 0.6, both anywhere, with the label of the small
    one. "Over it" means that the small garment's ink (its pixels above 0) replaces
    what lies under it, so that all of the garment whose label counts is visible.

    Source garments are used in turn, as in `compose_max_min`.

    Args:
        garments: uint8 `[n, h, w]`, square source images on black (0).
        garment_labels: int `[n]`, their classes.
        count: number of images to compose.
        rng: `np.random.Generator`; it alone decides what is composed.
        canvas: height and width of the images in pixels.

    Returns:
        Tuple of images (uint8 `[count, canvas, canvas]`), labels (int32 `[count]`)
        and difficulty (int8 `[count]`, index into `MULTI_SCALE_TYPES`).

    Raises:
        ValueError: the canvas is too small for these garments.
    """
    largest = round(_LARGE * garments.shape[1])
    if largest > canvas:
        raise ValueError(
            f"The canvas must hold a garment at {_LARGE} times its size ({largest} "
            f"pixels). Received: canvas={canvas}"
        )
    images = np.zeros((count, canvas, canvas), np.uint8)
    labels = np.empty(count, np.int32)
    difficulty = _shuffled_levels(count, _TYPE_RATIO, rng)
    for kind, scales in enumerate([(_SMALL,), (_LARGE,), (_LARGE,), (_LARGE, _SMALL)]):
        members = np.flatnonzero(difficulty == kind)
        used = _cycle(len(garments), len(members) * len(scales), rng)
        used = used.reshape(-1, len(scales))
        labels[members] = garment_labels[used[:, -1]]
        for layer, scale in enumerate(scales):
            side = round(scale * garments.shape[1])
            positions = rng.integers(0, canvas - side + 1, (len(members), 2))
            if MULTI_SCALE_TYPES[kind] == "type 2":
                positions[:] = (canvas - side) // 2
            for image, source, (y, x) in zip(
                members, used[:, layer], positions, strict=True
            ):
                garment = _resize(garments[source], side)
                under = images[image, y : y + side, x : x + side]
                np.copyto(under, garment, where=garment > 0)
    return images, labels, difficulty


def _shuffled_levels(count, ratio, rng):
    """Level of each image, int8 `[count]`: in this ratio, as near as integers allow."""
    bounds = np.cumsum((0, *ratio)) * count / sum(ratio)
    counts = np.diff(np.ceil(bounds).astype(int))
    return rng.permutation(np.repeat(np.arange(len(ratio), dtype=np.int8), counts))


def _cycle(sources, count, rng):
    """`count` source indices: one random order of all sources after the other."""
    rounds = -(-count // sources)
    orders = [rng.permutation(sources) for _ in range(rounds)]
    return np.concatenate([np.empty(0, int), *orders])[:count]


def _ink_boxes(images):
    """Corner (top, left) and size (height, width) of each image's ink, int `[n, 2]`."""
    ink = images > 0
    corners, ends = [], []
    for axis in (2, 1):
        filled = ink.any(axis=axis)
        corners.append(filled.argmax(axis=1))
        ends.append(filled.shape[1] - filled[:, ::-1].argmax(axis=1))
    corners, ends = np.stack(corners, axis=1), np.stack(ends, axis=1)
    return corners, ends - corners


def _place_apart(sizes, canvas, rng):
    """Uniform places for boxes of these sizes, given that no two of an image overlap.

    Args:
        sizes: int `[n, boxes, 2]`, heights and widths.

    Returns:
        Int `[n, boxes, 2]`, the boxes' top left corners.
    """
    positions = np.empty_like(sizes)
    pending = np.arange(len(sizes))
    while pending.size:
        # Redrawing the whole image, not the last box alone, keeps the draw uniform.
        drawn = rng.integers(0, canvas - sizes[pending] + 1)
        positions[pending] = drawn
        pending = pending[_any_overlap(drawn, sizes[pending])]
    return positions


def _any_overlap(positions, sizes):
    """Whether any two boxes of an image share a pixel, bool `[n]`."""
    ends = positions + sizes
    overlap = np.zeros(len(positions), bool)
    for a, b in itertools.combinations(range(positions.shape[1]), 2):
        first = np.maximum(positions[:, a], positions[:, b])
        last = np.minimum(ends[:, a], ends[:, b])
        overlap |= (first < last).all(axis=1)
    return overlap


def _resize(image, side):
    """The whole image at `side` x `side` pixels (bilinear, antialiased, uint8)."""
    scaled = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(scaled)
