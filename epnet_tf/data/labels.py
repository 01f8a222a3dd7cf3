"""Labels of any usual form, checked: which class each image is of."""

import numpy as np


def check_labels(
    labels,
    num_classes: int | None = None,
    *,
    count: int | None = None,
    what: str = "labels",
    soft: bool = False,
) -> np.ndarray:
    """Class numbers from labels, or an error that says what is wrong with them.

    Args:
        labels: Whole numbers [n] or [n, 1], of any type, or one-hot rows
            [n, classes].
        num_classes: Number of classes; None where it is not known yet, and any whole
            number is a label.
        count: Number of images that the labels are for; None for any but none.
        what: What they are called in errors.
        soft: Whether rows may be probabilities, as mixed or smoothed labels are; the
            most probable class counts.

    Returns:
        int32 [n] (int64 without `num_classes`), counted from 0.

    Raises:
        ValueError: If labels are text, missing, out of range, no whole numbers, or not
            as many as there are images.
    """
    labels = np.asarray(labels)
    classes = "classes" if num_classes is None else num_classes
    wanted = f"Expected {what} of shape [n], [n, 1] or, one-hot, [n, {classes}]"
    if labels.dtype.kind not in "biuf":
        found = labels.reshape(-1)[:1].tolist() or [labels.dtype]
        raise ValueError(
            f"{wanted}, with the numbers of classes. Received: {found[0]!r}."
        )
    rows = labels.ndim == 2 and labels.shape[1] > 1
    fits = labels.ndim == 1 or (labels.ndim == 2 and labels.shape[1] == 1)
    if not (fits or (rows and num_classes in (None, labels.shape[1]))):
        raise ValueError(f"{wanted}. Received: shape {list(labels.shape)}.")
    if not len(labels) or count not in (None, len(labels)):
        each = f"one for each of {count} images" if count else "at least one"
        raise ValueError(f"Expected {what}, {each}. Received: {len(labels)}.")
    if rows:
        numbers = _classes_of_rows(labels, soft, what)
    else:
        numbers = labels.reshape(-1)
        if labels.dtype.kind == "f":
            broken = ~np.isfinite(numbers) | (np.trunc(numbers) != numbers)
            if broken.any():
                raise ValueError(
                    f"Expected {what} that are whole numbers. "
                    f"Received: label {numbers[broken][0]}."
                )
    if num_classes is None:
        return numbers.astype(np.int64)
    outside = (numbers < 0) | (numbers >= num_classes)
    if outside.any():
        raise ValueError(
            f"Expected {what} within 0 to {num_classes - 1}, for {num_classes} "
            f"classes. Received: label {numbers[outside][0]}, among labels from "
            f"{numbers.min()} to {numbers.max()}."
        )
    return numbers.astype(np.int32)


def _classes_of_rows(rows: np.ndarray, soft: bool, what: str) -> np.ndarray:
    sums = rows.sum(axis=1, dtype=np.float64)
    if soft:
        right = (rows >= 0).all(axis=1) & (np.abs(sums - 1) < 1e-2)
    else:
        right = ((rows == 0) | (rows == 1)).all(axis=1) & (sums == 1)
    if not right.all():
        at = int(np.argmin(right))
        kind = "rows of probabilities" if soft else "one-hot rows"
        raise ValueError(
            f"Expected {what} as {kind}, which sum to 1. Received: row {at} with "
            f"values from {rows[at].min():g} to {rows[at].max():g}, which sum to "
            f"{sums[at]:g}."
        )
    return rows.argmax(axis=1)
