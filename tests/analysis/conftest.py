"""Synthetic studies: an IsoFLOP grid around a known law, with seed noise on the log loss."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from scaling.runs import Runs


class Best(NamedTuple):
    """The compute optimum at a budget."""

    params: float
    tokens: float
    loss: float


@dataclass(frozen=True)
class Known:
    """A law with the losses and sizes of a grid that trains in minutes: 4 budgets x 5 sizes."""

    E: float = 1.6
    A: float = 60.0
    B: float = 200.0
    alpha: float = 0.35
    beta: float = 0.36

    @property
    def values(self) -> NDArray[np.float64]:
        return np.array([self.E, self.A, self.B, self.alpha, self.beta])

    @property
    def budgets(self) -> NDArray[np.float64]:
        return 3e11 * 1.8 ** np.arange(4)

    def optimum(self, flops: float) -> Best:
        G = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        params = G * (flops / 6) ** (self.beta / (self.alpha + self.beta))
        tokens = flops / 6 / params
        return Best(params, tokens, self.loss(params, tokens))

    def loss(self, params, tokens):
        return self.E + self.A / params**self.alpha + self.B / tokens**self.beta

    def runs(self, *, noise: float = 0.0, seed: int = 0) -> Runs:
        rng = np.random.default_rng(seed)
        params = np.concatenate(
            [self.optimum(flops).params * np.geomspace(1 / 4, 4, 5) for flops in self.budgets]
        )
        flops = np.repeat(self.budgets, 5)
        tokens = flops / 6 / params
        loss = self.loss(params, tokens) * np.exp(rng.normal(0, noise, params.size))
        names = tuple(f"run-{i}" for i in range(params.size))
        return Runs(run_id=names, params=params, tokens=tokens, loss=loss, flops=flops)


@pytest.fixture(scope="session")
def known() -> Known:
    return Known()
