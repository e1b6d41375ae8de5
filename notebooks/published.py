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
# # Six published scaling laws, fitted again
#
# What comes out when the laws of six papers are fitted again to the runs that their authors
# published: whether it is what was printed, where a published fit had stopped above its minimum,
# and what the runs do not determine. [The study](../experiments/published/README.md) holds every
# number beside the published one with the rule by which it passes; here are its pictures.
#
# This cell finds the study in the clone that the notebook lies in, and installs the package where
# it is missing.

# %%
import importlib.util
import subprocess
import sys
from pathlib import Path

above = [Path.cwd(), *Path.cwd().parents]
STUDY = next((f / "experiments/published" for f in above if (f / "tpu_setup.sh").exists()), None)
assert STUDY, "open this notebook inside a clone of the repository: it draws the study's records"
if importlib.util.find_spec("scaling") is None:
    clone = str(STUDY.parent.parent)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", clone], check=True)
    importlib.invalidate_caches()

# %% [markdown]
# ## The runs
#
# The pictures are drawn from the study's records, which are in the clone. The runs themselves are
# not ours to ship. To fit everything again (some minutes), clone what the study's README lists into
# one folder, for example
#
#     !git clone -q https://github.com/epoch-research/analyzing-chinchilla runs/analyzing-chinchilla
#     !git clone -q https://github.com/mlfoundations/scaling runs/scaling
#     !git clone -q https://github.com/mcleish7/gemstone-scaling-laws runs/gemstone-scaling-laws
#     !git clone -q https://github.com/huggingface/datablations runs/datablations
#     !git clone -q https://github.com/allenai/OLMo-ladder runs/OLMo-ladder
#
# and name it in `DATA`. The new records lie in `OUT`; sections without runs are left out.

# %%
DATA = ""
OUT = "published-again"

sys.path.insert(0, str(STUDY))
import pictures

records = STUDY / "records"
if DATA:
    command = [sys.executable, str(STUDY / "study.py"), f"--data={DATA}", f"--out={OUT}"]
    subprocess.run(command)  # 1 where a number misses its rule: the table says which
    records = Path(OUT) / "records"

made = [name for name in pictures.PICTURES if (records / f"{name}.json").exists()]
found = {name: pictures.record(name, records) for name in made}
for record in found.values():
    ruled = [row for row in record["rows"] if row["passed"] is not None]
    missed = [row for row in ruled if not row["passed"]]
    print(f"{record['title']}: {len(ruled) - len(missed)} of {len(ruled)} pass")
    for row in missed:
        print(f"  misses: {row['what']}: {row['ours']}, published {row['published']}")


def picture(name):
    """The picture of a section, if it was run."""
    return pictures.PICTURES[name](found[name]) if name in found else f"{name} was not run"


# %% [markdown]
# ## 1. Chinchilla
#
# Hoffmann et al. 2022 printed parameters that ask for ever more tokens per parameter. Besiroglu et
# al. 2024 read 240 runs off figure 4 and refitted. The exact minimum lies a little beside their
# point, at 17.9 tokens per parameter for $5.76\times10^{23}$ FLOP. Right: one BFGS search for each
# resample, as published, gives the published standard errors to all digits; it stops early in 2% of
# the resamples, which costs 1.5% of the error of $B$ and next to nothing elsewhere.

# %%
picture("chinchilla")

# %% [markdown]
# ## 2. From Kaplan's exponent to Chinchilla's
#
# Porian et al. 2024 repeat Kaplan et al.'s experiment, and mend one thing after another: what
# counts as FLOP, warm-up, decay, the optimiser. Each point is the lowest point of Akima's curve
# through one budget, its bar the spread under seed noise; the exponents are those of the lines.

# %%
picture("porian")

# %% [markdown]
# ## 3. Over-training
#
# Gadre et al. 2024 fit five small runs and foretell two of some 300 times the compute. The law
# errs where tokens are few (dark points, 5 per parameter), not at the targets. The mean error of 17
# tasks is an exponential in the loss, to 0.8 points on average.

# %%
picture("gadre")

# %% [markdown]
# ## 4. Shapes
#
# McLeish et al. 2025 train 22 widths and depths. The same runs give powers of 0.46, 0.50 or 0.70
# for the optimal size, depending on whether one looks at the hull of the curves, their envelope, or
# a fitted law: none of their intervals should be believed before they agree. Right: how far the
# published objectives of Approach 3 were above the minimum. Four of seven searches had stopped
# early, all of them at a threshold of $10^{-4}$.

# %%
picture("gemstones")

# %% [markdown]
# ## 5. Repeated data
#
# In the law of Muennighoff et al. 2023 repeated tokens lose their worth after some $R_D^*$ epochs,
# and excess parameters theirs by $R_N^*$. A profile holds one constant still and lets the others
# follow; values under the dotted line are not excluded. With the law of unrepeated data held at
# the published one (blue), $R_D^*$ may be anything above 10: there are resamples that put it at its
# bound. With all seven parameters free (orange) it is 23 to 28, and the runs ask for no decay of
# excess parameters.

# %%
picture("datablations")

# %% [markdown]
# ## 6. Tasks
#
# Bhagia et al. 2024 chain two laws: size and tokens give bits per byte of the right answer, and
# those give accuracy. The interval is carried through both. What was foretold of the 7B model held
# in six tasks of eight; where it missed, the first law had put the bits per byte too high.

# %%
picture("ladder")
