"""The site: it is whole, needs no other host, and its reference has what is public."""

import html.parser
import importlib
import inspect
import os
import pathlib
import re
import subprocess
import sys
import urllib.parse

import pytest

import epnet_tf

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built; a page, link or anchor that is missing ends the build."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


class Page(html.parser.HTMLParser):
    """The ids of a page, what it links, and what it loads."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loads = set(), [], []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids |= {values.get("id"), values.get("name")} - {None}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(values["href"])
        elif "src" in values:
            self.loads.append(values["src"])


def is_elsewhere(url):
    url = url.strip("\"'")
    has_host = urllib.parse.urlsplit(url).scheme or url.startswith("//")
    return bool(has_host) and not url.startswith("data:")


@pytest.fixture(scope="module")
def pages(site):
    """Our pages, by their paths; 404.html is the theme's."""
    paths = (path for path in site.rglob("*.html") if path.name != "404.html")
    return {path: Page(path) for path in paths}


def test_every_link_leads_somewhere(site, pages):
    for path, page in pages.items():
        for link in (*page.links, *page.loads):
            url = urllib.parse.urlsplit(link)
            if is_elsewhere(link) or not (url.path or url.fragment):
                continue
            target = (path.parent / urllib.parse.unquote(url.path)).resolve()
            target = path if not url.path else target
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{path.relative_to(site)}: {link}"
            if url.fragment and target in pages:
                assert url.fragment in pages[target].ids, f"{path.name}: {link}"


def test_nothing_is_loaded_from_elsewhere(site, pages):
    for path, page in pages.items():
        elsewhere = [url for url in page.loads if is_elsewhere(url)]
        assert not elsewhere, f"{path.relative_to(site)}: {elsewhere}"
    for path in (site / "assets").rglob("*.css"):
        for url in re.findall(r"url\(([^)]+)\)|@import", path.read_text()):
            assert not is_elsewhere(url), path


def public_objects():
    """The public functions and classes of every module of the package."""
    for path in sorted((ROOT / "epnet_tf").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__init__":
            continue
        text = path.read_text()
        for name in re.findall(r"^(?:def|class) ([A-Za-z]\w*)", text, re.MULTILINE):
            yield ".".join([*parts, name])


def test_the_reference_has_all_that_is_public_and_nothing_that_is_private(site, pages):
    ids = {i for page in pages.values() for i in page.ids if i.startswith("epnet_tf.")}
    expected = set(public_objects())
    assert len(expected) > 300 and expected <= ids
    private = {i for i in ids if any(part.startswith("_") for part in i.split("."))}
    assert not private
    # What is imported from elsewhere is documented there.
    modules = {name.rpartition(".")[0] for name in expected}
    for name in ids - expected - modules:
        assert name.rpartition(".")[0] in ids | {"epnet_tf"}, name


def test_the_reference_leads_from_the_front_door_to_every_name(site, pages):
    links = pages[site / "docs/reference/index.html"].links
    for name in epnet_tf.__all__:
        home = inspect.unwrap(getattr(epnet_tf, name)).__module__
        assert getattr(importlib.import_module(home), name)
        anchors = {link.partition("#")[2] for link in links}
        assert f"{home}.{name}" in anchors
