"""XLA's persistent compile cache in a folder that only its owner can write."""

import hashlib
import os
import platform
import stat
from pathlib import Path
from typing import Any

import jax

HIT = "/jax/compilation_cache/cache_hits"
MISS = "/jax/compilation_cache/cache_misses"


class CompileCacheError(OSError):
    """The folder of the compile cache cannot be trusted; the message says why."""


class Lookups:
    """How many compilations found their program in the cache (`hits`), and how many did not
    (`misses`), since it was opened."""

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0

    def __call__(self, event: str, **_: Any) -> None:
        self.hits += event == HIT
        self.misses += event == MISS


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/scaling/xla`, or `~/.cache/scaling/xla`, and in it one folder for each kind
    of processor."""
    root = os.environ.get("XDG_CACHE_HOME")
    base = Path(root) if root and os.path.isabs(root) else Path.home() / ".cache"
    return base / "scaling" / "xla" / _processor()


def open_cache(folder: Path) -> Lookups:
    """Let compilations of this process look in `folder` first, and leave there what they made.

    Call before anything is compiled. A folder that JAX was already told to use, as by
    JAX_COMPILATION_CACHE_DIR, is left as it is; JAX_ENABLE_COMPILATION_CACHE=false turns all off.

    Raises:
      CompileCacheError: `folder` is no folder of this user's, or others can write to it: whoever
        writes there chooses what code this process runs.
      OSError: it could not be made.
    """
    lookups = Lookups()
    if not jax.config.values["jax_enable_compilation_cache"]:
        return lookups
    if jax.config.values["jax_compilation_cache_dir"] is None:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        for level in (folder.parent, folder):
            _check(level)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        # Programs of a small model compile in less than the second that JAX asks for, and loading
        # one is faster than compiling it however short that took.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    jax.monitoring.register_event_listener(lookups)
    return lookups


def _check(folder: Path) -> None:
    found = folder.lstat()
    remedy = (
        f"remove it, or name another with XDG_CACHE_HOME, or set runtime.compile_cache=False; "
        f"`chmod 700 {folder}` is enough where you trust what is in it"
    )
    if not stat.S_ISDIR(found.st_mode):
        raise CompileCacheError(
            f"{folder} is a link or a file; the compile cache must be a folder; {remedy}"
        )
    if found.st_uid != os.geteuid():
        raise CompileCacheError(
            f"{folder} belongs to user {found.st_uid}; the compile cache must belong to user "
            f"{os.geteuid()}; {remedy}"
        )
    if found.st_mode & 0o022:
        raise CompileCacheError(
            f"{folder} has mode {stat.S_IMODE(found.st_mode):o}, so that others can write what "
            f"this process would run; mode 700 is required; {remedy}"
        )


def _processor() -> str:
    """The processor's architecture and a digest of its features.

    A program compiled for one processor can stop another with an illegal instruction, and a home
    folder may be shared between machines.
    """
    features = [platform.processor()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        features += sorted(
            {line for line in lines if line.startswith(("flags", "Features", "model name"))}
        )
    digest = hashlib.sha256("\n".join(features).encode()).hexdigest()[:8]
    return f"{platform.machine()}-{digest}"
