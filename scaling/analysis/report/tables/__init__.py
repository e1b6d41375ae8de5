"""The tables of a study, as plain text cells, for the browser and for the terminal alike."""

from scaling.analysis.report.tables.approaches import approach_table
from scaling.analysis.report.tables.laws import (
    comparison_table,
    diagnostic_table,
    law_table,
    minimum_table,
    profile_table,
    proof_table,
)
from scaling.analysis.report.tables.plans import (
    alternative_table,
    next_table,
    plan_table,
    recipe_table,
)
from scaling.analysis.report.tables.runs import (
    config_table,
    fitted_table,
    lost_table,
    missing_table,
    origin_table,
    run_table,
)
from scaling.analysis.report.tables.table import Cell, Entry, Table, between, signed_percent

__all__ = [
    "Cell",
    "Entry",
    "Table",
    "alternative_table",
    "approach_table",
    "between",
    "comparison_table",
    "config_table",
    "diagnostic_table",
    "fitted_table",
    "law_table",
    "lost_table",
    "minimum_table",
    "missing_table",
    "next_table",
    "origin_table",
    "plan_table",
    "profile_table",
    "proof_table",
    "recipe_table",
    "run_table",
    "signed_percent",
]
