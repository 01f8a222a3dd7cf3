"""The notebooks run as they are."""

import pathlib
import re

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = pathlib.Path(__file__).parents[1] / "notebooks"


def executed(name):
    """What a notebook printed, and the number of its pictures."""
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    # A cell may take minutes where the machine has other work.
    NotebookClient(notebook, timeout=1200).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    return "".join(output.get("text", "") for output in outputs), pictures


def test_quickstart_runs_and_stops_early():
    text, pictures = executed("quickstart.ipynb")
    assert "epnet" in text and "benefit" in text
    assert pictures == 3


def test_photos_go_from_a_folder_to_a_bundle_that_stops_early():
    text, pictures = executed("photos.ipynb")
    network = re.search(r"(\S+)% on test images", text)[1]
    # The frozen network is as right with exits that nobody takes as without them.
    assert f"resnet   accuracy {network}% at 100% of the MACs" in text
    shares = re.findall(r"epnet .* at (\d+)% of the MACs", text)
    assert len(shares) == 1 and int(shares[0]) < 100
    assert "Preprocessing(height=32, width=32" in text
    assert pictures == 2
