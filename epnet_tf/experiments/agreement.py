"""What must be the same for all workers of a run."""

import hashlib
import importlib.metadata
import json
import pathlib

import epnet_tf
from epnet_tf import data
from epnet_tf.experiments.config import Config

# Their numerics and their graphs have to match.
_PACKAGES = ("tensorflow", "keras", "numpy")


def facts(config: Config, **flags) -> dict[str, str]:
    """What workers compare before they begin, by names for messages.

    Args:
        config: The configuration.
        **flags: Further flags that change what is computed.
    """
    values = config.as_json()
    values |= {f"--{name}": value for name, value in values.pop("schedule").items()}
    values |= {f"--{name}": value for name, value in flags.items()}
    versions = {
        f"version of {package}": importlib.metadata.version(package)
        for package in _PACKAGES
    }
    told = {name: json.dumps(value) for name, value in values.items()}
    told["files of --dataset (their SHA-256)"] = str(data.fingerprint(config.dataset))
    return told | versions | {"code of epnet_tf (its SHA-256)": _code_digest()}


def _code_digest() -> str:
    digest = hashlib.sha256()
    package = pathlib.Path(epnet_tf.__file__).parent
    for file in sorted(package.rglob("*.py")):
        digest.update(file.relative_to(package).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
