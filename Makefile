PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: install demo results test test-slow test-installation lint

install: $(VENV)/installed

# Another Python would fail minutes later, over a package that it cannot have.
$(VENV)/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; found = sys.version_info[:2]; \
	    (3, 11) <= found <= (3, 13) or sys.exit("Expected Python 3.11 to 3.13, such as \
	with PYTHON=python3.12 behind make. Received: %d.%d." % found)'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet -r requirements.txt
	$(RUN) -m pip install --quiet --no-deps --editable .
	touch $@

# The main job on embedded data: train, sweep beta, convert to int8, stop early.
demo: install
	$(RUN) train.py --dataset=digits --workdir=runs/demo --controller_seeds=3 \
	    --beta=1e-6 --beta=2e-6 --beta=4e-6
	$(RUN) convert.py --model=runs/demo/beta-2e-06/model.keras --dataset=digits \
	    --output=runs/demo/bundle --overwrite
	$(RUN) -m epnet_tf.run runs/demo/bundle examples/*.png

# Every table and figure on the real data sets, from the trained models.
results: install
	$(RUN) evaluate.py --workdir=models/maxmin --results=results --budget=45% \
	    --max_accuracy_drop=1
	$(RUN) evaluate.py --workdir=models/multiscale --results=results --budget=45% \
	    --max_accuracy_drop=2.5
	$(RUN) evaluate.py --workdir=models/cifar10 --results=results --budget=45% \
	    --max_accuracy_drop=2.5
	$(RUN) benchmarks/parts.py
	$(RUN) benchmarks/field.py

# What trained networks take, from Python and on the JVM, where nothing else runs.
.PHONY: times
times: install
	android_demo/build.sh latency
	$(RUN) benchmarks/times.py --workdir=models/maxmin --workdir=models/multiscale \
	    --workdir=models/cifar10 --jvm=android_demo/engine/target/latency.json

test: install
	$(RUN) -m pytest

# The same tests in two parts, for two cores: see .ci/run.
.PHONY: test-first test-second
test-first: install
	$(RUN) -m pytest tests/test_[a-p]*.py

test-second: install
	$(RUN) -m pytest tests/test_[!a-p]*.py

test-slow: install
	$(RUN) -m pytest -m slow

# Wheel and source distribution in fresh environments: runtime, train, qat.
test-installation: install
	$(RUN) -m pytest -m slow tests/test_installation.py

# Every command and code block of README and the pages, in small.
.PHONY: test-documents
test-documents: install
	$(RUN) -m pytest -m "slow or not slow" --durations=0 tests/test_documents.py

# The site, as plain files in build/site.
.PHONY: docs
docs: install
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

lint: install
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# The Android app, without a phone: see android_demo/README.md.
.PHONY: android android-arm64 android-soak

android:
	android_demo/build.sh

android-arm64:
	android_demo/build.sh arm64

# One file that stops by itself, from C, Java, Kotlin, Python and JavaScript.
.PHONY: one-file
one-file:
	android_demo/build.sh one-file

# The long soak and mutation tests and the latency table, on a quiet machine.
android-soak:
	android_demo/build.sh soak

# The page in web_demo/site, which needs no build to be opened: see docs/browser.md.
# Its build and tests need Node from 20 on, npm and Chromium.
.PHONY: web web-build web-bundles web-times
WEB_PACKAGES := web_demo/node_modules/.package-lock.json
WEB_ANSWERS := web_demo/build/answers/made
WEB_TOOL := PYTHONPATH=android_demo/tools $(RUN) web_demo/tools

# Checks that site/ is what the sources make, and tests it in Chromium.
web: install $(WEB_PACKAGES) $(WEB_ANSWERS)
	npm --prefix web_demo run check
	npm --prefix web_demo test

web-build: $(WEB_PACKAGES)
	npm --prefix web_demo run build

# How fast the page is, on a quiet machine.
web-times: $(WEB_PACKAGES)
	npm --prefix web_demo run times

# The page's bundles, from the trained models.
web-bundles: install $(WEB_PACKAGES)
	$(WEB_TOOL)/make_bundles.py --model=models/maxmin/model.keras --dataset=maxmin
	$(WEB_TOOL)/make_bundles.py --model=models/cifar10-five-exits/model.keras \
	    --dataset=cifar10
	npm --prefix web_demo run build

# Another bundle for photos into app and page, with a few pictures that it was tested on:
# make photo-bundle BUNDLE=runs/photos/photos-1.2e-07 PICTURES=runs/photos/pictures
.PHONY: photo-bundle
photo-bundle: install $(WEB_PACKAGES)
	$(RUN) android_demo/tools/package_bundles.py --collection=photos --count=20 \
	    --dataset=$(PICTURES) $(BUNDLE)
	$(WEB_TOOL)/copy_photos.py
	npm --prefix web_demo run build

$(WEB_PACKAGES): web_demo/package-lock.json
	npm --prefix web_demo ci --silent
	touch $@

$(WEB_ANSWERS): web_demo/tools/make_answers.py models/maxmin/model.keras \
    $(wildcard web_demo/site/bundles/*/epnet.json) | install
	$(WEB_TOOL)/make_answers.py
	touch $@
