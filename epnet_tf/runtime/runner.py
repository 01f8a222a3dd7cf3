"""Runs a bundle: one image at a time, segment by segment, until an exit says stop."""

import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from epnet_tf.runtime import bundle
from epnet_tf.runtime.litert import LiteRTModel
from epnet_tf.runtime.prediction import Prediction, check_beta, from_logits


class SegmentRunner:
    """Classifies images with the segments of a bundle; it really stops.

    A segment is opened when the first image gets to it. An image that stops at exit 3
    runs segments 1 to 3, and nothing else.

    Usage:

    ```python
    runner = epnet_tf.SegmentRunner("runs/demo/bundle")
    label, exit, macs, probabilities = runner.predict(images)
    ```

    Args:
        bundle_dir: The bundle that `epnet_tf.convert` has written.
        num_threads: Threads that a segment may use.

    Attributes:
        manifest: What `epnet.json` says.
        threshold: An exit stops where its stop logit is greater.

    Raises:
        ValueError: If this is no bundle, or a segment is missing, truncated or
            altered.
    """

    def __init__(self, bundle_dir: str | os.PathLike, num_threads: int = 1):
        self.manifest = bundle.read_manifest(bundle_dir)
        self.threshold = self.manifest.policy.threshold
        self._bundle_dir = bundle_dir
        self._num_threads = num_threads
        for entry in self.manifest.segments:
            bundle.read_segment(bundle_dir, entry)
        spec = self.manifest.input
        self._segments: list[_Segment] = []
        # What segments read, by name: the inputs, and what earlier segments made.
        self._tensors = {
            spec.name: np.zeros(spec.shape, spec.dtype),
            "beta": np.zeros([1, 1], np.float32),
        }

    @property
    def opened(self) -> int:
        """The number of segments opened so far."""
        return len(self._segments)

    def predict(self, images, beta: float | None = None) -> Prediction:
        """Classifies images, each until its exit.

        Args:
            images: uint8 or float [n, height, width, channels], raw values 0 to 255.
            beta: Cost sensitivity, percentage points per MAC; for bundles whose
                controllers take it, and only for them.

        Returns:
            A `Prediction`.

        Raises:
            ValueError: If the images are not as said above, β is missing, superfluous
                or out of range, or a segment has been altered meanwhile.
        """
        images = self.manifest.input.check(images)
        self._set_beta(beta)
        exits = np.zeros(len(images), np.int64)
        logits = np.zeros([len(images), len(self.manifest.labels)], np.float32)
        for i, image in enumerate(images):
            exits[i], logits[i] = self.run_image(image)
        return from_logits(logits, exits, self.manifest.cumulative_macs)

    def run_image(self, image: np.ndarray) -> tuple[int, np.ndarray]:
        """Runs one image to its exit, without the checks of `predict`.

        Args:
            image: [height, width, channels].

        Returns:
            The exit, counted from 0, and its logits [classes], in memory that the next
            image overwrites.
        """
        np.copyto(self._tensors[self.manifest.input.name][0], image, casting="unsafe")
        for index in range(len(self.manifest.segments)):
            if index == len(self._segments):
                self._open_next()
            handed_over, invoke, logits, stop = self._segments[index]
            for memory, tensor in handed_over:
                np.copyto(memory, tensor)
            invoke()
            # The last exit has no say.
            if stop is None or stop[0, 0] > self.threshold:
                break
        return index, logits[0]

    def _open_next(self) -> None:
        entry = self.manifest.segments[self.opened]
        content = bundle.read_segment(self._bundle_dir, entry)
        model = LiteRTModel(content, self._num_threads)
        self._segments.append(_bind(model, entry, self._tensors))
        self._tensors |= model.outputs

    def _set_beta(self, beta: float | None) -> None:
        policy = self.manifest.policy
        check_beta(beta, policy.beta_range, policy.beta)
        if beta is not None:
            self._tensors["beta"][...] = beta


class _Segment(NamedTuple):
    """An open segment, bound to the tensors that it reads.

    Attributes:
        handed_over: Memory of each input, and the tensor that goes there.
        invoke: Runs it.
        logits: Memory of its exit's logits, [1, classes].
        stop: Memory of its exit's stop logit, [1, 1]; None at the last exit.
    """

    handed_over: list[tuple[np.ndarray, np.ndarray]]
    invoke: Callable[[], None]
    logits: np.ndarray
    stop: np.ndarray | None


def _bind(
    model: LiteRTModel, entry: bundle.SegmentEntry, tensors: dict[str, np.ndarray]
) -> _Segment:
    """Binds a segment by names to the tensors that are there already."""
    logits = f"logits_{entry.exit:02d}"
    if not tensors.keys() >= model.inputs.keys() or logits not in model.outputs:
        raise ValueError(
            f"The bundle's segment {entry.file} does not fit those before it: "
            f"inputs {sorted(model.inputs)}, outputs {sorted(model.outputs)}."
        )
    return _Segment(
        handed_over=[(memory, tensors[n]) for n, memory in model.inputs.items()],
        invoke=model.invoke,
        logits=model.outputs[logits],
        stop=model.outputs.get(f"stop_{entry.exit:02d}"),
    )
