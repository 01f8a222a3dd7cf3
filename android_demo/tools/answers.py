"""Write test images and Python's answers into a bundle that takes beta.

    python android_demo/tools/answers.py --dataset=maxmin --beta=4e-7 BUNDLE

For `examples/one_file/check.py --bundle=BUNDLE`, which compares other languages and
runtimes with them: `images.bin`, and `answers.json` with exit, label and logits of each
image at each beta, and the same with `max_exit`.
"""

import argparse
import json
import pathlib
from collections.abc import Sequence

import networks
import numpy as np

from epnet_tf.data import load_dataset
from epnet_tf.runtime.litert import LiteRTModel
from epnet_tf.runtime.runner import SegmentRunner


def write_answers(
    bundle: pathlib.Path, images: np.ndarray, betas: Sequence[float], max_exit: int
) -> None:
    """Writes images and what the bundle's segments answer for them.

    Args:
        bundle: The bundle.
        images: Raw pixels, batch first.
        betas: Each is given to all images.
        max_exit: The exit, from 1, that answers at the latest in half of the answers.
    """
    (bundle / "images.bin").write_bytes(images.astype(np.uint8).tobytes())
    manifest = json.loads((bundle / "epnet.json").read_text())
    segments = [(bundle / s["file"]).read_bytes() for s in manifest["segments"]]
    whole = LiteRTModel(networks.whole_model(networks.join(segments)))
    runner = SegmentRunner(bundle)
    free, limited = [], []
    for beta in betas:
        exits = runner.predict(images, beta=beta).exit
        value = np.float32([[beta]])
        free.append(answers_at(whole, images, exits, beta=value))
        exits = np.minimum(exits, max_exit)
        limited.append(answers_at(whole, images, exits, beta=value))
    answers = {"betas": list(betas)} | by_key(free)
    answers |= {"max_exit": max_exit, "limited": by_key(limited)}
    (bundle / "answers.json").write_text(json.dumps(answers) + "\n")
    print("mean exit at each beta:", [float(np.mean(a["exits"])) for a in free])


def answers_at(
    whole: LiteRTModel, images: np.ndarray, exits: Sequence[int], **inputs: np.ndarray
) -> dict[str, list]:
    """What the exits say, for tests to compare with.

    Args:
        whole: The multi-exit model in one piece.
        images: Raw pixels, batch first.
        exits: The exit at which each image leaves, from 1.
        inputs: The model's other inputs.

    Returns:
        `exits`, `labels` and `logits` of each image, as JSON has them.
    """
    logits = [
        whole.run(image=image[None], **inputs)[f"logits_{exit_number:02d}"][0]
        for image, exit_number in zip(images, exits, strict=True)
    ]
    return {
        "exits": [int(exit_number) for exit_number in exits],
        "labels": [int(row.argmax()) for row in logits],
        "logits": [[round(float(value), 6) for value in row] for row in logits],
    }


def by_key(answers: list[dict[str, list]]) -> dict[str, list]:
    """The answers for each beta, as lists by what they are."""
    return {key: [a[key] for a in answers] for key in answers[0]}


def main() -> None:
    """Reads the command line and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=pathlib.Path, metavar="BUNDLE")
    parser.add_argument("--dataset", required=True, help="as for train.py")
    parser.add_argument("--data_dir", help="as for train.py")
    parser.add_argument("--seed", type=int, default=0, help="as for train.py")
    parser.add_argument("--count", type=int, default=1000, help="test images")
    parser.add_argument("--beta", type=float, action="append", required=True)
    parser.add_argument("--max_exit", type=int, default=2, help="counted from 1")
    arguments = parser.parse_args()
    dataset = load_dataset(arguments.dataset, arguments.data_dir, arguments.seed)
    images = dataset.test.images[: arguments.count]
    write_answers(arguments.bundle, images, arguments.beta, arguments.max_exit)


if __name__ == "__main__":
    main()
