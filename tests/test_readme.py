"""The code that the README shows runs as it is."""

import pathlib
import re

README = pathlib.Path(__file__).parents[1] / "README.md"


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
