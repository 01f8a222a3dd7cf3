"""The Gradle project, which cannot be run everywhere, checked against its sources."""

import pathlib
import re
import tomllib
import xml.etree.ElementTree as ElementTree

import pytest

DEMO = pathlib.Path(__file__).resolve().parents[1] / "android_demo"
ANDROID = "{http://schemas.android.com/apk/res/android}"
MAVEN = "{http://maven.apache.org/POM/4.0.0}"
MODULES = ("engine", "app")


def script(name: str) -> str:
    """A Gradle script without comments."""
    return re.sub(r"//[^\n\"]*\n", "\n", (DEMO / name).read_text())


def catalogue() -> dict:
    return tomllib.loads((DEMO / "gradle" / "libs.versions.toml").read_text())


def maven_property(name: str) -> str:
    root = ElementTree.parse(DEMO / "pom.xml").getroot()
    return root.find(f"{MAVEN}properties/{MAVEN}{name}").text


def test_coordinates():
    versions = catalogue()["versions"]
    assert versions == {"agp": "8.9.1", "kotlin": "2.2.21", "litert": "1.4.2"}
    litert = catalogue()["libraries"]["litert"]
    assert litert["module"] == "com.google.ai.edge.litert:litert"
    plugins = {p["id"] for p in catalogue()["plugins"].values()}
    assert plugins == {
        "com.android.application",
        "com.android.library",
        "org.jetbrains.kotlin.android",
    }


def test_every_alias_is_in_the_catalogue_and_used():
    known = {"libs." + n.replace("-", ".") for n in catalogue()["libraries"]}
    known |= {"libs.plugins." + n.replace("-", ".") for n in catalogue()["plugins"]}
    scripts = [script("build.gradle.kts")]
    scripts += [script(f"{module}/build.gradle.kts") for module in MODULES]
    used = set(re.findall(r"libs(?:\.\w+)+", "".join(scripts)))
    assert used == known


def test_versions_are_those_that_maven_compiles_with():
    assert maven_property("kotlin.version") == catalogue()["versions"]["kotlin"]
    jvm = maven_property("kotlin.compiler.jvmTarget")
    for module in MODULES:
        text = script(f"{module}/build.gradle.kts")
        assert f"JvmTarget.JVM_{jvm}" in text
        assert text.count(f"JavaVersion.VERSION_{jvm}") == 2


def test_modules():
    assert re.search(r'include\(":engine", ":app"\)', script("settings.gradle.kts"))
    assert 'project(":engine")' in script("app/build.gradle.kts")
    assert "alias(libs.plugins.android.library)" in script("engine/build.gradle.kts")
    assert "alias(libs.plugins.android.application)" in script("app/build.gradle.kts")
    assert "libs.litert" in script("engine/build.gradle.kts")


@pytest.mark.parametrize("module", MODULES)
def test_namespace_is_the_package_of_every_source(module):
    text = script(f"{module}/build.gradle.kts")
    namespace = re.search(r'namespace = "([\w.]+)"', text)[1]
    sources = DEMO / module / "src" / "main" / "kotlin"
    files = sorted(sources.rglob("*.kt"))
    assert files
    for file in files:
        assert f"package {namespace}\n" in file.read_text()
        assert file.parent == sources.joinpath(*namespace.split("."))
    assert re.search(r"minSdk = 24\b", text)
    assert re.search(r"compileSdk = 35\b", text)


def test_app_settings():
    text = script("app/build.gradle.kts")
    assert 'noCompress += "tflite"' in text
    assert 'applicationId = "ai.epnet.demo"' in text
    abis = re.search(r"abiFilters \+= listOf\(([^)]*)\)", text)[1]
    assert re.findall(r'"([^"]+)"', abis) == ["arm64-v8a", "armeabi-v7a", "x86_64"]
    maven = (DEMO / "app" / "pom.xml").read_text()
    assert "--min-sdk-version 24" in maven


def test_manifest_names_classes_and_resources_that_exist():
    main = DEMO / "app" / "src" / "main"
    root = ElementTree.parse(main / "AndroidManifest.xml").getroot()
    # The package comes from Gradle's namespace; AGP 8 refuses it in the manifest.
    assert "package" not in root.attrib
    for activity in root.iter("activity"):
        name = activity.get(f"{ANDROID}name")
        assert name.startswith(".")
        assert (main / "kotlin" / "ai" / "epnet" / "demo" / f"{name[1:]}.kt").is_file()
    defined = set()
    for file in (main / "res").rglob("*.xml"):
        if file.parent.name.startswith("values"):
            defined |= {item.get("name") for item in ElementTree.parse(file).getroot()}
        else:
            defined.add(file.stem)
    text = (main / "AndroidManifest.xml").read_text()
    for _, name in re.findall(r'"@(\w+)/(\w+)"', text):
        assert name in defined


def test_texts_are_in_resources():
    layouts = (DEMO / "app" / "src" / "main" / "res").rglob("layout*/*.xml")
    for layout in layouts:
        for element in ElementTree.parse(layout).iter():
            for attribute in ("text", "contentDescription", "hint"):
                value = element.get(ANDROID + attribute)
                assert value is None or value.startswith("@string/")


def test_night_colours_are_those_of_the_day():
    def names(folder: str) -> set[str]:
        file = DEMO / "app" / "src" / "main" / "res" / folder / "colors.xml"
        return {item.get("name") for item in ElementTree.parse(file).getroot()}

    assert names("values") - names("values-night") == {"launcher_background"}
    assert names("values-night") <= names("values")
