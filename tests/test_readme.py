"""The code that the README shows runs as it is."""

import pathlib
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"


def test_code_blocks_one_after_the_other(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert (tmp_path / "runs/readme/bundle/epnet.json").exists()
    assert len(names["exit"]) == 10
    assert (names["exit"] >= 1).all() and (
        names["exit"] <= names["model"].num_exits
    ).all()
    assert str(names["macs"]) in capsys.readouterr().out
    assert names["answer"]["exit"] == names["exit"][0]
    assert names["answer"]["logits"].argmax() == names["label"][0]


def test_code_blocks_for_devices_and_servers(tmp_path, monkeypatch):
    bundles = ROOT / "android_demo/app/src/main/assets/bundles"
    shutil.copytree(bundles / "maxmin-4e-07", tmp_path / "bundle")
    with Image.open(ROOT / "examples/easy_1_4.png") as picture:
        picture.convert("RGB").save(tmp_path / "photo.jpg")
    text = (ROOT / "docs/runtime.md").read_text()
    device, server = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(device, "runtime.md", "exec"), names)
    exec(compile(server, "runtime.md", "exec"), names)
    with ThreadPoolExecutor(2) as threads:
        for answer in threads.map(names["answer"], [names["photo"][np.newaxis]] * 4):
            assert answer.label == names["label"] and answer.exit == names["exit"]
