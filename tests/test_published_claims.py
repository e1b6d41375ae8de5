"""What the study of published runs says in words and in tables is what its records hold."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from scaling.analysis.chain import Chain, checkpoint_noise
from scaling.analysis.fitted import Interval

ROOT = Path(__file__).resolve().parent.parent
STUDY = ROOT / "experiments" / "published"
NOTEBOOKS = ROOT / "notebooks"

if not STUDY.exists():
    pytest.skip(f"{STUDY} is not shipped with the package", allow_module_level=True)

COUNTED = ("None", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight")


def kept(section: str) -> dict[str, Any]:
    """The numbers of a record."""
    found: dict[str, Any] = json.loads((STUDY / "records" / f"{section}.json").read_text("utf-8"))
    return found["numbers"]


def said() -> str:
    """The verdict of the README, in one line."""
    text = (STUDY / "README.md").read_text(encoding="utf-8")
    verdict = text.partition("## Verdict")[2].partition("\n## ")[0]
    assert verdict
    return " ".join(verdict.split())


def in_tables() -> dict[str, str]:
    """What we found, by what it is of, in the tables of the README."""
    lines = (STUDY / "README.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.split("|")] for line in lines if line.startswith("| ")]
    return {line[1]: line[2] for line in cells}


def names_of(tasks: Sequence[dict[str, Any]]) -> str:
    return ", ".join(task["task"] for task in tasks)


def test_the_readme_says_of_the_ladder_what_its_record_does() -> None:
    tasks = kept("ladder")["tasks"]
    yes = [task for task in tasks if task["predictable"]]
    held = [task for task in tasks if task["held"]]
    missed = [task for task in tasks if not task["held"]]
    doubts, noises = ([task[name] for task in tasks] for name in ("doubt", "noise"))
    text = said()
    for claim in (
        f"{COUNTED[len(yes)]} of eight tasks are predictable ({names_of(yes)})",
        f"The doubt ({min(doubts):.3f} to {max(doubts):.3f})",
        f"that noise ({min(noises):.3f} to {max(noises):.3f})",
        f"{COUNTED[len(held)]} of eight 90% predictions held ({names_of(missed)} missed)",
        f"mean {kept('ladder')['mean_error']:.2f}%",
        f"{names_of([task for task in yes if not task['held']])} is, and missed",
        "bits per byte of these two " + " and ".join(
            f"{100 * (task['predicted_bits'] / task['measured_bits'] - 1):.0f}%" for task in missed
        ) + " too high",
    ):  # fmt: skip
        assert claim in text
    noted = (NOTEBOOKS / "published.py").read_text(encoding="utf-8").replace("\n# ", " ")
    assert f"held in {COUNTED[len(held)].lower()} tasks of eight" in noted


def test_the_table_of_the_ladder_has_the_numbers_of_its_record() -> None:
    table = in_tables()
    for task in kept("ladder")["tasks"]:
        value, low, high = task["predicted"]
        foretold = table[f"{task['task']}: foretold, and its 90% interval"]
        assert foretold == f"{value:.3f}, {low:.3f} to {high:.3f}"
        word, change, doubt, noise, outcome = re.fullmatch(
            r"(yes|no): foretold change (\S+), doubt (\S+), checkpoint noise (\S+); (held|missed)",
            table[f"{task['task']}: predictable?"],
        ).groups()
        assert (word == "yes", outcome == "held") == (task["predictable"], task["held"])
        assert float(change) == pytest.approx(value - task["known"], abs=5.1e-4)
        assert float(doubt) == pytest.approx(task["doubt"], abs=5.1e-4)
        assert float(noise) == pytest.approx(task["noise"], abs=5.1e-5)


def test_the_verdicts_kept_of_the_ladder_are_those_that_the_code_gives() -> None:
    """The rule is run again on each task's kept prediction and on scores that have its noise."""
    shape = np.array([1.0, -1.0, 0.5, 0.0, -0.5, 1.0, -1.0, 0.5, 0.0, -0.5])
    for task in kept("ladder")["tasks"]:
        value, *ends = task["predicted"]
        scores = task["known"] + shape * (task["noise"] / checkpoint_noise(shape))
        of_record = SimpleNamespace(
            predict=lambda *_, value=value: value,
            predict_interval=lambda *_, ends=ends, level: Interval(*ends),
        )
        found = Chain.verdict(of_record, scores, 7e9, 4e12, measured=task["measured"], level=0.9)
        assert found.noise == pytest.approx(task["noise"])
        assert found.known == pytest.approx(task["known"])
        assert found.doubt == pytest.approx(task["doubt"])
        assert (found.predictable, found.held) == (task["predictable"], task["held"])
        # By hand: towards the largest small run, which stands lower in every task.
        assert task["known"] < value
        by_hand = np.hypot(value - ends[0], norm.ppf(0.95) * task["noise"])
        assert task["doubt"] == pytest.approx(by_hand)


def test_the_readme_says_of_the_gemstones_what_their_record_does() -> None:
    table, text = in_tables(), said()
    numbers = kept("gemstones")
    found = []
    for one, joined in zip(numbers["approaches"], ("by the hull", "by the envelope",
                                                   "by the fitted law"), strict=True):  # fmt: skip
        low, high = one["interval_95"]
        shown = f"{one['exponent']:.3f} ({low:.3f} to {high:.3f})"
        assert table[f"all rows, {one['approach']}: exponent of N (95% by whole runs)"] == shown
        assert f"{shown} {joined}" in text
        found.append((low, high))
    hull, envelope, law = found
    assert law[0] > max(hull[1], envelope[1])
    assert "its interval is apart from both" in text
    excess = [fit["published"] / fit["objective"] - 1 for fit in numbers["fits"]]
    early = sum(share > 1e-6 for share in excess)
    assert (f"{COUNTED[early].lower()} of the {COUNTED[len(excess)].lower()} published fits had "
            f"stopped early, by up to {100 * max(excess):.1f}%") in text  # fmt: skip


def test_the_readme_says_of_repeated_data_what_its_record_does() -> None:
    held, *_, free = (search["interval_95"] for search in kept("datablations")["searches"])
    assert held["R_D"][1] is None
    text = said()
    for claim in (
        f"determine R_D (above {held['R_D'][0]:.1f} at 95%, open above)",
        f"nor R_N to tenfold ({held['R_N'][0]:.1f} to {held['R_N'][1]:.1f})",
        f"R_D is {free['R_D'][0]:.0f} to {free['R_D'][1]:.0f}",
    ):
        assert claim in text
