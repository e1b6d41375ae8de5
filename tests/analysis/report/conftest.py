"""Studies to report on: a work directory as a sweep leaves it, laws of other things, strangers."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

BUDGETS = (3e11, 5.5e11, 1e12, 1.8e12)
SIZES = (19_000, 34_000, 61_000, 107_000, 190_000, 330_000)
LAW = {"E": 1.51, "A": 82.0, "B": 240.0, "alpha": 0.4, "beta": 0.4}


def law_loss(params: Any, tokens: Any) -> Any:
    return LAW["E"] + LAW["A"] / params ** LAW["alpha"] + LAW["B"] / tokens ** LAW["beta"]


def best_size(flops: Any) -> Any:
    ratio, total = LAW["alpha"] * LAW["A"] / (LAW["beta"] * LAW["B"]), LAW["alpha"] + LAW["beta"]
    return ratio ** (1 / total) * (flops / 6) ** (LAW["beta"] / total)


def make_record(
    params: float, flops: float, *, loss: float, run_id: str, **other: Any
) -> dict[str, Any]:
    tokens = round(flops / (6 * params))
    record = {
        "schema": 1, "run_id": run_id, "status": "ok", "reason": None,
        "config": {"study": "quickstart", "data": {"languages": ["en", "fr", "es"]},
                   "model": {"params": params, "vocabulary": 512},
                   "optimizer": {"learning_rate": 0.02 * (1e5 / params) ** 0.25}, "seed": 0},
        "config_hash": "00ff", "params_total": params,
        "params_non_embedding": int(params * 0.8), "params_embedding": int(params * 0.2),
        "tokens": tokens, "unique_tokens": tokens, "epochs": 1.0, "flops_6nd": 6 * params * tokens,
        "flops_counted": 6.3 * params * tokens, "loss": loss, "loss_stderr": 0.004,
        "bits_per_byte": loss / math.log(2) / 2.1, "seed": 0,
        "learning_rate": 0.02 * (1e5 / params) ** 0.25, "batch_tokens": 2048,
        "wall_seconds": flops / 4e10 + 6, "train_seconds": flops / 4e10, "compile_seconds": 6.0,
        "tokens_per_second": tokens / (flops / 4e10), "mfu": None, "device_kind": "cpu",
        "device_count": 1, "versions": {"jax": "0.10.2", "flax": "0.12.8", "python": "3.11.7"},
        "code_version": "0.1.0", "created": "2026-11-24T10:00:00+00:00", "objective": "causal",
        "tokenizer_hash": "ab12", "data_hash": "cd34", "parent": None, "tuned": False,
        "null_reasons": {"mfu": "no peak is known for this cpu", "parent": "trained from scratch"},
    }  # fmt: skip
    return record | other


def make_metrics(record: dict[str, Any]) -> str:
    lines = []
    for index, part in enumerate(np.geomspace(0.02, 1.0, 14)):
        tokens = int(part * record["tokens"])
        reached = record["loss"] + (6.2 - record["loss"]) * math.exp(-3.2 * (part / 0.1) ** 0.45)
        lines.append(
            {"step": index, "tokens": tokens, "eval/validation/loss": reached,
             "eval/validation/bpb": reached / 1.45}
        )  # fmt: skip
    return "\n".join(json.dumps(line) for line in lines) + "\n"


def make_law(runs: list[dict[str, Any]]) -> dict[str, Any]:
    def interval(value: float, spread: float) -> list[float]:
        return [value * (1 - spread), value * (1 + spread)]

    residuals, budgets = [], []
    for run in runs:
        predicted = float(law_loss(run["params_total"], run["tokens"]))
        residuals.append(
            {"run_id": run["run_id"], "params": run["params_total"], "tokens": run["tokens"],
             "flops": run["flops_6nd"], "loss": run["loss"], "predicted": predicted,
             "residual": math.log(run["loss"] / predicted)}
        )  # fmt: skip
    for flops in BUDGETS:
        own = [run for run in runs if abs(run["flops_6nd"] / flops - 1) < 0.1]
        x = np.log([run["params_total"] for run in own])
        c0, c1, c2 = np.polynomial.polynomial.polyfit(x, [run["loss"] for run in own], 2).tolist()
        best = math.exp(-c1 / (2 * c2))
        lowest = c0 - c1**2 / (4 * c2)
        budgets.append(
            {"flops": flops, "n_runs": len(own),
             "interior": bool(min(np.exp(x)) < best < max(np.exp(x))), "params_opt": best,
             "tokens_opt": flops / (6 * best), "loss_opt": lowest, "coefficients": [c0, c1, c2],
             "interval_90": {"params_opt": interval(best, 0.17),
                             "loss_opt": interval(lowest, 0.003)}}
        )  # fmt: skip
    flops = np.geomspace(min(BUDGETS), 10 * max(BUDGETS), 60)
    params, centre = best_size(flops), math.log(7e11)
    tokens = flops / (6 * params)
    spread = 0.04 + 0.07 * np.abs(np.log(flops) - centre)
    loss = law_loss(params, tokens)
    return {
        "schema": 1, "law": "chinchilla", "equation": "L = E + A/params^alpha + B/tokens^beta",
        "params": LAW, "stderr": {name: 0.06 * value for name, value in LAW.items()},
        "interval_95": {name: interval(value, 0.12) for name, value in LAW.items()},
        "objective": {"name": "huber_log", "delta": 0.001, "value": 3.1e-4}, "n_runs": len(runs),
        "dropped": [{"run_id": "w120-1.8e12", "reason": "status diverged: loss rose to 9.1"}],
        "convention": {"params": "params_total", "tokens": "tokens", "flops": "flops_6nd",
                       "loss": "nats per token"},
        "diagnostics": {
            "starts": 4500, "share_best": 0.83, "second_basin_gap": None, "gradient_norm": 2.1e-12,
            "polish_gain": 3e-13, "identifiability": make_identifiability(),
            "residual_sd": 0.0041, "degrees_of_freedom": len(runs) - 5, "residuals": residuals,
            "trend": {"params": {"slope": 0.0004, "p_value": 0.62},
                      "flops": {"slope": -0.0011, "p_value": 0.31}},
            "warnings": ["The second budget has 5 runs; 6 or more make its minimum firmer."],
        },
        "isoflop": {"budgets": budgets,
                    "params_exponent": {"value": 0.51, "interval_90": [0.43, 0.58]}},
        "frontier": {
            "flops": flops.tolist(), "params": params.tolist(), "tokens": tokens.tolist(),
            "loss": loss.tolist(),
            "interval_90": {
                "params": [[p * (1 - s), p * (1 + s)] for p, s in zip(params, spread, strict=True)],
                "loss": [[v * (1 - s / 14), v * (1 + s / 14)]
                         for v, s in zip(loss, spread, strict=True)]}},
        "bootstrap": {
            "method": "residual", "n": 100, "seed": 0, "residual_sd": [0.004] * 100,
            "samples": {name: (value * np.random.default_rng(index).normal(1, 0.03, 100)).tolist()
                        for index, (name, value) in enumerate(LAW.items())}},
        "comparison": make_comparison(),
    }  # fmt: skip


def make_identifiability() -> dict[str, Any]:
    """All parameters have a valley with two walls, but E, which may as well be zero."""
    reach = np.array([-50, -20, -10, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 10, 20, 50])
    parameters = {}
    for name, value in LAW.items():
        x = value * np.exp(0.06 * reach) if name in "EAB" else value + 0.01 * reach
        rise = reach**2 / 2.0
        low, high = (float(np.interp(end, reach, x)) for end in (-1.96, 1.96))
        if name == "E":
            rise = np.where(reach < 0, np.minimum(rise, 1.1), rise)
        parameters[name] = {
            "at_the_middle": name in "AB", "value": value,
            "interval_95": [None if name == "E" else low, high],
            "profile": {"x": x.tolist(), "rise": rise.tolist()}, "identified": name != "E",
        }  # fmt: skip
    return {
        "condition": 4.2e3, "threshold": 1.92, "parameters": parameters, "not_identified": ["E"],
        "verdict": "not identified: E (only bounded above, by 1.69)",
    }  # fmt: skip


def make_comparison() -> dict[str, Any]:
    """Eight laws at three cuts; the last could not be fitted."""
    cuts = [{"flops": 1e12 / 1.8**i, "n_train": 15 - 5 * i, "n_test": 5 + 5 * i,
             "factor": 1.8 ** (i + 1)} for i in range(3)]  # fmt: skip
    names = ("chinchilla_tied", "chinchilla", "farseer", "kaplan", "over_training",
             "power_flops_floor", "bnsl", "width_depth")  # fmt: skip
    laws: list[dict[str, Any]] = []
    for rank, name in enumerate(names):
        known = name != "width_depth"
        errors = [
            {"rms": rms, "mean": -rms / 3, "interval_90": [0.8 * rms, 1.3 * rms]}
            for rms in (0.004 * (1 + 0.3 * rank) * cut["factor"] ** 0.6 for cut in cuts)
        ]
        laws.append({
            "law": name, "parameters": 4 + rank, "errors": errors if known else None,
            "by_factor": [{"from": 1.5 * 2**i, "to": 3.0 * 2**i, "n": 5, "mean": 0.001,
                           "rms": 0.004 * (1 + 0.3 * rank) * 1.6**i} for i in range(3)]
            if known else None,
            "score": 0.004 * (1 + 0.3 * rank) if known else None,
            "score_stderr": 0.0005 if known else None, "within": rank < 2, "converged": known,
            "from_flops": None, "reason": None if known else "the runs have no column width",
        })  # fmt: skip
    return {
        "cuts": cuts, "laws": laws, "chosen": "chinchilla_tied",
        "subset": {"from_flops": 5.5e11, "runs_dropped": 5, "dropped_budgets": [3e11],
                   "score_before": 0.006, "score_after": 0.004},
        "why": "it has the fewest parameters of those within one standard error of the best",
        "method": "200 Bayesian bootstraps of runs", "n_runs": 20,
    }  # fmt: skip


def make_accuracy() -> dict[str, Any]:
    """A law of a task, whose table has no sizes and no compute."""
    residuals = [
        {"run_id": f"run-{i}", "params": None, "tokens": None, "flops": None,
         "accuracy": 0.3 + 0.05 * i, "predicted": 0.3 + 0.05 * i - residual, "residual": residual}
        for i, residual in enumerate((0.01, -0.02, 0.004, 0.013, -0.007, 0.001))
    ]  # fmt: skip
    values = {"s": -0.6, "k": 5.0, "x_0": 2.6, "t": 0.9}
    return {
        "schema": 1, "law": "accuracy", "equation": "accuracy = t + s/(1 + exp(-k * (loss - x_0)))",
        "params": values, "stderr": values, "interval_95": {n: [0.0, 1.0] for n in values},
        "objective": {"name": "huber_identity", "delta": 0.01, "value": 1e-3}, "n_runs": 6,
        "dropped": [], "convention": {"loss": "loss"}, "isoflop": None, "frontier": None,
        "diagnostics": {"residual_sd": 0.01, "residuals": residuals, "warnings": [],
                        "identifiability": make_identifiability()},
        "bootstrap": {"method": "residual", "n": 9, "seed": 0},
    }  # fmt: skip


def make_plan(params: float, flops: float) -> dict[str, Any]:
    best = float(best_size(flops))
    loss = float(law_loss(params, flops / 6 / params))
    at_best = float(law_loss(best, flops / 6 / best))
    return {
        "schema": 1, "law": {"name": "chinchilla"}, "created": "2026-11-24T09:00:00+00:00",
        "targets": [{
            "flops": flops,
            "params": {"value": best, "interval_90": [best * 0.85, best * 1.2]},
            "tokens": {"value": flops / 6 / best,
                       "interval_90": [flops / 7 / best, flops / 5 / best]},
            "loss": {"value": at_best, "interval_90": [at_best * 0.99, at_best * 1.01]},
            "run": {"params": params, "tokens": round(flops / 6 / params), "flops": flops,
                    "loss": {"value": loss, "interval_90": [loss * 0.988, loss * 1.012]},
                    "batch_tokens": 2048.0, "steps": flops / 6 / params / 2048, "hours": 0.4,
                    "cost": None, "learning_rate": {"value": 0.02, "source": "a rule"}},
            "overrides": {"model.width": 88, "training.tokens": round(flops / 6 / params)},
            "binding": ["flops"],
        }],
        "null_reasons": {"cost": "no price was given"},
        "assumptions": ["FLOPs of training are 6 params tokens"],
        "next_runs": {
            "cells": [{"params": 3e5, "tokens": 4e6, "cost": 7.2e12, "runs": 2}], "cost": 1.44e13,
            "target": {"params": params, "tokens": flops / 6 / params, "loss": loss},
            "now": {"interval_90": [2.6, 2.67], "interval_90_of_a_run": [2.59, 2.68]},
            "expected": {"interval_90": [2.62, 2.65], "interval_90_of_a_run": [2.6, 2.67]},
        },
        "comparison": {
            "base": {"params": params, "tokens": flops / 6 / params, "flops": flops, "hours": 0.4,
                     "batch_tokens": 2048.0, "loss": loss},
            "factor": 2.0,
            "options": [
                {"name": f"2x the {name}", "params": params * more[0],
                 "tokens": flops / 6 / params * more[1], "flops": 2 * flops, "hours": 0.8,
                 "batch_tokens": 2048.0, "loss": loss - by,
                 "change": {"value": -by, "interval_90": [-1.2 * by, -0.8 * by]},
                 "best_in_samples": share, "within_limits": True}
                for name, more, by, share in (("parameters", (2, 1), 0.05, 0.0),
                                              ("tokens", (1, 2), 0.07, 0.1),
                                              ("time", (1.4, 1.4), 0.08, 0.9))
            ],
        },
    }  # fmt: skip


def write_study(workdir: Path, *, fitted: bool = True, planned: bool = True) -> Path:
    """A workdir as the quickstart leaves it: 4 budgets, 5 sizes each, one run diverged."""
    random = np.random.default_rng(0)
    runs = []
    for index, flops in enumerate(BUDGETS):
        for params in SIZES[index // 2 : index // 2 + 5]:
            loss = float(law_loss(params, flops / 6 / params)) * math.exp(random.normal(0, 0.004))
            run_id = f"p{params}-c{flops:.1e}".replace("+", "")
            runs.append(make_record(params, flops, loss=loss, run_id=run_id))
    lost = make_record(
        410_000, 1.8e12, loss=0.0, run_id="w120-1.8e12", status="diverged",
        reason="the training loss rose to 9.1 at step 140, above 6.2 at the start",
    )  # fmt: skip
    for field in ("loss", "loss_stderr", "bits_per_byte"):
        lost[field] = None
        lost["null_reasons"][field] = "the run diverged"
    written = [*runs, lost]
    if planned:
        target = make_record(190_000, 6e12, loss=2.621, run_id="planned-6.0e12",
                             created="2026-11-24T11:00:00+00:00")  # fmt: skip
        written.append(target)
        plan = make_plan(190_000, 6e12)
        predicted = plan["targets"][0]["run"]["loss"]
        verdict = {
            "schema": 1, "run_id": target["run_id"], "flops": 6e12, "params": 190_000,
            "tokens": target["tokens"], "predicted": predicted, "measured": target["loss"],
            "relative_error": predicted["value"] / target["loss"] - 1,
            "inside_interval": True,
            "optimal_params": plan["targets"][0]["params"],
        }  # fmt: skip
        (workdir / "plan.json").write_text(json.dumps(plan))
        (workdir / "verdict.json").write_text(json.dumps(verdict))
    if fitted:
        (workdir / "law.json").write_text(json.dumps(make_law(runs)))
    (workdir / "records").mkdir()
    for record in written:
        (workdir / "records" / f"{record['run_id']}.json").write_text(json.dumps(record))
        if record["status"] == "ok":
            folder = workdir / "runs" / record["run_id"]
            folder.mkdir(parents=True)
            (folder / "metrics.jsonl").write_text(make_metrics(record))
    return workdir


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&\"'\x1b[31m"


def write_hostile_study(workdir: Path) -> Path:
    write_study(workdir)
    record = make_record(
        61_000, 1e12, loss=3.2, run_id="stranger", status="ok", device_kind=HOSTILE,
        config={HOSTILE: HOSTILE}, code_version=HOSTILE, versions={HOSTILE: HOSTILE},
        null_reasons={"mfu": HOSTILE},
    )  # fmt: skip
    (workdir / "records" / "stranger.json").write_text(json.dumps(record))
    law = json.loads((workdir / "law.json").read_text())
    law |= {"equation": HOSTILE, "dropped": [{"run_id": HOSTILE, "reason": HOSTILE}]}
    law["diagnostics"]["warnings"] = [HOSTILE]
    law["diagnostics"]["residuals"][0]["run_id"] = HOSTILE
    (workdir / "law.json").write_text(json.dumps(law))
    return workdir


@pytest.fixture(scope="session")
def studies() -> SimpleNamespace:
    """How studies are made."""
    return SimpleNamespace(
        write=write_study, record=make_record, hostile=write_hostile_study, accuracy=make_accuracy
    )


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole study with its page, to be read and not changed."""
    # Not at the head of the file: pytest reads that before the session's settings for JAX.
    from scaling.analysis.evidence import read_evidence
    from scaling.analysis.report import render_page

    workdir = write_study(tmp_path_factory.mktemp("study"))
    page = render_page(read_evidence(workdir))
    (workdir / "report.html").write_text(page, encoding="utf-8")
    return workdir
