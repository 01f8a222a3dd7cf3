"""Checks that segments are what they were cut from, on real images."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from epnet_tf.runtime.litert import LiteRTModel
from epnet_tf.tflite.flatbuffer import Graph


def compare(
    whole: Graph, segments: Sequence[Graph], feeds: Iterable[Mapping[str, np.ndarray]]
) -> None:
    """Checks that segments in a row compute, bit for bit, what the whole model does.

    Args:
        whole: The model that the segments were cut from.
        segments: They, in the order in which they run.
        feeds: Inputs of the whole model.

    Raises:
        ValueError: If an output differs, or is not finite.
    """
    model = LiteRTModel(whole.content)
    parts = [LiteRTModel(segment.content) for segment in segments]
    for feed in feeds:
        expected = model.run(**feed)
        tensors = dict(feed)
        for part in parts:
            tensors |= part.run(**{name: tensors[name] for name in part.inputs})
        for name, value in expected.items():
            if not np.isfinite(value).all():
                raise ValueError(f"The model's output {name} is not finite.")
            if value.tobytes() != tensors[name].tobytes():
                raise ValueError(
                    f"The segments in a row differ from the whole model in {name}: "
                    "the slicer does not cut this model correctly."
                )
