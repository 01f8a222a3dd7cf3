"""Runs a model: one image at a time, segment by segment, until an exit says stop."""

import collections
import operator
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import NamedTuple, Protocol

import numpy as np

from epnet_tf.runtime import bundle
from epnet_tf.runtime.litert import LiteRTModel, as_input
from epnet_tf.runtime.prediction import Prediction, check_beta, from_logits
from epnet_tf.runtime.self_stopping import SelfStoppingModel, read_file

# Images that a worker takes at a time. With fewer, workers wait for each other more
# often to convert them; with more, one ends long before the other.
_BLOCK = 8


class SegmentRunner:
    """Classifies images with the segments of a bundle; it really stops.

    A segment is opened when the first image gets to it. An image that stops at exit 3
    runs segments 1 to 3, and nothing else. Of a bundle without segments, or of a
    `model.tflite` alone, it runs the model that stops by itself.

    Threads may share a runner: they wait for each other, call by call. To use several
    cores, give `num_workers` to one call with many images, or each thread a runner of
    its own.

    Usage:

    ```python
    runner = epnet_tf.SegmentRunner("runs/demo/bundle")
    label, exit, macs, probabilities = runner.predict(images)
    ```

    Args:
        bundle_dir: The bundle that `epnet_tf.convert` has written, or a `model.tflite`
            from one.
        num_threads: Threads that a segment may use.

    Attributes:
        manifest: What `epnet.json` says.
        threshold: An exit stops where its stop logit is greater. That of a model that
            stops by itself cannot be changed.

    Raises:
        ValueError: If this is no bundle and no such model, or a file is missing,
            truncated or altered.
    """

    def __init__(self, bundle_dir: str | os.PathLike, num_threads: int = 1):
        self._bundle_dir = bundle_dir
        self._num_threads = num_threads
        # The model that stops by itself, where there are no segments.
        self._content: bytes | None = None
        if os.path.isfile(bundle_dir):
            self.manifest, self._content = read_file(bundle_dir)
        else:
            self.manifest = bundle.read_manifest(bundle_dir)
            for entry in self.manifest.segments:
                bundle.read_tflite(bundle_dir, entry)
            if self.manifest.model and not self.manifest.segments:
                self._content = bundle.read_tflite(bundle_dir, self.manifest.model)
        self.threshold = self.manifest.policy.threshold
        self._lock = threading.Lock()
        self._workers = [self._new_worker()]

    @property
    def opened(self) -> int:
        """The number of segments opened so far."""
        return self._workers[0].opened

    @property
    def threshold(self) -> float:
        """See the class; in float32, as stop logits are."""
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        self._threshold = _in_float32(value)

    def predict(
        self,
        images,
        beta: float | None = None,
        num_workers: int = 1,
        max_exit: int | None = None,
    ) -> Prediction:
        """Classifies images, each until its exit.

        Args:
            images: uint8 or float [n, height, width, channels], raw values 0 to 255.
            beta: Cost sensitivity, points per unit of cost; for bundles whose
                controllers take it, and only for them.
            num_workers: Threads that share the images, each with interpreters of its
                own, which are kept for the next call. The answers are the same, in
                the same order.
            max_exit: The exit, counted from 1, that answers at the latest, whatever
                its controller says; to keep a deadline.

        Returns:
            A `Prediction`.

        Raises:
            ValueError: If the images are not as said above, β is missing, superfluous
                or out of range, there is no worker or no such exit, or a segment has
                been altered meanwhile.
        """
        images = self.manifest.input.check(images)
        policy = self.manifest.policy
        check_beta(beta, policy.beta_range, policy.beta)
        if operator.index(num_workers) < 1:
            raise ValueError(f"Expected num_workers >= 1. Received: {num_workers}.")
        last = len(self.manifest.exits)
        if max_exit is not None and not 1 <= operator.index(max_exit) <= last:
            raise ValueError(
                f"Expected max_exit from 1 to {last}. Received: {max_exit}."
            )
        exits = np.zeros(len(images), np.int64)
        logits = np.zeros([len(images), len(self.manifest.labels)], np.float32)
        turns = iter(range(0, len(images), _BLOCK))

        def work(worker: _Worker) -> None:
            for first in turns:
                block = self._as_input(images[first : first + _BLOCK])
                for i, image in enumerate(block, first):
                    exits[i], logits[i] = worker.run(image, self.threshold, max_exit)

        with self._lock:
            workers = self._at_least(min(num_workers, max(len(images), 1)))
            for worker in workers:
                worker.set_beta(beta)
            if len(workers) == 1:
                work(workers[0])
            else:
                _in_threads(work, workers, turns)
        return from_logits(logits, exits, self.manifest.cumulative_macs)

    def run_image(self, image: np.ndarray) -> tuple[int, np.ndarray]:
        """Runs one image to its exit, without the checks of `predict`.

        Args:
            image: [height, width, channels].

        Returns:
            The exit, counted from 0, and its logits [classes].
        """
        with self._lock:
            image = self._as_input(image)
            index, logits = self._workers[0].run(image, self.threshold)
            return index, logits.copy()

    def time_exits(self, image: np.ndarray) -> np.ndarray:
        """Times one image on its way through all exits, of a bundle with segments.

        Args:
            image: As in `run_image`.

        Returns:
            float64 [exits], seconds until each exit had answered, bringing the image to
            the model's type, handing the tensors over and all heads on the way
            included; rising from exit to exit.

        Raises:
            ValueError: If there are no segments.
        """
        with self._lock:
            worker = self._workers[0]
            if not isinstance(worker, _SegmentsWorker):
                raise bundle.without_segments(self.manifest)
            worker.open_all()
            start = time.perf_counter()
            return np.array(worker.time_exits(self._as_input(image))) - start

    def _as_input(self, images: np.ndarray) -> np.ndarray:
        """One or several images in the type that the model takes."""
        return as_input(images, self.manifest.input.dtype)

    def _new_worker(self) -> "_Worker":
        if self._content is not None:
            return _OneFileWorker(self.manifest, self._content, self._num_threads)
        return _SegmentsWorker(self.manifest, self._bundle_dir, self._num_threads)

    def _at_least(self, count: int) -> list["_Worker"]:
        while len(self._workers) < count:
            self._workers.append(self._new_worker())
        return self._workers[:count]


def _in_threads(
    work: Callable[["_Worker"], None], workers: list["_Worker"], turns: Iterator[int]
) -> None:
    """Lets each worker do its work in a thread; raises what the first one raised."""
    with ThreadPoolExecutor(len(workers)) as threads:
        futures = [threads.submit(work, worker) for worker in workers]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            # After an error, or an interruption, nobody takes another image.
            collections.deque(turns, maxlen=0)
    for future in futures:
        future.result()


class _Worker(Protocol):
    """Interpreters of a model; for one thread at a time."""

    @property
    def opened(self) -> int:
        """The number of segments opened so far."""

    def set_beta(self, beta: float | None) -> None:
        """Sets the β of the images to come."""

    def run(
        self, image: np.ndarray, threshold: float, max_exit: int | None = None
    ) -> tuple[int, np.ndarray]:
        """Runs one image to its exit.

        Args:
            image: [height, width, channels], contiguous, of the model's type.
            threshold: An exit stops where its stop logit is greater.
            max_exit: The exit, counted from 1, that answers at the latest.

        Returns:
            The exit, counted from 0, and its logits [classes], in memory that the next
            image may overwrite.
        """


class _OneFileWorker:
    """A `_Worker` with the model that stops by itself."""

    opened = 0

    def __init__(self, manifest: bundle.Manifest, content: bytes, num_threads: int):
        assert manifest.model is not None  # Whose content it is.
        self._threshold = _in_float32(manifest.policy.threshold)
        self._model = SelfStoppingModel(content, num_threads)
        _check_labels(manifest, self._model.num_classes, manifest.model.file)
        self.set_beta = self._model.set_beta

    def run(
        self, image: np.ndarray, threshold: float, max_exit: int | None = None
    ) -> tuple[int, np.ndarray]:
        if threshold != self._threshold:
            raise ValueError(
                f"Expected the threshold {self._threshold:g}, which is part of a model "
                f"that stops by itself. Received: {threshold:g}."
            )
        return self._model.run(image, max_exit)


class _SegmentsWorker:
    """A `_Worker` with an interpreter for each segment.

    Args:
        manifest: The bundle's manifest.
        bundle_dir: The bundle.
        num_threads: Threads that a segment may use.
    """

    def __init__(
        self, manifest: bundle.Manifest, bundle_dir: str | os.PathLike, num_threads: int
    ):
        self._manifest = manifest
        self._bundle_dir = bundle_dir
        self._num_threads = num_threads
        self._segments: list[_Segment] = []
        image = np.zeros(manifest.input.shape, manifest.input.dtype)
        self._image = image.data.cast("B")
        # What segments read, by name: the inputs, and what earlier segments made.
        self._tensors = {
            manifest.input.name: image,
            "beta": np.zeros([1, 1], np.float32),
        }

    @property
    def opened(self) -> int:
        return len(self._segments)

    def set_beta(self, beta: float | None) -> None:
        if beta is not None:
            self._tensors["beta"][...] = beta

    def run(
        self, image: np.ndarray, threshold: float, max_exit: int | None = None
    ) -> tuple[int, np.ndarray]:
        self._image[:] = image.data.cast("B")
        index = 0
        while True:
            # As little as can be: other workers wait for what is done in Python.
            for handed_over, invoke, logits, stop in self._segments[index:]:
                for memory, tensor in handed_over:
                    memory[:] = tensor
                invoke()
                # The last exit has no say.
                if stop is None or stop[0] > threshold or index + 1 == max_exit:
                    return index, logits
                index += 1
            self._open_next()

    def time_exits(self, image: np.ndarray) -> list[float]:
        """When each exit had answered, by `time.perf_counter`."""
        answered = []
        self._image[:] = image.data.cast("B")
        for handed_over, invoke, _, _ in self._segments:
            for memory, tensor in handed_over:
                memory[:] = tensor
            invoke()
            answered.append(time.perf_counter())
        return answered

    def open_all(self) -> None:
        """Opens the segments that no image has got to yet."""
        while self.opened < len(self._manifest.segments):
            self._open_next()

    def _open_next(self) -> None:
        entry = self._manifest.segments[self.opened]
        content = bundle.read_tflite(self._bundle_dir, entry)
        model = LiteRTModel(content, self._num_threads)
        segment = _bind(model, entry, self._tensors)
        _check_labels(self._manifest, len(segment.logits), entry.file)
        self._tensors |= model.outputs
        # Last: an interruption before leaves it unopened.
        self._segments.append(segment)


class _Segment(NamedTuple):
    """An open segment, bound to the tensors that it reads.

    Memory is handed over as bytes: NumPy's copies take three times as long, and let go
    of the GIL, which costs more than they do where workers wait for it.

    Attributes:
        handed_over: Memory of each input, and that of the tensor that goes there.
        invoke: Runs it.
        logits: Memory of its exit's logits, [classes].
        stop: Memory of its exit's stop logit, [1]; None at the last exit.
    """

    handed_over: list[tuple[memoryview, memoryview]]
    invoke: Callable[[], None]
    logits: np.ndarray
    stop: memoryview | None


def _bind(
    model: LiteRTModel, entry: bundle.SegmentEntry, tensors: dict[str, np.ndarray]
) -> _Segment:
    """Binds a segment by names to the tensors that are there already."""
    logits, stop = f"logits_{entry.exit:02d}", f"stop_{entry.exit:02d}"
    if logits not in model.outputs or not all(
        name in tensors and _are_alike(memory, tensors[name])
        for name, memory in model.inputs.items()
    ):
        raise ValueError(
            f"The bundle's segment {entry.file} does not fit those before it: "
            f"inputs {sorted(model.inputs)}, outputs {sorted(model.outputs)}."
        )
    return _Segment(
        handed_over=[
            (memory.data.cast("B"), tensors[name].data.cast("B"))
            for name, memory in model.inputs.items()
        ],
        invoke=model.invoke,
        logits=model.outputs[logits][0],
        stop=model.outputs[stop][0].data if stop in model.outputs else None,
    )


def _check_labels(manifest: bundle.Manifest, num_classes: int, file: str) -> None:
    if len(manifest.labels) != num_classes:
        raise ValueError(
            f"Expected in {bundle.MANIFEST} labels for the {num_classes} classes of "
            f"{file}. Received: {len(manifest.labels)} labels."
        )


def _in_float32(value: float) -> float:
    """A number as it compares with those of a model."""
    return float(np.float32(value))


def _are_alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two tensors have the same shape and type."""
    return one.shape == other.shape and one.dtype == other.dtype
