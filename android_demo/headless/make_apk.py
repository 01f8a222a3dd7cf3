"""Make a signed debug APK of what the Maven build has compiled.

Classes go through D8, resources and assets come from aapt2's archive, TFLite's
libraries from its AAR; uncompressed entries are aligned as zipalign does it, .so to
16 KB. Needs java, keytool and apksigner. Python's standard library alone.
"""

import os
import pathlib
import shutil
import struct
import subprocess
import zipfile

DEMO = pathlib.Path(__file__).resolve().parents[1]
HEADLESS = DEMO / "headless" / "target"
TARGET = DEMO / "app" / "target"
APK = TARGET / "epnet-demo-debug.apk"
ABIS = ("arm64-v8a", "armeabi-v7a", "x86_64")
MIN_SDK = 24

# zipalign's own id for an extra field that only fills up.
ALIGNMENT_FIELD = 0xD935
LOCAL_HEADER_BYTES = 30


def make_dex(folder: pathlib.Path) -> None:
    """Translates all classes that the app needs to Dalvik's format."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    own = [DEMO / "app" / "target" / "classes", DEMO / "engine" / "target" / "classes"]
    classes = [str(file) for root in own for file in sorted(root.rglob("*.class"))]
    libraries = [HEADLESS / name / "classes.jar" for name in ("tflite", "tflite-api")]
    libraries.append(HEADLESS / "fetched" / "kotlin-stdlib.jar")
    arguments = ["--debug", "--min-api", str(MIN_SDK), "--output", str(folder)]
    # android-all has Android's own classes, the JDK java.lang and the like.
    jdk = pathlib.Path(shutil.which("java")).resolve().parents[1]
    arguments += ["--lib", str(HEADLESS / "fetched" / "android-all.jar")]
    arguments += ["--lib", str(jdk)]
    # In a file: the list would be too long for a command line on some systems.
    listing = folder / "arguments.txt"
    listing.write_text("\n".join([*arguments, *classes, *map(str, libraries)]))
    d8 = [
        "java",
        "-cp",
        str(HEADLESS / "fetched" / "r8.jar"),
        "com.android.tools.r8.D8",
    ]
    subprocess.check_call([*d8, f"@{listing}"])


def entries(dex: pathlib.Path) -> list[tuple[str, bytes, int]]:
    """Name, content and compression of everything in the APK."""
    found = []
    with zipfile.ZipFile(TARGET / "res" / "resources.apk") as resources:
        for entry in resources.infolist():
            content = resources.read(entry)
            found.append((entry.filename, content, entry.compress_type))
    for file in sorted(dex.glob("*.dex")):
        found.append((file.name, file.read_bytes(), zipfile.ZIP_DEFLATED))
    for abi in ABIS:
        name = "libtensorflowlite_jni.so"
        library = HEADLESS / "tflite" / "jni" / abi / name
        content = library.read_bytes()
        found.append((f"lib/{abi}/{name}", content, zipfile.ZIP_STORED))
    return found


def write_aligned(file: pathlib.Path, content: list[tuple[str, bytes, int]]) -> None:
    """Writes a zip file whose uncompressed entries start where they can be mapped."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, data, compression in content:
            entry = zipfile.ZipInfo(name, (1981, 1, 1, 1, 1, 2))
            entry.compress_type = compression
            entry.external_attr = 0o644 << 16
            if compression == zipfile.ZIP_STORED:
                alignment = 16384 if name.endswith(".so") else 4
                start = archive.fp.tell() + LOCAL_HEADER_BYTES + len(name.encode())
                # The field has a header of 4 bytes itself.
                padding = -(start + 4) % alignment
                header = struct.pack("<HH", ALIGNMENT_FIELD, padding)
                entry.extra = header + bytes(padding)
            archive.writestr(entry, data)


def sign(aligned: pathlib.Path, apk: pathlib.Path) -> None:
    """Signs with a key made for debugging, as Android's own tools do, and verifies."""
    store = TARGET / "debug.p12"
    if not store.exists():
        command = ["keytool", "-genkeypair", "-keystore", str(store)]
        command += ["-storetype", "PKCS12", "-storepass", "android", "-alias", "debug"]
        command += ["-keyalg", "RSA", "-keysize", "2048", "-validity", "10000"]
        command += ["-dname", "CN=Android Debug,O=Android,C=US"]
        subprocess.run(command, check=True, capture_output=True)
    command = ["apksigner", "sign", "--ks", str(store), "--ks-pass", "pass:android"]
    usage = subprocess.run(
        ["apksigner", "sign", "--help"], capture_output=True, text=True
    )
    if "--alignment-preserved" in usage.stdout:
        command += ["--alignment-preserved", "true"]
    subprocess.check_call([*command, "--out", str(apk), str(aligned)])
    subprocess.check_call(["apksigner", "verify", str(apk)])


def misaligned(apk: pathlib.Path) -> list[str]:
    """Libraries in the APK that do not start at a multiple of 16 KB."""
    with zipfile.ZipFile(apk) as archive:
        found = []
        for entry in archive.infolist():
            archive.fp.seek(entry.header_offset + 26)
            name, extra = struct.unpack("<HH", archive.fp.read(4))
            start = entry.header_offset + LOCAL_HEADER_BYTES + name + extra
            if entry.filename.endswith(".so") and start % 16384:
                found.append(entry.filename)
    return found


def main() -> None:
    """Make the APK and say where it is."""
    make_dex(TARGET / "dex")
    aligned = TARGET / "aligned.apk"
    write_aligned(aligned, entries(TARGET / "dex"))
    sign(aligned, APK)
    aligned.unlink()
    if misaligned(APK):
        raise SystemExit(f"Not aligned to 16 KB: {misaligned(APK)}")
    print(f"{os.path.relpath(APK)}: {APK.stat().st_size / 1e6:.1f} MB, signed")


if __name__ == "__main__":
    main()
