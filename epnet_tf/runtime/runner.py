"""Runs a bundle: one image at a time, segment by segment, until an exit says stop."""

import collections
import operator
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import NamedTuple

import numpy as np

from epnet_tf.runtime import bundle
from epnet_tf.runtime.litert import LiteRTModel
from epnet_tf.runtime.prediction import Prediction, check_beta, from_logits

# Images that a worker takes at a time. With fewer, workers wait for each other more
# often to convert them; with more, one ends long before the other.
_BLOCK = 8


class SegmentRunner:
    """Classifies images with the segments of a bundle; it really stops.

    A segment is opened when the first image gets to it. An image that stops at exit 3
    runs segments 1 to 3, and nothing else.

    Threads may share a runner: they wait for each other, call by call. To use several
    cores, give `num_workers` to one call with many images, or each thread a runner of
    its own.

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
        self._lock = threading.Lock()
        self._workers = [self._new_worker()]

    @property
    def opened(self) -> int:
        """The number of segments opened so far."""
        return self._workers[0].opened

    def predict(
        self, images, beta: float | None = None, num_workers: int = 1
    ) -> Prediction:
        """Classifies images, each until its exit.

        Args:
            images: uint8 or float [n, height, width, channels], raw values 0 to 255.
            beta: Cost sensitivity, percentage points per MAC; for bundles whose
                controllers take it, and only for them.
            num_workers: Threads that share the images, each with interpreters of its
                own, which are kept for the next call. The answers are the same, in
                the same order.

        Returns:
            A `Prediction`.

        Raises:
            ValueError: If the images are not as said above, β is missing, superfluous
                or out of range, there is no worker, or a segment has been altered
                meanwhile.
        """
        images = self.manifest.input.check(images)
        policy = self.manifest.policy
        check_beta(beta, policy.beta_range, policy.beta)
        if operator.index(num_workers) < 1:
            raise ValueError(f"Expected num_workers >= 1. Received: {num_workers}.")
        exits = np.zeros(len(images), np.int64)
        logits = np.zeros([len(images), len(self.manifest.labels)], np.float32)
        turns = iter(range(0, len(images), _BLOCK))

        def work(worker: _Worker) -> None:
            for first in turns:
                block = worker.as_input(images[first : first + _BLOCK])
                for i, image in enumerate(block, first):
                    exits[i], logits[i] = worker.run(image, self.threshold)

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
            worker = self._workers[0]
            index, logits = worker.run(worker.as_input(image), self.threshold)
            return index, logits.copy()

    def _new_worker(self) -> "_Worker":
        return _Worker(self.manifest, self._bundle_dir, self._num_threads)

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


class _Worker:
    """The bundle's segments, each with an interpreter; for one thread at a time.

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
        """The number of segments opened so far."""
        return len(self._segments)

    def set_beta(self, beta: float | None) -> None:
        """Sets the β of the images to come."""
        if beta is not None:
            self._tensors["beta"][...] = beta

    def as_input(self, images: np.ndarray) -> np.ndarray:
        """One or several images in the type that `run` takes."""
        return np.ascontiguousarray(images, self._manifest.input.dtype)

    def run(self, image: np.ndarray, threshold: float) -> tuple[int, np.ndarray]:
        """Runs one image to its exit.

        Args:
            image: [height, width, channels], from `as_input`.
            threshold: An exit stops where its stop logit is greater.

        Returns:
            The exit, counted from 0, and its logits [classes], in memory that the next
            image overwrites.
        """
        self._image[:] = image.data.cast("B")
        index = 0
        while True:
            # As little as can be: other workers wait for what is done in Python.
            for handed_over, invoke, logits, stop in self._segments[index:]:
                for memory, tensor in handed_over:
                    memory[:] = tensor
                invoke()
                # The last exit has no say.
                if stop is None or stop[0] > threshold:
                    return index, logits
                index += 1
            self._open_next()

    def _open_next(self) -> None:
        entry = self._manifest.segments[self.opened]
        content = bundle.read_segment(self._bundle_dir, entry)
        model = LiteRTModel(content, self._num_threads)
        segment = _bind(model, entry, self._tensors)
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


def _are_alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two tensors have the same shape and type."""
    return one.shape == other.shape and one.dtype == other.dtype
