"""Run this folder's programs on the packaged models; compare with Python's answers.

    python examples/one_file/check.py [python] [c] [arm64] [java] [kotlin] [javascript]

runs those that are named, or all, each as its users would: Python with `ai-edge-litert`
alone in an environment of its own, C, Java and Kotlin with Android's TFLite library
(through android_demo/headless; C also for ARM64, under qemu), JavaScript with LiteRT.js
in Chromium. Exit, label and logits have to be those of Python's `SegmentRunner`. Needs
what android_demo/build.sh needs, and npm and chromium. Python's standard library alone.
"""

import argparse
import contextlib
import dataclasses
import functools
import http.server
import json
import pathlib
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import venv
from collections.abc import Callable

HERE = pathlib.Path(__file__).resolve().parent
DEMO = HERE.parents[1] / "android_demo"
ASSETS = DEMO / "app" / "src" / "main" / "assets"
SMALL = DEMO / "engine" / "src" / "jvmTest" / "resources" / "bundles" / "beta-range"
HEADLESS = DEMO / "headless" / "target"
BUILD = HERE / "build"
LITERT = "ai-edge-litert==2.3.0"
LITERT_JS = "@litertjs/core@2.5.3"
CHROMIUM = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
)
# Seconds for a page that takes a few, here with much other work: ends what hangs alone.
PATIENCE = 600
# Runtimes round float32 differently; design and README have what was measured.
TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, images, and the answers for them.

    Attributes:
        name: For people.
        model: The .tflite model.
        images: Raw pixels, one image after another.
        numbers: Nothing, beta, or beta and max_exit, as the programs take them.
        exits: The exit of each image, from 1.
        labels: The label of each image.
        logits: The logits of each image.
    """

    name: str
    model: pathlib.Path
    images: pathlib.Path
    numbers: list[str]
    exits: list[int]
    labels: list[int]
    logits: list[list[float]]


# Arguments of a program to what it prints.
Program = Callable[[list[str]], str]


def packaged_cases(count: int) -> list[Case]:
    """The first images of the app, with its models of one beta each."""
    described = json.loads((ASSETS / "test_images" / "images.json").read_text())
    pixels = (ASSETS / "test_images" / "images.bin").read_bytes()
    images = BUILD / "images.bin"
    images.write_bytes(pixels[: count * len(pixels) // described["count"]])
    cases = []
    for model in sorted(ASSETS.glob("bundles/*/model.tflite")):
        name = model.parent.name
        answers = json.loads((ASSETS / "answers" / f"{name}.json").read_text())
        first = [answers[key][:count] for key in ("exits", "labels", "logits")]
        cases.append(Case(name, model, images, [], *first))
    return cases


def beta_cases(bundle: pathlib.Path) -> list[Case]:
    """A bundle that takes beta, without and with `max_exit`."""
    answers = json.loads((bundle / "answers.json").read_text())
    files = bundle / "model.tflite", bundle / "images.bin"
    cases = []
    for k, beta in enumerate(answers["betas"]):
        for limit, found in (("", answers), (answers["max_exit"], answers["limited"])):
            numbers = [repr(beta), str(limit)] if limit else [repr(beta)]
            name = f"{bundle.name}, {' '.join(numbers)}"
            answered = [found[key][k] for key in ("exits", "labels", "logits")]
            cases.append(Case(name, *files, numbers, *answered))
    return cases


def python() -> Program:
    """Python, in an environment that has ai-edge-litert and what that needs."""
    folder = BUILD / "python"
    if not folder.is_dir():
        venv.create(folder, with_pip=True)
    executable = folder / "bin" / "python"
    output([executable, "-m", "pip", "install", "--quiet", LITERT])
    return lambda arguments: output([executable, HERE / "classify.py", *arguments])


def c() -> Program:
    """C, with Android's library for x86-64 behind the shim."""
    libraries = HEADLESS / "native" / "x86_64"
    program = compiled("gcc", libraries)
    start = ["env", f"LD_LIBRARY_PATH={libraries}", program]
    return lambda arguments: output([*start, *arguments])


def arm64() -> Program:
    """C, with Android's library for ARM64, under qemu."""
    libraries = HEADLESS / "native" / "arm64-v8a"
    make_shim = DEMO / "headless" / "shim" / "make_shim.py"
    library = HEADLESS / "tflite" / "jni" / libraries.name / "libtensorflowlite_jni.so"
    options = [f"--library={library}", f"--output={libraries}"]
    output([sys.executable, make_shim, "--abi=arm64-v8a", *options])
    program = compiled("aarch64-linux-gnu-gcc", libraries)
    qemu = ["qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu"]
    start = [*qemu, "-E", f"LD_LIBRARY_PATH={libraries}", program]
    return lambda arguments: output([*start, *arguments])


def compiled(compiler: str, libraries: pathlib.Path) -> pathlib.Path:
    """Compiles classify.c against the library in `libraries`."""
    # The AAR's headers include two that it has not.
    missing = BUILD / "include" / "tensorflow" / "lite" / "core"
    external = "typedef struct TfLiteRegistrationExternal TfLiteRegistrationExternal;\n"
    for file, content in (
        (missing / "async" / "c" / "types.h", ""),
        (missing / "c" / "registration_external.h", external),
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    program = BUILD / f"classify-{libraries.name}"
    headers = [f"-I{HEADLESS / 'tflite' / 'headers'}", f"-I{BUILD / 'include'}"]
    # The shim's libc.so is found when the program runs, not when it is linked.
    link = [libraries / "libtensorflowlite_jni.so", "-Wl,--allow-shlib-undefined"]
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", *headers, "-o", program]
    output([compiler, *flags, HERE / "classify.c", *link])
    return program


def jvm(main: str) -> Program:
    """A class of the Maven module, with Android's library for x86-64."""
    places = DEMO / "one_file" / "target" / "classes", HEADLESS / "classes"
    path = ":".join(map(str, [*places, HEADLESS / "fetched" / "kotlin-stdlib.jar"]))
    native = f"-Dtflite.native={HEADLESS / 'native' / 'x86_64'}"
    start = ["java", native, "-cp", path, "ai.epnet.headless.Launch", main]
    return lambda arguments: output([*start, *arguments])


def javascript() -> Program:
    """JavaScript in Chromium, from a server on this machine."""
    site = BUILD / "site"
    site.mkdir(exist_ok=True)
    output(["npm", "install", "--silent", "--prefix", site, LITERT_JS])
    shutil.copy(HERE / "index.html", site)
    (site / "watch.html").write_text(WATCH)
    server = _Server(site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return lambda arguments: _in_chromium(site, server, arguments)


# Shows index.html, and posts what it says when it is done.
WATCH = """<!doctype html>
<iframe></iframe>
<script>
  const frame = document.querySelector('iframe');
  frame.onload = () => {
    const shown = frame.contentDocument.querySelector('pre');
    const tell = () => {
      if (shown.dataset.done) fetch('done', {method: 'POST', body: shown.textContent});
    };
    new MutationObserver(tell).observe(shown, {attributes: true});
    tell();
  };
  frame.src = 'index.html' + location.search;
</script>
"""


class _Server(http.server.ThreadingHTTPServer):
    """Serves a folder; what pages post arrives in `posted`."""

    def __init__(self, folder: pathlib.Path):
        handler = functools.partial(_Handler, directory=str(folder))
        super().__init__(("127.0.0.1", 0), handler)
        self.posted: queue.Queue[str] = queue.Queue()


class _Handler(http.server.SimpleHTTPRequestHandler):
    server: _Server

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        self.server.posted.put(self.rfile.read(length).decode())
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        pass


def _in_chromium(site: pathlib.Path, server: _Server, arguments: list[str]) -> str:
    shutil.copy(arguments[0], site / "model.tflite")
    shutil.copy(arguments[1], site / "images.bin")
    query = {"model": "model.tflite", "images": "images.bin"}
    query |= dict(zip(("beta", "max_exit"), arguments[2:], strict=False))
    page = f"watch.html?{urllib.parse.urlencode(query)}"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        log = pathlib.Path(profile) / "log.txt"
        command = ["chromium", *CHROMIUM, f"--user-data-dir={profile}"]
        command += [f"http://127.0.0.1:{server.server_port}/{page}"]
        with log.open("w") as said:
            browser = subprocess.Popen(command, stdout=said, stderr=said)
        try:
            return _first(server.posted, browser)
        except queue.Empty:
            sys.exit(
                "Expected a page that has classified its images. "
                f"Received: nothing, and Chromium said:\n{log.read_text()}"
            )
        finally:
            browser.terminate()
            try:
                browser.wait(60)
            except subprocess.TimeoutExpired:
                browser.kill()


def _first(posted: queue.Queue[str], browser: subprocess.Popen) -> str:
    """Waits for what a page posts; `queue.Empty` where the browser ends or hangs."""
    end = time.monotonic() + PATIENCE
    while browser.poll() is None and time.monotonic() < end:
        with contextlib.suppress(queue.Empty):
            return posted.get(timeout=1)
    return posted.get_nowait()


PROGRAMS = {
    "python": python,
    "c": c,
    "arm64": arm64,
    "java": lambda: jvm("Classify"),
    "kotlin": lambda: jvm("ClassifyKt"),
    "javascript": javascript,
}


def output(command: list) -> str:
    """What a command prints; its failure, with what it says, ends this program."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True
    )
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def compare(program: Program, case: Case) -> tuple[int, float]:
    """Runs a program; returns the images answered equally, and how far logits are."""
    lines = program([str(case.model), str(case.images), *case.numbers]).splitlines()
    equal, far = 0, 0.0
    for line, exit_number, label, logits in zip(
        lines, case.exits, case.labels, case.logits, strict=True
    ):
        first, second, *numbers = line.split()
        equal += (int(first), int(second)) == (exit_number, label)
        pairs = zip(map(float, numbers), logits, strict=True)
        far = max(far, *(abs(a - b) for a, b in pairs))
    return equal, far


def check(name: str, cases: list[Case]) -> bool:
    """Runs one program on all cases, and says what came out."""
    program = PROGRAMS[name]()
    images = different = 0
    furthest = 0.0
    for case in cases:
        equal, far = compare(program, case)
        if equal < len(case.exits) or far > TOLERANCE:
            print(f"{name}, {case.name}: {equal} of {len(case.exits)}, {far:.1e}")
        images += len(case.exits)
        different += len(case.exits) - equal
        furthest = max(furthest, far)
    print(
        f"{name}: exit and label equal on {images - different} of {images} images "
        f"in {len(cases)} runs, logits within {furthest:.1e}",
        flush=True,
    )
    return different == 0 and furthest <= TOLERANCE


def main() -> None:
    """Run, compare; exit status 1 where an answer differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("programs", nargs="*", metavar="PROGRAM")
    parser.add_argument(
        "--count", type=int, default=300, help="images per packaged model"
    )
    parser.add_argument(
        "--bundle",
        type=pathlib.Path,
        help="in place of the packaged ones; see android_demo/tools/answers.py",
    )
    arguments = parser.parse_args()
    unknown = set(arguments.programs) - set(PROGRAMS)
    if unknown:
        parser.error(f"Expected some of {', '.join(PROGRAMS)}. Received: {unknown}")
    BUILD.mkdir(exist_ok=True)
    if arguments.bundle is None:
        cases = [*packaged_cases(arguments.count), *beta_cases(SMALL)]
    else:
        cases = beta_cases(arguments.bundle)
    passed = [check(name, cases) for name in arguments.programs or PROGRAMS]
    sys.exit(0 if all(passed) else 1)


if __name__ == "__main__":
    main()
