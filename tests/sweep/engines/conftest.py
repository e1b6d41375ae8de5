"""What both engines are held against."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """The losses of a local sweep, whatever became of the others."""
    from sweeps import local

    return local(tmp_path_factory.mktemp("local"))
