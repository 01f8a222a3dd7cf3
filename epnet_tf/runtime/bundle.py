"""A bundle: a folder with one model, in segments or in one file, and `epnet.json`."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from epnet_tf.runtime import cost_table, typed_json, units
from epnet_tf.runtime.metrics import Metrics

MANIFEST = "epnet.json"
CHECKSUM = "epnet.json.sha256"
FORMAT = "epnet-bundle"
VERSION = 1
# What a bundle may hold: segments, a model that stops by itself, or both.
CONTENTS = ("segments", "one_file", "both")


@dataclasses.dataclass(frozen=True)
class Quantization:
    """How real values became integers: value = scale · (integer - zero_point)."""

    scale: float
    zero_point: int


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """The image input.

    Attributes:
        name: `image`.
        shape: [1, height, width, channels].
        dtype: NumPy's name of the first segment's input type.
        quantization: How raw pixel values become that type; None leaves them.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: Quantization | None

    def check(self, images) -> np.ndarray:
        """Checks images, batch first, that are to be classified.

        Args:
            images: uint8 or floats within 0 to 255, [n, height, width, channels].

        Returns:
            The images as an array.

        Raises:
            ValueError: If shape, type or values are others.
        """
        images = np.asarray(images)
        wanted = f"images of shape [n, {', '.join(map(str, self.shape[1:]))}]"
        if images.ndim != 4 or images.shape[1:] != self.shape[1:]:
            raise ValueError(
                f"Expected {wanted}. Received: shape {list(images.shape)}."
            )
        if images.dtype == np.uint8 or not images.size:
            return images
        if not np.issubdtype(images.dtype, np.floating):
            raise ValueError(
                f"Expected {wanted}, uint8 or float. Received: {images.dtype}."
            )
        low, high = images.min(), images.max()
        # NaN compares as False.
        if not (low >= 0 and high <= 255):
            found = "NaN" if np.isnan(low) else f"values from {low:g} to {high:g}"
            raise ValueError(
                f"Expected {wanted} with raw pixel values 0 to 255. Received: {found}."
            )
        return images


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the image that the model was trained on.

    The picture is turned as its EXIF orientation says; then cropped, then resized. What
    a model computes of the values itself, such as a scaling, is within its segments.

    Attributes:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        resize: The method, `bilinear`.
        antialias: Whether the method's support grows as the picture shrinks.
        crop: `none`, the picture is stretched; or `center`, the largest window about
            the centre that has the image's proportions is taken.
        range: Lowest and highest value of a pixel.
        channels: Their order: `RGB`, `RGBA`, or `L` for grayscale.
    """

    height: int
    width: int
    resize: str
    antialias: bool
    crop: str
    range: tuple[int, ...]
    channels: str


# The order of as many channels.
_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}


def preprocessing_for(shape: tuple[int, ...], crop: bool) -> Preprocessing | None:
    """What `epnet_tf.runtime.images.read_image` does.

    Args:
        shape: Height, width and channels of the image.
        crop: Whether pictures are cropped to the image's proportions.

    Returns:
        The `Preprocessing`; None for a model of other channels than pictures have.
    """
    height, width, channels = shape
    if channels not in _CHANNELS:
        return None
    how, order = "center" if crop else "none", _CHANNELS[channels]
    return Preprocessing(height, width, "bilinear", True, how, (0, 255), order)


@dataclasses.dataclass(frozen=True)
class Policy:
    """When to stop: where an exit's `stop_NN` exceeds `threshold`.

    Attributes:
        type: `controller`, whose stop logit it is; or `threshold`: there it is the
            largest softmax probability less the exit's `confidence`.
        threshold: Of `stop_NN`.
        beta: Cost sensitivity that the controllers were trained for, or thresholds
            tuned for, points per unit of cost.
        beta_range: Instead of `beta`: lowest and highest value of the input `beta`;
            only of controllers.
        confidence: Of type `threshold`: a probability for each exit but the last.
    """

    type: str
    threshold: float
    beta: float | None = None
    beta_range: tuple[float, float] | None = None
    confidence: tuple[float, ...] | None = None


@dataclasses.dataclass(frozen=True)
class SegmentEntry:
    """One segment's file, and what it adds.

    Attributes:
        file: Name of the file in the bundle.
        sha256: Of its contents, in hexadecimal.
        bytes: Its size.
        exit: The exit that it ends in, counted from 1.
        layer: The Keras layer that the exit is placed behind.
        inputs: Names of its inputs.
        outputs: Names of its outputs.
        macs: Multiply-adds of this segment.
        cumulative_macs: Multiply-adds of this and all earlier ones.
    """

    file: str
    sha256: str
    bytes: int
    exit: int
    layer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    macs: int
    cumulative_macs: int


@dataclasses.dataclass(frozen=True)
class ExitEntry:
    """One exit of the model that stops by itself.

    Attributes:
        layer: The Keras layer that the exit is placed behind.
        cumulative_macs: Multiply-adds of all that runs until it has answered.
    """

    layer: str
    cumulative_macs: int


@dataclasses.dataclass(frozen=True)
class ModelEntry:
    """The model in one file that stops by itself.

    Attributes:
        file: Name of the file in the bundle.
        sha256: Of its contents, in hexadecimal.
        bytes: Its size.
        exits: In the order in which they run.
    """

    file: str
    sha256: str
    bytes: int
    exits: tuple[ExitEntry, ...]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What `epnet.json` says.

    Attributes:
        format: `epnet-bundle`.
        version: Of the format.
        name: Of the model.
        input: The image input.
        labels: Class names.
        quantization: The quantization mode.
        policy: When to stop.
        full_macs: Multiply-adds of the plain network, without exits.
        cost_unit: The unit of `costs`, in which β is points per unit; None for MACs.
        segments: In the order in which they run; none if there is only `model`.
        metrics: Measured while converting; None if there was nothing to measure on.
        model: The same model in one file, if it is there.
        preprocessing: How pictures become images; None in bundles of before, whose
            pictures are stretched.
        costs: What leaving through each exit costs in `cost_unit`; None for MACs.
        full_cost: What the plain network costs in `cost_unit`; None for MACs.
    """

    format: str
    version: int
    name: str
    input: InputSpec
    labels: tuple[str, ...]
    quantization: str
    policy: Policy
    full_macs: int
    segments: tuple[SegmentEntry, ...]
    metrics: Metrics | None
    model: ModelEntry | None = None
    preprocessing: Preprocessing | None = None
    cost_unit: str | None = None
    costs: tuple[float, ...] | None = None
    full_cost: float | None = None

    @property
    def exits(self) -> Sequence[SegmentEntry | ExitEntry]:
        """The exits, in order, each with its `layer` and `cumulative_macs`."""
        return self.segments or (self.model.exits if self.model else ())

    @property
    def crops(self) -> bool:
        """Whether pictures are cropped to the image's proportions, or stretched."""
        return self.preprocessing is not None and self.preprocessing.crop == "center"

    @property
    def cumulative_macs(self) -> np.ndarray:
        """int64 [exits], multiply-adds of leaving through each exit."""
        return np.array([exit.cumulative_macs for exit in self.exits], np.int64)

    @property
    def paid_unit(self) -> str:
        """The unit of what policies pay: `macs`, or `cost_unit`."""
        return self.cost_unit or units.MACS

    @property
    def paid(self) -> np.ndarray:
        """[exits], what leaving through each exit costs, in `paid_unit`."""
        return self.cumulative_macs if self.costs is None else np.array(self.costs)

    @property
    def paid_in_full(self) -> float:
        """What the plain network costs, in `paid_unit`."""
        return self.full_macs if self.full_cost is None else self.full_cost


def write_manifest(manifest: Manifest, folder: str | os.PathLike) -> None:
    """Writes `epnet.json` into a folder, and its checksum beside it."""
    text = manifest_text(manifest)
    (pathlib.Path(folder) / MANIFEST).write_text(text, encoding="utf-8")
    write_checksum(folder)


def manifest_text(manifest: Manifest) -> str:
    """What stands in `epnet.json`."""
    text = json.dumps(typed_json.encode(manifest), indent=2, ensure_ascii=False)
    return text + "\n"


def write_checksum(folder: str | os.PathLike) -> None:
    """Writes the checksum of the `epnet.json` in a folder, as `sha256sum` does."""
    content = (pathlib.Path(folder) / MANIFEST).read_bytes()
    (pathlib.Path(folder) / CHECKSUM).write_text(_checksum(content), newline="\n")


def read_manifest(folder: str | os.PathLike) -> Manifest:
    """Reads a bundle's `epnet.json`.

    Args:
        folder: The bundle.

    Returns:
        The `Manifest`.

    Raises:
        ValueError: If this is no bundle, one of another format or version, or one
            whose `epnet.json.sha256`, where there is one, is of another `epnet.json`.
    """
    path = pathlib.Path(folder) / MANIFEST
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f"Expected a bundle, a folder with {MANIFEST}. Received: {folder}"
        ) from None
    _verify(text, path.with_name(CHECKSUM))
    return parse_manifest(text, path)


def parse_manifest(text: bytes, path: str | os.PathLike) -> Manifest:
    """Reads the text of an `epnet.json`.

    Args:
        text: The text, in UTF-8.
        path: Where it is from, for messages.

    Returns:
        The `Manifest`.

    Raises:
        ValueError: If it is of another format or version, or cannot be used.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} does not describe a bundle of format '{FORMAT}'.")
    if content.get("version") != VERSION:
        raise ValueError(
            f"Expected a bundle of version {VERSION}. "
            f"Received: version {content.get('version')} in {path}"
        )
    manifest = typed_json.decode(Manifest, content, MANIFEST)
    _check(manifest, path)
    return manifest


def read_tflite(folder: str | os.PathLike, entry: SegmentEntry | ModelEntry) -> bytes:
    """Reads a .tflite of a bundle and verifies that it is the one that was written.

    Args:
        folder: The bundle.
        entry: Its entry in the manifest.

    Returns:
        The .tflite model.

    Raises:
        ValueError: If the file is missing, or its contents are others.
    """
    path = pathlib.Path(folder) / entry.file
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"The bundle's file {path} is missing.") from None
    if len(content) != entry.bytes:
        raise ValueError(
            f"The bundle's file {path} is truncated or altered: it has "
            f"{len(content)} bytes instead of {entry.bytes}."
        )
    check_sha256(content, entry, path)
    return content


def without_segments(manifest: Manifest) -> ValueError:
    """The error of a bundle whose exits cannot be timed one by one."""
    return ValueError(
        "Expected a bundle with segments, which are timed one by one. "
        f"Received: '{manifest.name}', one file that stops by itself."
    )


def check_sha256(
    content: bytes, entry: SegmentEntry | ModelEntry, path: str | os.PathLike
) -> None:
    """Checks that a model is the one that a manifest has an entry for.

    Raises:
        ValueError: If it is not; the message names `path`.
    """
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise ValueError(
            f"The file {path} is altered: its sha256 is not the one in {MANIFEST}."
        )


def _checksum(manifest: bytes) -> str:
    """The line of `sha256sum` for the manifest."""
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n"


def _verify(manifest: bytes, checksum: pathlib.Path) -> None:
    """Compares the manifest with its checksum; bundles of before have none."""
    try:
        expected = checksum.read_bytes()
    except FileNotFoundError:
        return
    if expected != _checksum(manifest).encode():
        raise ValueError(
            f"The bundle's {checksum.with_name(MANIFEST)} is altered: its sha256 is "
            f"not the one in {CHECKSUM}."
        )


def _fault_of_costs(manifest: Manifest) -> str | None:
    """What is wrong with costs in another unit than MACs; None if nothing is."""
    costs, full, unit = manifest.costs, manifest.full_cost, manifest.paid_unit
    if unit == units.MACS:
        return None if (costs, full) == (None, None) else "their cost_unit is missing"
    if costs is None or full is None:
        return f"costs or full_cost are missing beside cost_unit '{unit}'"
    return cost_table.fault_of(unit, costs, full, len(manifest.exits))


def _check(manifest: Manifest, path: str | os.PathLike) -> None:
    """Refuses what the types alone let pass, and what cannot be run yet."""
    problem = None
    files = [entry.file for entry in manifest.segments]
    files += [manifest.model.file] if manifest.model else []
    if not manifest.exits:
        problem = "it lists no segments and no exits"
    elif not manifest.labels:
        problem = "it lists no labels"
    elif fault := _fault_of_segments(manifest.segments):
        problem = fault
    elif any(pathlib.PurePath(file).name != file for file in files):
        problem = "a model's file is outside the bundle"
    elif policy_problem := _policy_problem(manifest.policy, len(manifest.exits)):
        problem = policy_problem
    elif fault := _fault_of_costs(manifest):
        problem = f"its costs are not as they should be: {fault}"
    elif manifest.input.quantization or manifest.input.dtype not in (
        "float32",
        "uint8",
    ):
        problem = f"its input is {manifest.input.dtype}, not float32 or uint8"
    elif len(manifest.input.shape) != 4:
        problem = f"its input has shape {list(manifest.input.shape)}"
    elif manifest.preprocessing not in (
        None,
        preprocessing_for(manifest.input.shape[1:], manifest.crops),
    ):
        problem = f"its pictures are to be read as {manifest.preprocessing}"
    if problem:
        raise ValueError(f"{path} cannot be used: {problem}.")


def _fault_of_segments(segments: Sequence[SegmentEntry]) -> str | None:
    """What is wrong with exits and multiply-adds; None if nothing is."""
    exit_number = macs = 0
    for entry in segments:
        macs += entry.macs
        if entry.exit <= exit_number:
            return f"{entry.file} has exit {entry.exit} after exit {exit_number}"
        if entry.cumulative_macs != macs:
            return (
                f"{entry.file} has cumulative_macs {entry.cumulative_macs}, where "
                f"those of the segments add up to {macs}"
            )
        exit_number = entry.exit
    return None


def _policy_problem(policy: Policy, num_exits: int) -> str | None:
    """What is wrong with a policy, if anything is."""
    if policy.type not in ("controller", "threshold"):
        return f"its policy is of unknown type '{policy.type}'"
    if (policy.beta is None) == (policy.beta_range is None):
        return "its policy has not exactly one of beta and beta_range"
    if policy.beta_range and not 0 < policy.beta_range[0] <= policy.beta_range[1]:
        return f"its beta_range is no range above 0: {list(policy.beta_range)}"
    if policy.type == "controller":
        is_right = policy.confidence is None
        return None if is_right else "its policy has both controllers and confidences"
    if policy.beta_range:
        return "its policy has thresholds for a range of beta"
    found = policy.confidence or ()
    # NaN compares as False.
    if len(found) != num_exits - 1 or not all(0 <= c <= 1 for c in found):
        return (
            f"its policy has not {num_exits - 1} confidences from 0 to 1, one for each "
            f"exit but the last: {list(found)}"
        )
    return None
