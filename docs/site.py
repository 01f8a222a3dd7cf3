"""The site's pages: texts where they lie in the repository, and the API reference.

The site has the folders of the repository, so that a link leads to the same place on it
as in a checkout. Besides the pages that mkdocs.yml names, it has every file that one of
them links.
"""

import ast
import os
import pathlib
import re
from collections.abc import Iterator

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import epnet_tf

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "epnet_tf"
# The page in a browser, which is there as it is.
DEMO = ROOT / "web_demo" / "site"
REFERENCE = "docs/reference"
# Rooms in the order in which a reader of the paper meets them; then the ground floor.
ROOMS = (
    "model",
    "objective",
    "training",
    "policies",
    "data",
    "conversion",
    "quantization",
    "runtime",
    "evaluation",
    "experiments",
    "tflite",
)
_LINK = re.compile(r"""(?:\]\(|\b(?:src|href)=")([^)\s"#?]+)""")
_CODE = re.compile(r"^( *)```.*?^\1```$|`[^`\n]+`", re.DOTALL | re.MULTILINE)


def public(module: str) -> list[str]:
    """The public classes and functions that a module defines, in its order."""
    file = ROOT / f"{module.replace('.', '/')}.py"
    return [
        node.name
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
        and not node.name.startswith("_")
    ]


def modules(room: str) -> list[str]:
    """The modules of a room that define something public, by their dotted names."""
    path = PACKAGE / room
    files = sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    names = [".".join(f.relative_to(ROOT).with_suffix("").parts) for f in files]
    return [name for name in names if public(name)]


def rooms() -> list[str]:
    """Every room with something public: those of `ROOMS`, then the others by name."""
    there = {path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py")}
    others = {name.removesuffix(".py") for name in there} - {*ROOMS, "__init__"}
    return [*ROOMS, *sorted(name for name in others if modules(name))]


def homes() -> dict[str, str]:
    """Every name that `import epnet_tf` offers, and the module that defines it."""
    found = {}
    for name in epnet_tf.__all__:
        room = epnet_tf._HOMES[name].split(".")[1]
        (found[name],) = (m for m in modules(room) if name in public(m))
    return found


def reference_pages() -> dict[str, str]:
    """The pages of the API reference: their paths, and what is in them."""
    lines = [f"- [`epnet_tf.{name}`][{home}.{name}]" for name, home in homes().items()]
    about = "What `import epnet_tf` offers; the other pages have all that is public.\n"
    pages = {f"{REFERENCE}/index.md": "\n".join(["# API reference", "", about, *lines])}
    for room in rooms():
        path = PACKAGE / room / "__init__.py"
        says = ast.get_docstring(ast.parse(path.read_text())) if path.exists() else ""
        names = (f"::: {module}" for module in modules(room))
        pages[f"{REFERENCE}/{room}.md"] = "\n\n".join([f"# {room}", says, *names])
    return pages


def links(page: str) -> Iterator[str]:
    """The files of the repository that a page links, by their paths."""
    text = (ROOT / page).read_text()
    for target in _LINK.findall(_CODE.sub("", text)):
        path = (ROOT / page).parent / target
        if path.is_file():
            yield os.path.relpath(path, ROOT)


def paths_in(nav: list | dict | str) -> list[str]:
    """The paths in a site's navigation, in order."""
    if isinstance(nav, str):
        return [nav]
    items = nav.values() if isinstance(nav, dict) else nav
    return [path for item in items for path in paths_in(item)]


def on_config(config: MkDocsConfig) -> None:
    """Adds to the navigation the pages that mkdocs.yml does not name."""
    named = paths_in(config.nav)
    there = (f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))
    if others := [page for page in there if page not in named]:
        config.nav.insert(-1, {"More": others})
    config.nav.insert(-1, {"API reference": [*reference_pages()]})


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Finds the site's files in the whole repository instead of one folder."""
    written = reference_pages()
    # Of one that is missing MkDocs says so.
    pages = [path for path in paths_in(config.nav) if (ROOT / path).is_file()]
    paths = {*pages, *(path for page in pages for path in links(page))}
    if DEMO.exists():
        demo = (path for path in DEMO.rglob("*") if path.is_file())
        paths |= {os.path.relpath(path, ROOT) for path in demo}
    found = [
        File.generated(config, path, abs_src_path=str(ROOT / path))
        for path in sorted(paths)
    ]
    made = [File.generated(config, path, content=t) for path, t in written.items()]
    theme = (file for file in files if file.src_dir != config.docs_dir)
    return Files([*theme, *found, *made])
