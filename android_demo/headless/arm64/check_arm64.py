"""Run the packaged bundles with TFLite's ARM64 library under qemu; compare with Python.

Builds the shim and run_segments.c for ARM64, runs every bundle of the app's assets on
the first images, and compares exits and labels with the packaged answers of Python's
`SegmentRunner`. Needs aarch64-linux-gnu-gcc and qemu-aarch64-static, and the AARs that
the Maven build fetches. Python's standard library alone.
"""

import argparse
import array
import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
HEADLESS = HERE.parent
ASSETS = HEADLESS.parent / "app" / "src" / "main" / "assets"
TARGET = HEADLESS / "target"
LIBRARY = TARGET / "tflite" / "jni" / "arm64-v8a" / "libtensorflowlite_jni.so"
SYSROOT = "/usr/aarch64-linux-gnu"


def build(libraries: pathlib.Path) -> pathlib.Path:
    """Builds the shim into `libraries`; returns the harness beside it."""
    make_shim = HEADLESS / "shim" / "make_shim.py"
    command = [sys.executable, str(make_shim), "--abi=arm64-v8a"]
    command += [f"--library={LIBRARY}", f"--output={libraries}"]
    subprocess.check_call(command)
    harness = libraries / "run_segments"
    source = HERE / "run_segments.c"
    compiler = ["aarch64-linux-gnu-gcc", "-O1", "-Wall"]
    subprocess.check_call([*compiler, "-o", str(harness), str(source), "-ldl"])
    return harness


def image_tensors(spec: dict, count: int) -> bytes:
    """The first test images as the model's image tensor holds them."""
    described = json.loads((ASSETS / "test_images" / "images.json").read_text())
    pixels = (ASSETS / "test_images" / "images.bin").read_bytes()
    pixels = pixels[: count * len(pixels) // described["count"]]
    if spec["dtype"] == "float32":
        return array.array("f", [float(p) for p in pixels]).tobytes()
    quantization = spec["quantization"] or {"scale": 1, "zero_point": 0}
    scale, zero = quantization["scale"], quantization["zero_point"]
    low, high = (-128, 127) if spec["dtype"] == "int8" else (0, 255)
    table = [min(max(round(p / scale) + zero, low), high) & 255 for p in range(256)]
    return bytes(table[p] for p in pixels)


def run(bundle: pathlib.Path, libraries: pathlib.Path, count: int) -> list[str]:
    """Runs a bundle under qemu; returns a line "EXIT LABEL" for each image."""
    manifest = json.loads((bundle / "epnet.json").read_text())
    work = TARGET / "arm64" / bundle.name
    work.mkdir(parents=True, exist_ok=True)
    plan = [f"threshold {manifest['policy']['threshold']}"]
    for segment in manifest["segments"]:
        plan.append(f"segment {segment['exit']} {bundle / segment['file']}")
    (work / "plan.txt").write_text("\n".join(plan) + "\n")
    (work / "images.bin").write_bytes(image_tensors(manifest["input"], count))
    command = ["qemu-aarch64-static", "-L", SYSROOT, str(libraries / "run_segments")]
    command += [str(libraries), str(work / "plan.txt"), str(work / "images.bin")]
    return subprocess.check_output(command, text=True).splitlines()


def main() -> None:
    """Build, run, compare; exit status 1 where an answer differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="images per bundle")
    count = parser.parse_args().count
    libraries = TARGET / "native" / "arm64-v8a"
    build(libraries)
    bundles = sorted(path for path in (ASSETS / "bundles").iterdir() if path.is_dir())
    passed = failed = 0
    for bundle in bundles:
        answers = json.loads((ASSETS / "answers" / f"{bundle.name}.json").read_text())
        pairs = zip(answers["exits"][:count], answers["labels"][:count], strict=True)
        expected = [f"{exit_number} {label}" for exit_number, label in pairs]
        found = run(bundle, libraries, count)
        equal = sum(a == b for a, b in zip(found, expected, strict=True))
        good = found == expected
        passed, failed = passed + good, failed + (not good)
        print(
            f"{bundle.name}: exit and label equal on {equal} of {len(expected)} images"
        )
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
