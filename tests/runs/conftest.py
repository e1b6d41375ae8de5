"""Tables of a study on a known law, sound or spoiled."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Rows = list[list[Any]]


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Path]:
    """Writes a grid of 5 sizes and 4 lengths, with the losses of Besiroglu et al. 2024, as a CSV;
    `change` edits its rows of params, tokens, loss."""

    def written(
        *,
        name: str = "runs.csv",
        head: str = "params,tokens,loss",
        change: Callable[[Rows], Sequence[Sequence[Any]]] = lambda rows: rows,
        noise: float = 0.0,
    ) -> Path:
        rng = np.random.default_rng(0)
        rows: Rows = [
            [
                n,
                d,
                (1.8172 + 482.01 / n**0.3478 + 2085.43 / d**0.3658) * np.exp(rng.normal(0, noise)),
            ]
            for n in (1e8, 2e8, 4e8, 8e8, 1.6e9)
            for d in (2e9, 5e9, 1.3e10, 4e10)
        ]
        lines = [head, *(",".join(map(str, row)) for row in change(rows))]
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return written
