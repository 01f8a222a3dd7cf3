"""Checks that models are what they were made from, on real images."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np

from epnet_tf.runtime.litert import LiteRTModel
from epnet_tf.runtime.prediction import ExitOutputs, first_stop, from_named
from epnet_tf.tflite import one_file
from epnet_tf.tflite.flatbuffer import Graph


def compare(
    whole: Graph, segments: Sequence[Graph], feeds: Sequence[Mapping[str, np.ndarray]]
) -> None:
    """Checks that segments in a row compute, bit for bit, what the whole model does.

    Args:
        whole: The model that the segments were cut from.
        segments: They, in the order in which they run.
        feeds: Inputs of the whole model.

    Raises:
        ValueError: If an output differs, or is not finite.
    """
    parts = [LiteRTModel(segment.content) for segment in segments]
    for feed, expected in zip(feeds, _run(whole, feeds), strict=True):
        tensors = dict(feed)
        for part in parts:
            tensors |= part.run(**{name: tensors[name] for name in part.inputs})
        for name, value in expected.items():
            if value.tobytes() != tensors[name].tobytes():
                raise ValueError(
                    f"The segments in a row differ from the whole model in {name}: "
                    "the slicer does not cut this model correctly."
                )


def compare_one_file(
    whole: Graph,
    one: Graph,
    thresholds: float | np.ndarray,
    joined: Collection[int],
    feeds: Sequence[Mapping[str, np.ndarray]],
) -> None:
    """Checks that a model that stops by itself answers, bit for bit, as the whole does.

    Whatever the images are, each exit's branch is run: by copies of the model whose
    thresholds are moved so that some image leaves through that exit, and with every
    `max_exit`.

    Args:
        whole: The model that it was made from.
        one: The model that stops by itself.
        thresholds: Its thresholds.
        joined: Its exits that end nothing, see `one_file.build`.
        feeds: Inputs of the whole model, at least one.

    Raises:
        ValueError: If an answer differs, or an output of the whole is not finite.
    """
    found = list(_run(whole, feeds))
    expected = from_named(
        {name: np.concatenate([each[name] for each in found]) for name in found[0]}
    )
    _check_answers(one, thresholds, feeds, expected)
    _check_limits(one, thresholds, feeds, expected)
    for moved in thresholds_for_all_paths(expected.stops):
        other = one_file.build(whole, moved, joined)
        _check_answers(other, moved, feeds, expected)


def _run(
    whole: Graph, feeds: Iterable[Mapping[str, np.ndarray]]
) -> Iterator[dict[str, np.ndarray]]:
    """All outputs of the whole model for each of its inputs."""
    model = LiteRTModel(whole.content)
    for feed in feeds:
        outputs = model.run(**feed)
        for name, value in outputs.items():
            if not np.isfinite(value).all():
                raise ValueError(f"The model's output {name} is not finite.")
        yield outputs


def _check_answers(
    one: Graph,
    thresholds: float | np.ndarray,
    feeds: Sequence[Mapping[str, np.ndarray]],
    expected: ExitOutputs,
) -> None:
    """Checks a model's answers from the first call of a new interpreter on."""
    model = LiteRTModel(one.content)
    for i, exit in enumerate(first_stop(expected.stops, thresholds)):
        _check_answer(model.run(**feeds[i]), exit, expected.logits[i, exit])


def _check_limits(
    one: Graph,
    thresholds: float | np.ndarray,
    feeds: Sequence[Mapping[str, np.ndarray]],
    expected: ExitOutputs,
) -> None:
    """Checks a model's answers under every `max_exit`."""
    model = LiteRTModel(one.content)
    exits = first_stop(expected.stops, thresholds)
    for limit in range(expected.num_exits):
        i = limit % len(feeds)
        exit = min(exits[i], limit)
        max_exit = np.array([limit + 1], np.int32)
        answer = model.run_signature(one_file.MAX_EXIT, **feeds[i], max_exit=max_exit)
        _check_answer(answer, exit, expected.logits[i, exit])


def _check_answer(
    answer: Mapping[str, np.ndarray], exit: int, logits: np.ndarray
) -> None:
    number = int(answer["exit"][0])
    if number != exit + 1 or answer["logits"].tobytes() != logits.tobytes():
        raise ValueError(
            "The model that stops by itself differs from the whole model at exit "
            f"{exit + 1}: it answers from exit {number}, or with other logits."
        )


def thresholds_for_all_paths(stops: np.ndarray) -> Iterator[np.ndarray]:
    """Thresholds under which, taken together, some image leaves through every exit.

    Args:
        stops: float32 [n, N − 1], stop logits of n images, at least one.

    Yields:
        float32 [N − 1], thresholds of all exits but the last.
    """
    count, others = stops.shape
    # Through the last one.
    yield np.full(others, np.inf, np.float32)
    pending = list(range(others))
    while pending:
        thresholds = np.full(others, np.inf, np.float32)
        stays = np.ones(count, bool)
        while pending and stays.any():
            k = pending.pop(0)
            thresholds[k] = np.nextafter(stops[stays, k].max(), -np.float32(np.inf))
            stays &= stops[:, k] <= thresholds[k]
        yield thresholds
