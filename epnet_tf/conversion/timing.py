"""Times functions of an image against each other, in one run."""

import dataclasses
import time
from collections.abc import Callable, Mapping

import numpy as np

from epnet_tf.data.streams import Images
from epnet_tf.runtime.litert import LiteRTModel

# Images that a contender runs in one go: alone, as in use, with its weights in the
# caches that the contender before it had filled.
_BLOCK = 10


@dataclasses.dataclass(frozen=True)
class Timing:
    """How long one contender took.

    Attributes:
        seconds: float [images].
    """

    seconds: np.ndarray

    def milliseconds(self, percentile: float) -> float:
        """A percentile of the times; 50 is the median."""
        return 1e3 * float(np.percentile(self.seconds, percentile))

    @property
    def mean_milliseconds(self) -> float:
        """What an image takes on average, easy and hard ones as they come."""
        return 1e3 * float(self.seconds.mean())

    def ratio(self, other: "Timing") -> float:
        """Median of the ratios to another contender's times for the same images."""
        return float(np.median(self.seconds / other.seconds))


def time_in_turn(
    contenders: Mapping[str, Callable[[np.ndarray], object]],
    images: Images,
    rounds: int,
) -> dict[str, Timing]:
    """Times functions of an image, in rounds.

    A machine that is slow for a while is slow for all of them, and each runs first as
    often as any other.

    Args:
        contenders: The functions, by name.
        images: Run in turn, ten in each round.
        rounds: Rounds that count; one more comes before.

    Returns:
        A `Timing` for each.
    """
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds + 1):
        block = [images[j % len(images)] for j in range(i * _BLOCK, (i + 1) * _BLOCK)]
        first = i % len(names)
        for name in names[first:] + names[:first]:
            run = contenders[name]
            for image in block:
                start = time.perf_counter()
                run(image)
                seconds[name].append(time.perf_counter() - start)
    return {name: Timing(np.array(taken[_BLOCK:])) for name, taken in seconds.items()}


def one_image(model: LiteRTModel) -> Callable[[np.ndarray], None]:
    """A contender: copies an image [h, w, c] into a model, and runs it."""

    def run(image: np.ndarray) -> None:
        np.copyto(model.inputs["image"][0], image, casting="unsafe")
        model.invoke()

    return run
