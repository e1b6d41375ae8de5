# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A scaling law in two minutes
#
# Train a tiny IsoFLOP grid on packaged text, fit a law, predict a larger run, train it, compare.
# At this size no power law holds yet, so expect the prediction to miss: `configs/quickstart.py`
# without `:tiny` is the measurement.
#
# This cell installs the package where it is missing (from the clone that the notebook lies in, else
# `scaling-laws` from the package index), then checks the versions and the device.

# %%
import importlib.util
import subprocess
import sys
from pathlib import Path

if importlib.util.find_spec("scaling") is None:
    above = [Path.cwd(), *Path.cwd().parents]
    clone = next((folder for folder in above if (folder / "tpu_setup.sh").exists()), None)
    source = str(clone) if clone else "scaling-laws"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)
    importlib.invalidate_caches()

import flax
import jax

import scaling
from scaling.provenance import devices

assert (3, 11) <= sys.version_info[:2] <= (3, 13), "use Python 3.11 to 3.13"
versions = f"scaling {scaling.__version__}, jax {jax.__version__}, flax {flax.__version__}"
print(f"{versions}: {devices()}")

# %% [markdown]
# ## The study
#
# A config is an ordinary function's result; a list of overrides changes any key of it. The same
# work directory again resumes what was interrupted.

# %%
from scaling import config

OVERRIDES: list[str] = []
WORKDIR = Path("runs/notebook")

loaded = config.load("configs/quickstart.py:tiny", OVERRIDES)
cells = loaded.grid(loaded.config)
for cell in cells:
    print(
        f"width {cell.model.width:3d}  {cell.budget.flops:.2e} FLOPs  {cell.budget.tokens:,} tokens"
    )

# %% [markdown]
# ## Train, fit, predict, verify

# %%
from rich.console import Console

from scaling.sweep.study import study
from scaling.sweep.workdir import claim

with claim(WORKDIR, config.plain(loaded.config)):
    study(loaded.config, cells, WORKDIR, console=Console())

# %% [markdown]
# ## What came out

# %%
from scaling.analysis.report import terminal_table

Console(width=110).print(terminal_table(WORKDIR))

# %%
from IPython.display import Image, display

for name in ("loss_curves", "isoflop", "frontier", "residuals"):
    display(Image(filename=str(WORKDIR / "figures" / f"{name}.png"), width=800))

# %% [markdown]
# ## A plan of your own
#
# The law predicts any size and budget, with the interval that one more run should fall in.

# %%
import json

from scaling.analysis.fitted import Law

law = Law.from_json(json.loads((WORKDIR / "law.json").read_text()))
best = law.optimum(1e12)
low, high = law.predict_interval(best.params, best.tokens)
print(f"1e12 FLOPs: {float(best.params):,.0f} parameters on {float(best.tokens):,.0f} tokens")
print(f"loss {float(best.loss):.3f}, 90% interval {float(low):.3f} to {float(high):.3f}")
