"""Measures what leaving through each exit of a bundle takes on this machine."""

import datetime
import importlib.metadata
import os
import platform
import time

import numpy as np

from epnet_tf.runtime import device_report
from epnet_tf.runtime.bundle import Manifest
from epnet_tf.runtime.litert import LiteRTModel
from epnet_tf.runtime.runner import SegmentRunner

# Runs before the first that counts: memory is there then, and the processor awake.
WARM_UP = 50
# Images that take turns. What they show does not matter: all of the exits run.
_IMAGES = 20


def measure(
    runner: SegmentRunner,
    network: bytes,
    rounds: int = 1000,
    beta: float | None = None,
) -> dict:
    """Times all exits of a bundle, and the plain network, in turn, on one thread.

    Args:
        runner: The opened bundle, which has segments.
        network: The plain network, without early exits, a .tflite model.
        rounds: Rounds that count, of one image each.
        beta: Cost sensitivity, for a bundle whose controllers take it.

    Returns:
        A device report, as the app exports it and `epnet_tf.read_costs` reads it.

    Raises:
        ValueError: If β is missing, superfluous or out of range.
    """
    shape = (_IMAGES, *runner.manifest.input.shape[1:])
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    runner.predict(images[:1], beta)
    plain = LiteRTModel(network)
    reaching, whole = [], []
    for i in range(WARM_UP + rounds):
        image = images[i % _IMAGES]
        reaching.append(runner.time_exits(image))
        whole.append(_timed(plain, image))
    return _report(
        runner.manifest, np.array(reaching[WARM_UP:]), np.array(whole[WARM_UP:]), beta
    )


def _timed(model: LiteRTModel, image: np.ndarray) -> float:
    """Seconds of one run of a model, bringing the image to its type included."""
    memory = model.inputs["image"][0]
    start = time.perf_counter()
    np.copyto(memory, image, casting="unsafe")
    model.invoke()
    return time.perf_counter() - start


def _report(
    manifest: Manifest, reaching: np.ndarray, whole: np.ndarray, beta: float | None
) -> dict:
    """The report of a measurement.

    Args:
        manifest: The bundle's.
        reaching: float [rounds, exits], seconds until each exit had answered.
        whole: float [rounds], seconds of the plain network.
        beta: β of a bundle whose controllers take it.
    """
    segments = np.diff(reaching, axis=1, prepend=0.0)
    now = datetime.datetime.now(datetime.UTC)
    return {
        "format": device_report.FORMAT,
        "version": device_report.VERSION,
        "created": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "device": {
            "manufacturer": platform.system(),
            "model": platform.processor() or platform.machine(),
            "abi": platform.machine(),
            "cores": os.cpu_count(),
        },
        "tflite": f"LiteRT {importlib.metadata.version('ai-edge-litert')}",
        "threads": 1,
        "warm_up": WARM_UP,
        "repetitions": len(whole),
        "bundle": {
            "name": manifest.name,
            "quantization": manifest.quantization,
            "beta": manifest.policy.beta if beta is None else beta,
            "full_macs": manifest.full_macs,
        },
        "exits": [
            {
                "exit": entry.exit,
                "layer": entry.layer,
                "macs": entry.macs,
                "cumulative_macs": entry.cumulative_macs,
                "segment": _latency(segments[:, k]),
                "reaching": _latency(reaching[:, k]),
            }
            for k, entry in enumerate(manifest.segments)
        ],
        "network": _latency(whole),
    }


def _latency(seconds: np.ndarray) -> dict:
    median, p90 = np.quantile(seconds, [0.5, 0.9]).tolist()
    return {
        "mean_ms": 1e3 * float(seconds.mean()),
        "median_ms": 1e3 * median,
        "p90_ms": 1e3 * p90,
    }
