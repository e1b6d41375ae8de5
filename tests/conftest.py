"""The strict session: set before JAX starts, the same in every worker and every child process."""

import os
import re
import sys
import tempfile
from collections.abc import Mapping
from types import MappingProxyType

import hypothesis
import pytest

CACHE = "JAX_COMPILATION_CACHE_DIR"
USER_ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {name: value for name, value in os.environ.items() if name != CACHE}
)

hypothesis.settings.register_profile("house", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("house")


def pytest_configure(config: pytest.Config) -> None:
    """Choose JAX's devices and strictness by the environment, which children inherit."""
    if "jax" in sys.modules:
        raise pytest.UsageError(
            "jax was imported before the test session could set its devices; "
            "start pytest without the plugin that imports it (-p no:NAME)"
        )
    os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
    # What one process of the session has compiled, the others need not; a cache shared between
    # sessions would hide a slow or a failing compilation.
    if "PYTEST_XDIST_WORKER" not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="compiled-")
        config.add_cleanup(folder.cleanup)
        os.environ[CACHE] = folder.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"
    # Tests run in several processes at once: a thread pool in each would fight over the same cores.
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    if re.search(r"(?<!not )\bgpu\b", config.getoption("markexpr")):
        return
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = (
        "--xla_force_host_platform_device_count=8 --xla_cpu_multi_thread_eigen=false"
        # Tests compile much and compute little: half the time of the suite is LLVM's.
        " --xla_backend_optimization_level=0"
    )


@pytest.fixture
def user_environment() -> dict[str, str]:
    """The environment of the shell that started pytest: what a user's own command would see."""
    return dict(USER_ENVIRONMENT)
