"""The compile cache: a second process compiles nothing, and what others could write is refused."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from scaling.train.compile_cache import CompileCacheError, default_folder, open_cache

PROGRAM = """
import json, sys
from pathlib import Path
import jax
import jax.numpy as jnp
from scaling.train.compile_cache import open_cache
lookups = open_cache(Path(sys.argv[1]))
def loss(w, x):
    for _ in range(12):
        x = jnp.tanh(x @ w) + jnp.sin(x)
    return x.sum()
w = jax.random.normal(jax.random.key(0), (24, 24))
gradient = jax.jit(jax.grad(loss))(w, jnp.ones((7, 24)))
json.dump({"hits": lookups.hits, "misses": lookups.misses,
           "gradient": [float(value).hex() for value in gradient.ravel()]}, sys.stdout)
"""


def compile_in_a_process(folder: Path, *, enabled: str = "true") -> dict[str, Any]:
    # The session's own cache is no user's.
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(folder)],
        capture_output=True, text=True, timeout=120, check=True,
        env=environment | {"JAX_ENABLE_COMPILATION_CACHE": enabled},
    )  # fmt: skip
    # Loading a program compiled for another processor would be told here.
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_a_second_process_finds_the_program_and_computes_the_same_bits(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "xla"
    first, second = compile_in_a_process(folder), compile_in_a_process(folder)
    assert first["hits"] == 0
    assert first["misses"] >= 1
    assert second["hits"] == first["misses"]
    assert second["misses"] == 0
    fresh = compile_in_a_process(folder, enabled="false")
    assert (fresh["hits"], fresh["misses"]) == (0, 0)
    assert fresh["gradient"] == second["gradient"] == first["gradient"]
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.fixture
def enabled() -> Iterator[None]:
    """As a user's process starts: a cache may be opened, and none is yet."""
    wanted = {"jax_enable_compilation_cache": True, "jax_compilation_cache_dir": None}
    before = {name: jax.config.values[name] for name in wanted}
    for name, value in wanted.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.usefixtures("enabled")
@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_folder_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "xla"
    folder.mkdir()
    folder.chmod(mode)
    tmp_path.chmod(0o700)
    with pytest.raises(CompileCacheError, match=rf"has mode {mode:o}, .* mode 700 is required"):
        open_cache(folder)
    assert jax.config.values["jax_compilation_cache_dir"] is None


@pytest.mark.usefixtures("enabled")
def test_a_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(CompileCacheError, match=f"belongs to user {owner}; .* {owner + 1}"):
        open_cache(tmp_path / "xla")


@pytest.mark.usefixtures("enabled")
def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "xla").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CompileCacheError, match="is a link or a file"):
        open_cache(tmp_path / "xla")


def test_the_folder_follows_the_users_cache_and_parts_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder().parent == tmp_path / "scaling" / "xla"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder().parent == tmp_path / ".cache" / "scaling" / "xla"
    assert len(default_folder().name.split("-")[-1]) == 8
