"""Coordinate check: does the size of activations stay the same at every width after five updates?

python experiments/2026-11-24-rate-transfer/coordinates.py WORKDIR     (measures, and draws)
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from scaling import cells
from scaling import config as configs
from scaling.files import write_json
from scaling.inputs import hyper_of
from scaling.model.parameterization import Parameterization
from scaling.model.transformer import Decoder
from scaling.workshop import Workshop

HERE = Path(__file__).parent
WIDTHS, BASE_WIDTH, HEAD_WIDTH, DEPTH = (64, 128, 256, 512, 1024), 64, 16, 2
STEPS, RATE, BATCH_TOKENS, SEEDS = 5, 2.0**-7, 1024, (0, 1)


def cell_of(name: str, width: int, seed: int) -> ConfigDict:
    config = configs.default()
    overrides = [
        f"model.width={width}",
        f"model.depth={DEPTH}",
        f"model.heads={width // HEAD_WIDTH}",
        f"model.feedforward_width={4 * width}",
        "model.tied=False",
        f"parameterization.name={name}",
        f"parameterization.base_width={BASE_WIDTH}",
        f"parameterization.base_depth={DEPTH}",
        f"parameterization.base_head_width={HEAD_WIDTH}",
        f"batch_tokens={BATCH_TOKENS}",
        f"budget.tokens={STEPS * BATCH_TOKENS}",
        "optimizer.name=adamw",
        "optimizer.schedule=constant",
        "optimizer.warmup_tokens=0",
        f"optimizer.learning_rate={RATE!r}",
        f"seed={seed}",
    ]
    configs.override(config, overrides)
    return cells.cell_of(config)


def activations(
    cell: ConfigDict, params: dict[str, jax.Array], batch: dict[str, jax.Array]
) -> dict[str, jax.Array]:
    """What every part puts out, by name."""
    size, kind = cells.size_of(cell), cells.architecture_of(cell)
    rules = Parameterization(lengths=size.lengths, tied=kind.tied, **cell.parameterization)
    model = Decoder(size, kind, rules, key=jax.random.key(0))
    graph, _ = nnx.split(model, nnx.Param)
    state = nnx.from_flat_state((tuple(name.split(".")), value) for name, value in params.items())
    model = nnx.merge(graph, state)
    x_BTD, turned = model.embed(batch)
    mask_BTS = model.mask(batch)
    found = {"embedding": x_BTD}
    blocks_graph, blocks = nnx.split(model.blocks)
    for layer in range(size.depth):
        block = nnx.merge(blocks_graph, jax.tree.map(lambda leaf, i=layer: leaf[i], blocks))
        branch = block.attention(block.attention_norm(x_BTD), turned, mask_BTS, "xla")
        found[f"attention {layer + 1}"] = branch
        x_BTD = x_BTD + branch
        branch = block.feedforward(block.feedforward_norm(x_BTD))
        found[f"feed-forward {layer + 1}"] = branch
        x_BTD = x_BTD + branch
    found["logits"] = model.logits(model.norm(x_BTD))
    return found


def measure(workdir: Path) -> list[dict[str, object]]:
    """Root mean square of what each part puts out after the updates, and of its change."""
    workshop, rows = Workshop(workdir), []
    for name in ("standard", "mup"):
        for width in WIDTHS:
            for seed in SEEDS:
                cell = cell_of(name, width, seed)
                program, stream = workshop.program(cell), workshop.stream(cell)
                state = program.init(jax.random.key(seed))
                probe = {key: jnp.asarray(value) for key, value in stream.batch(0).items()}
                before = activations(cell, state.params, probe)
                for step in range(STEPS):
                    state, _ = program.step(
                        state, program.put([stream.batch(step)]), hyper_of(cell)
                    )
                after = activations(cell, state.params, probe)
                for part, value in after.items():
                    row = {"parameterization": name, "width": width, "seed": seed, "part": part}
                    change = value - before[part]
                    rows.append(
                        row
                        | {
                            "size": float(jnp.sqrt(jnp.mean(jnp.square(value)))),
                            "change": float(jnp.sqrt(jnp.mean(jnp.square(change)))),
                        }
                    )
            print(name, width, flush=True)
    return rows


def slopes(rows: list[dict[str, object]], column: str) -> dict[str, dict[str, float]]:
    """Exponent of the width in each part's root mean square, by parameterization."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for name in ("standard", "mup"):
        for part in dict.fromkeys(row["part"] for row in rows):
            mine = [r for r in rows if r["parameterization"] == name and r["part"] == part]
            x = np.log2([r["width"] for r in mine])
            found[name][part] = float(np.polyfit(x, np.log2([r[column] for r in mine]), 1)[0])
    return found


def draw(rows: list[dict[str, object]]) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True, layout="constrained")
    parts = list(dict.fromkeys(row["part"] for row in rows))
    colors = plt.cm.tab10(np.arange(len(parts)))
    titles = {"standard": "standard", "mup": "muP"}
    for ax, (name, title) in zip(axes, titles.items(), strict=True):
        for part, color in zip(parts, colors, strict=True):
            mean = [
                np.mean([r["change"] for r in rows
                         if (r["parameterization"], r["part"], r["width"]) == (name, part, width)])
                for width in WIDTHS
            ]  # fmt: skip
            ax.plot(WIDTHS, mean, "o-", ms=3, color=color, label=part)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log", base=2)
        ax.set_xlabel("width")
        ax.set_title(title, fontsize=10)
    axes[0].set_ylabel(f"change after {STEPS} updates (rms)")
    axes[1].legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    for suffix in ("png", "svg"):
        fig.savefig(HERE / "figures" / f"coordinates.{suffix}", dpi=160)


if __name__ == "__main__":
    kept = HERE / "coordinates.json"
    if len(sys.argv) > 1:
        write_json(kept, measure(Path(sys.argv[1])))
    rows = json.loads(kept.read_text())
    (HERE / "figures").mkdir(exist_ok=True)
    for column in ("size", "change"):
        for name, by_part in slopes(rows, column).items():
            print(column, name, {part: round(value, 2) for part, value in by_part.items()})
    draw(rows)
