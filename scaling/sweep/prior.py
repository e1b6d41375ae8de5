"""What rules and laws say before anything is tried: where to look, and what is hopeless.

- *Home.* The rules of `scaling.sizes` (or a fitted law of the learning rate) say how a size is
  trained; its place on every axis is the home of the search.
- *Carrying.* A relative axis holds multiples of the rule, so that a trial keeps its multiples while
  it climbs, and its rates follow the width by rule, law or parameterization. With a law of the
  loss, a trial keeps its distance, in choices of `model.width`, from the law's best size.
- *Bar.* A trial whose loss is over `MARGIN` times what the law of the loss expects of a run of its
  size and tokens does not climb.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from scaling.analysis.fitted import Law
from scaling.config import ConfigError
from scaling.sweep.cells import Cell
from scaling.sweep.grid import Overrides, prod
from scaling.sweep.planned import nearest_shape
from scaling.sweep.rates import KEYS, check_law, predicted
from scaling.sweep.space import Rung, Search, resolved, value_of

MARGIN = 1.1
WIDTH = "model.width"


@dataclass(frozen=True)
class Prior:
    """The rules of a study's config, a law of the loss, and a law of the learning rate.

    Raises:
      ConfigError: a law of something else.
    """

    config: ConfigDict
    loss: Law | None = None
    rates: Law | None = None

    def __post_init__(self) -> None:
        for name, law, target in (
            ("--law", self.loss, "loss"),
            ("--rates", self.rates, "learning_rate"),
        ):
            if law is not None:
                check_law(law, target=target, where=name)

    def homes(self, search: Search, rung: Rung) -> dict[str, float]:
        """The place of the rules' own answer on every axis."""
        cell = resolved(self.config, rung.overrides)
        return {
            key: axis.home(self._best_width(rung) if key == WIDTH else self._rule(cell, key))
            for key, axis in search.space.items()
        }

    def setting(
        self, search: Search, rungs: list[Rung], rung: Rung, places: Mapping[str, float]
    ) -> Overrides:
        """The overrides of a trial on a rung: the rung's, values, and multiples of what the rules
        give for a run of these values.

        Raises:
          ConfigError: a key that the rung sets too, or values that make no run.
        """
        places = {**places, **self._carried(search, rungs[0], rung, places)}
        values = {key: axis.value(places[key]) for key, axis in search.space.items()}
        fixed = {key: x for key, x in values.items() if not search.space[key].relative}
        [whole] = prod([rung.overrides], [fixed])
        cell = resolved(self.config, whole)
        scaled: dict[str, Any] = {}
        for key in values.keys() - fixed.keys():
            rule = self._rule(cell, key)
            if not rule:
                raise ConfigError(
                    f"{key} is {rule} by rule, which has no multiples; give values, without times"
                )
            scaled[key] = round(values[key] * rule) if isinstance(rule, int) else values[key] * rule
        [found] = prod([whole], [scaled])
        return {key: found[key] for key in (*rung.overrides, *search.space)}

    def bound(self, cell: Cell) -> float | None:
        """The loss from which a run is hopeless; None without a law of the loss."""
        return None if self.loss is None else MARGIN * predicted(self.loss, cell)

    def _rule(self, cell: Cell, key: str) -> Any:
        ruled = value_of(cell, key)
        if self.rates is None or key not in KEYS:
            return ruled
        # A law is of the first rate; the second keeps its ratio to it.
        return ruled * predicted(self.rates, cell) / value_of(cell, KEYS[0])

    def _best_width(self, rung: Rung) -> int:
        """That of the law of the loss, else that of the config."""
        if self.loss is None:
            width: int = self.config.model.width
            return width
        best = float(self.loss.optimum(rung.flops).params)
        found: int = nearest_shape(self.config)(best, rung.flops).overrides[WIDTH]
        return found

    def _carried(
        self, search: Search, first: Rung, rung: Rung, places: Mapping[str, float]
    ) -> dict[str, float]:
        """The place of a trial's width, as far from the law's best size as on the first rung."""
        axis = search.space.get(WIDTH)
        if axis is None or self.loss is None:
            return {}
        moved = axis.home(self._best_width(rung)) - axis.home(self._best_width(first))
        return {WIDTH: min(max(places[WIDTH] + moved, 0), axis.end)}
