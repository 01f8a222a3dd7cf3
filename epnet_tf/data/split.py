"""Images with their labels."""

from dataclasses import dataclass

import numpy as np

from epnet_tf.data.streams import Images


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set: for training, for validation, or for the test.

    Attributes:
        images: uint8 `[n, h, w, c]`, raw pixels 0 to 255 (float32 where the user's
            .npz file holds floats); an array, or `StreamedImages` where they stay in
            files.
        labels: int32 `[n]`.
        difficulty: int8 `[n]`, index into the data set's `difficulties`, or `None`.
    """

    images: Images
    labels: np.ndarray
    difficulty: np.ndarray | None = None

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)
