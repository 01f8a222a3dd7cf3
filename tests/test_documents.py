"""What README and the pages tell people to type, typed.

Every fenced block is run, page by page, in order, in a folder that looks like a fresh
clone, or says in its first line why not: "not run by our tests: ...". Commands of
those blocks, and those within the text, must at least name scripts, flags and targets
that there are. CONTRIBUTING.md tells writers of pages what they find in the folder.
"""

import dataclasses
import functools
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import markdown
import numpy as np
import pytest
import small_settings
from PIL import Image
from test_android_device_report import REPORT

ROOT = pathlib.Path(__file__).parents[1]
BUNDLE = ROOT / "android_demo/app/src/main/assets/bundles/maxmin-1e-06"
NOT_RUN = "not run by our tests: "
# What happens to the blocks of these languages; others are not run, and say why.
RUN = ("sh", "python", "json", "text")
# A page with a command that has one of these takes more than seconds.
_LONG = ("train.py", "convert.py", "evaluate.py", "make ", "measure_costs", "benchmark")
_BLOCK = re.compile(r"^( *)```(.*?)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


def pages() -> list[str]:
    """Every text for readers, by its path; what programs write is none."""
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    ).stdout.split()
    written = ("CHANGELOG.md", "results/quantization.md")
    return sorted(
        page
        for page in tracked
        if page not in written
        and not page.endswith("/report.md")
        and (ROOT / page).exists()
    )


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: What stands behind the fence.
        text: What is in it.
        line: Where its text begins in the page.
    """

    language: str
    text: str
    line: int

    @property
    def is_run(self) -> bool:
        """Whether it is, or says why not."""
        return NOT_RUN not in self.text.partition("\n")[0]


@functools.cache
def blocks(page: str) -> tuple[Block, ...]:
    """The fenced blocks of a page, in order."""
    text = (ROOT / page).read_text()
    return tuple(
        Block(
            found[2],
            re.sub(f"^{found[1]}", "", found[3], flags=re.MULTILINE),
            text.count("\n", 0, found.start(3)) + 1,
        )
        for found in _BLOCK.finditer(text)
    )


PAGES = pages()


def is_long(page: str) -> bool:
    return any(
        word in block.text
        for block in blocks(page)
        if block.language == "sh" and block.is_run
        for word in _LONG
    )


def runnable() -> list:
    """The pages with something to run, the long ones marked."""
    found = []
    for page in PAGES:
        if any(b.is_run and b.language in ("sh", "python") for b in blocks(page)):
            marks = [pytest.mark.slow] if is_long(page) else []
            found.append(pytest.param(page, marks=marks))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page):
    # Nothing escapes by being indented, or by a fence that does not end.
    html = markdown.markdown(
        (ROOT / page).read_text(), extensions=["pymdownx.superfences"]
    )
    assert html.count("<pre>") == len(blocks(page)), "code outside of ``` blocks"
    for block in blocks(page):
        where = f"{page}:{block.line}"
        assert block.language, f"{where} has no language"
        assert block.language in RUN or not block.is_run, (
            f"{where}: {block.language} is not run, and its first line does not say "
            f"'{NOT_RUN}' and why"
        )
        if not block.is_run:
            reason = block.text.partition("\n")[0].partition(NOT_RUN)[2]
            assert len(reason.split()) > 1, f"{where} gives no reason"
        if block.language == "json" and block.is_run:
            json.loads(block.text)


def commands(page: str) -> list[str]:
    """Commands in the shell blocks and within the text of a page, one line each."""
    text = (ROOT / page).read_text()
    shell = "\n".join(b.text for b in blocks(page) if b.language == "sh")
    within = re.findall(r"(?<!`)`([^`]+)`(?!`)", _BLOCK.sub("", text))
    lines = shell.replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines + within]


def flags_of(script: pathlib.Path) -> set[str]:
    """The flags that a script defines."""
    text = script.read_text()
    names = re.findall(r'(?:DEFINE_\w+\(|add_argument\()\s*"(?:--)?(\w+)"', text)
    return {*names, *(f"no{name}" for name in names), "help", "helpshort", "verbosity"}


@pytest.mark.parametrize("page", PAGES)
def test_commands_name_what_is_there(page):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in commands(page):
        for target in re.findall(r"^make ([\w-]+)", command):
            assert target in targets, f"{page}: {command}"
        found = re.search(r"\bpython (?:-m (epnet_tf[\w.]*)|(\S+\.py))(.*)", command)
        if not found:
            continue
        module, script, rest = found.groups()
        file = ROOT / (f"{module.replace('.', '/')}.py" if module else script)
        assert file.exists(), f"{page}: {command}"
        for flag in re.findall(r"(?<=\s)--(\w+)", rest):
            assert flag in flags_of(file), f"{page}: --{flag} of {command}"


def write_photos(folder: pathlib.Path) -> None:
    """What a reader may have: photo.png, photo.jpg, photos/, photos.npz."""
    with Image.open(ROOT / "examples/easy_1_4.png") as picture:
        picture.save(folder / "photo.png")
        picture.convert("RGB").save(folder / "photo.jpg")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 120, (120, 24, 24, 3)).astype(np.uint8)
    labels = np.arange(120) % 2
    images[labels == 1, 6:18, 6:18] += 120
    for name, of_class in (("dark", 0), ("bright", 1)):
        (folder / "photos" / name).mkdir(parents=True)
        for i, image in enumerate(images[labels == of_class]):
            Image.fromarray(image).save(folder / "photos" / name / f"{i:03d}.png")
    np.savez(
        folder / "photos.npz",
        x_train=images[:90],
        y_train=labels[:90],
        x_test=images[90:],
        y_test=labels[90:],
        labels=["dark", "bright"],
    )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    small_settings.write_data(folder)
    return folder


@pytest.fixture
def clone(tmp_path, data_dir, monkeypatch):
    """A folder that looks like a fresh clone, with an environment installed."""
    for path in ROOT.iterdir():
        if path.name not in ("runs", "build", "dist", ".venv", ".git"):
            (tmp_path / path.name).symlink_to(path)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    python = programs / "python"
    small = shlex.quote(str(ROOT / "tests" / "small_settings.py"))
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {small} "$@"\n')
    python.chmod(0o755)
    (tmp_path / ".venv" / "installed").touch()
    write_photos(tmp_path)
    shutil.copytree(BUNDLE, tmp_path / "bundle")
    (tmp_path / "benchmark.json").write_text(json.dumps(REPORT))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("EPNET_DATA_DIR", str(data_dir))
    return tmp_path


def run_shell(block: Block, where: str) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{where}\n{block.text}\n{done.stdout[-4000:]}"


def run_page(page: str) -> dict:
    """Runs a page's blocks; returns the names that its Python blocks leave."""
    names: dict = {"__name__": "__main__"}
    for block in blocks(page):
        where = f"{page}:{block.line}"
        if block.is_run and block.language == "sh":
            run_shell(block, where)
        elif block.is_run and block.language == "python":
            # Blank lines in front, so that a traceback tells the page's line.
            text = "\n" * (block.line - 1) + block.text
            exec(compile(text, page, "exec"), names)
    return names


def check_own_model(clone, names, printed):
    """The first page's model stops, and its one file as its segments."""
    assert (clone / "runs/own/bundle/epnet.json").exists()
    assert len(names["exit"]) == 10
    assert (names["exit"] >= 1).all()
    assert (names["exit"] <= names["model"].num_exits).all()
    assert str(names["macs"]) in printed
    assert names["answer"]["exit"] == names["exit"][0]
    assert names["answer"]["logits"].argmax() == names["label"][0]


def check_server(clone, names, printed):
    """A server's threads answer as the program for one device does."""
    with ThreadPoolExecutor(2) as threads:
        for answer in threads.map(names["answer"], [names["photo"][np.newaxis]] * 4):
            assert answer.label == names["label"] and answer.exit == names["exit"]


# What must be true after a page, beyond that its blocks run.
CHECKS = {"docs/start.md": check_own_model, "docs/runtime.md": check_server}


@pytest.mark.parametrize("page", runnable())
def test_blocks_run_one_after_the_other(page, clone, monkeypatch, capsys):
    small_settings.shrink(monkeypatch)
    names = run_page(page)
    if page in CHECKS:
        CHECKS[page](clone, names, capsys.readouterr().out)
