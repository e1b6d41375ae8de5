"""What a number was made with: code, packages and devices."""

import hashlib
import importlib.metadata
import os
import platform
from pathlib import Path

import jax

import scaling

VERSIONED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "sentencepiece")


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of those that its numbers depend on."""
    return {
        "python": platform.python_version(),
        "scaling": scaling.__version__,
        **{package: importlib.metadata.version(package) for package in VERSIONED},
    }


def devices() -> str:
    """What JAX runs on, in words: "1 cpu (2 cores)", "8 NVIDIA H200"."""
    found = jax.devices()
    cores = f" ({os.cpu_count()} cores)" if found[0].platform == "cpu" else ""
    return f"{len(found)} {found[0].device_kind}{cores}"


def code_version() -> str:
    """The version with the first digits of a SHA-256 over the package's source, as in
    0.1.0+1f2e3d4c."""
    digest = hashlib.sha256()
    package = Path(scaling.__file__).parent
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{scaling.__version__}+{digest.hexdigest()[:8]}"
