"""Put the app's bundle for photos, and its test images, into the page.

    PYTHONPATH=android_demo/tools python web_demo/tools/copy_photos.py

replaces web_demo/site/bundles/photos with what package_bundles.py has put into the app.
"""

import shutil

import make_bundles
import package_bundles


def main() -> None:
    """Copies."""
    assets = package_bundles.FOLDERS["photos"]
    [name] = (assets / "bundles" / "names.txt").read_text().split()
    page = make_bundles.BUNDLES / "photos"
    shutil.rmtree(page, ignore_errors=True)
    shutil.copytree(assets / "bundles" / name, page)
    images = assets / "test_images"
    shutil.copy(images / "images.json", page)
    make_bundles.write_packed((images / "images.bin").read_bytes(), page)


if __name__ == "__main__":
    main()
