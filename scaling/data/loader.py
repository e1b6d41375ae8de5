"""Token files to batches: batch t is a pure function of (seed, t), so resuming needs no replay."""

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from scaling.data.tokenizer import END_OF_DOCUMENT

Batch = dict[str, np.ndarray]
Corruption = Callable[[Batch, np.random.Generator], Batch]
"""What an objective hides of a batch: see `scaling.data.corruption`."""
EVALUATION_SEED = 1 << 63
"""No run has it, so that what a measure hides is no copy of what training hid."""


class Windows:
    """A token file cut into windows of `context` targets; every token but the first is a target
    once."""

    def __init__(self, path: Path, *, context: int) -> None:
        self._tokens = np.load(path, mmap_mode="r", allow_pickle=False)
        self.context = context
        self.count = (len(self._tokens) - 1) // context
        if not self.count:
            raise ValueError(
                f"{path} has {len(self._tokens)} tokens, fewer than one window of {context} + 1; "
                "use more text or a shorter context"
            )

    def batch(self, windows: np.ndarray) -> Batch:
        """The batch of these windows: `tokens_BT`, `targets_BT` (the next tokens), `segments_BT`,
        `positions_BT` and `weights_BT` (1 where the loss counts)."""
        offsets_BT = windows[:, None] * self.context + np.arange(self.context + 1)[None]
        ids_BT = self._tokens[offsets_BT].astype(np.int32)
        tokens_BT, targets_BT = ids_BT[:, :-1], ids_BT[:, 1:]
        starts_BT = np.zeros_like(tokens_BT)
        starts_BT[:, 1:] = tokens_BT[:, :-1] == END_OF_DOCUMENT
        index_BT = np.broadcast_to(np.arange(self.context, dtype=np.int32), tokens_BT.shape)
        return {
            "tokens_BT": tokens_BT,
            "targets_BT": targets_BT,
            "segments_BT": np.cumsum(starts_BT, axis=1, dtype=np.int32),
            "positions_BT": index_BT - np.maximum.accumulate(index_BT * starts_BT, axis=1),
            "weights_BT": np.ones(tokens_BT.shape, np.float32),
        }


class TrainStream:
    """Shuffled windows, each used at most once; or `repeated` of them in epochs without end, each
    epoch in an order of its own."""

    def __init__(
        self,
        windows: Windows,
        *,
        batch_windows: int,
        seed: int,
        corrupt: Corruption | None = None,
        repeated: int | None = None,
    ) -> None:
        self._windows, self._seed, self._corrupt = windows, seed, corrupt
        self.rows, self._repeated = batch_windows, repeated
        self._order = np.random.default_rng(seed).permutation(windows.count)
        self.steps = sys.maxsize if repeated else windows.count // batch_windows
        self._epoch = functools.lru_cache(maxsize=2)(self._shuffled)

    def batch(self, step: int, *, rows: slice = slice(None)) -> Batch:
        """Batch number `step`, counted from 0, or those `rows` of it.

        Raises:
          IndexError: the stream is used up.
        """
        if not 0 <= step < self.steps:
            raise IndexError(
                f"batch {step} asked of a stream of {self.steps}; no window is used twice"
            )
        numbers = np.arange(step * self.rows, (step + 1) * self.rows)[rows]
        if self._repeated is None:
            chosen = self._order[numbers]
        else:
            epochs, places = np.divmod(numbers, self._repeated)
            chosen = np.array(
                [
                    self._epoch(int(epoch))[place]
                    for epoch, place in zip(epochs, places, strict=True)
                ]
            )
        batch = self._windows.batch(chosen)
        return _corrupted(batch, self._corrupt, seed=self._seed, numbers=numbers)

    def _shuffled(self, epoch: int) -> np.ndarray:
        """The windows that are repeated, the first in the order of a stream without repeats."""
        chosen = self._order[: self._repeated]
        return np.random.default_rng((self._seed, epoch)).permutation(chosen) if epoch else chosen


def evaluation(
    windows: Windows,
    *,
    batch_windows: int,
    limit: int | None = None,
    corrupt: Corruption | None = None,
) -> Iterator[Batch]:
    """Every window once, or `limit` spread evenly; the last batch is padded with weight 0.

    What `corrupt` hides of a window is the same for every run, whatever `batch_windows` and
    `limit`.
    """
    count = windows.count if limit is None else min(limit, windows.count)
    chosen = np.arange(count) * windows.count // count
    for start in range(0, count, batch_windows):
        rows = np.arange(start, start + batch_windows)
        numbers = chosen[np.minimum(rows, count - 1)]
        batch = windows.batch(numbers)
        batch["weights_BT"] *= (rows < count)[:, None].astype(np.float32)
        yield _corrupted(batch, corrupt, seed=EVALUATION_SEED, numbers=numbers)


def _corrupted(
    batch: Batch, corrupt: Corruption | None, *, seed: int, numbers: np.ndarray
) -> Batch:
    """Each window with a generator of its own, (seed, number), so that what is hidden of it does
    not depend on the windows beside it."""
    if corrupt is None:
        return batch
    windows = [
        corrupt(
            {name: value[row : row + 1] for name, value in batch.items()},
            np.random.default_rng((seed, int(number))),
        )
        for row, number in enumerate(numbers)
    ]
    return {name: np.concatenate([window[name] for window in windows]) for name in windows[0]}
