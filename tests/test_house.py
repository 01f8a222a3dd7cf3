"""The house: what each room may lean on, read off the imports of every module."""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "epnet_tf"

# From the ground up; rooms on one floor stand side by side and know nothing of each
# other. Whoever adds a room gives it a floor.
FLOORS = (
    {"extras"},
    {"files", "cli", "cluster"},
    {"runtime"},
    {"data", "objective"},
    {"model"},
    {"training", "policies", "tflite"},
    {"evaluation", "quantization"},
    {"conversion", "experiments"},
    {"benchmark", "device_report", "measure_costs", "run"},
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# What a device has.
LIGHT_ROOMS = (
    *("extras", "files", "cli", "cluster", "runtime"),
    *("run", "device_report", "measure_costs"),
)
# LiteRT brings flatbuffers.
LIGHT_PACKAGES = {"absl", "ai_edge_litert", "flatbuffers", "numpy", "PIL"}
STANDARD = sys.stdlib_module_names


def modules() -> dict[str, pathlib.Path]:
    """All modules of the package by their dotted names."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports(module: str) -> set[str]:
    """What a module imports, anywhere in it; modules of the package by their names."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in MODULES else node.module)
    return found


IMPORTS = {module: imports(module) for module in MODULES}


def room(module: str) -> str:
    """The room that a module of the package is in; empty for the front door."""
    return ".".join(module.split(".")[1:2])


def test_every_room_has_a_floor():
    assert {room(module) for module in MODULES} == {"", *FLOOR}


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"epnet_tf"}))
def test_no_arrow_runs_up(module):
    for other in IMPORTS[module] & set(MODULES) - {"epnet_tf"}:
        if room(other) != room(module):
            assert FLOOR[room(other)] < FLOOR[room(module)], f"{module} -> {other}"


def test_the_front_door_imports_no_room():
    # But for the sentence about a room that cannot be entered.
    ours = {name for name in IMPORTS["epnet_tf"] if name.startswith("epnet_tf")}
    assert ours == {"epnet_tf.extras"}


def test_no_modules_import_each_other_in_a_circle():
    # A package's __init__ hands on what is in it, and runs before it.
    arrows = {m: IMPORTS[m] & set(MODULES) - {"epnet_tf"} for m in MODULES}
    done: set[str] = set()
    while len(done) < len(arrows):
        free = {m for m in arrows if m not in done and arrows[m] <= done}
        assert free, f"in a circle: {sorted(set(arrows) - done)}"
        done |= free


@pytest.mark.parametrize("name", LIGHT_ROOMS)
def test_what_runs_on_a_device_needs_little(name):
    pending = [m for m in MODULES if room(m) == name]
    seen = set()
    while pending:
        module = pending.pop()
        seen.add(module)
        for other in IMPORTS[module]:
            top = other.split(".")[0]
            if other in MODULES:
                pending += {other} - seen
            elif top not in LIGHT_PACKAGES:
                assert top in STANDARD, f"{module} imports {other}"


def test_experiments_and_conversion_are_for_scripts():
    for module, names in IMPORTS.items():
        floor = FLOOR.get(room(module), 0)
        for other in names & set(MODULES):
            if room(other) in ("experiments", "conversion") and module != other:
                scripts = floor == len(FLOORS) - 1
                assert scripts or room(module) == room(other), f"{module} -> {other}"


def test_public_names_are_where_the_front_door_says():
    import epnet_tf

    for name in epnet_tf.__all__:
        assert getattr(epnet_tf, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = epnet_tf.nothing
