"""The code that the README shows runs as it is."""

import pathlib
import re

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_code_block_for_your_own_model(tmp_path, monkeypatch, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    assert (tmp_path / "runs/readme/bundle/epnet.json").exists()
    assert len(names["exit"]) == 10
    assert (names["exit"] >= 1).all() and (
        names["exit"] <= names["model"].num_exits
    ).all()
    assert str(names["macs"]) in capsys.readouterr().out
