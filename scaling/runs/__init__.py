"""Tables of finished runs: from a folder of records, or from anybody's JSON or CSV."""

from scaling.records import BadTable
from scaling.runs.names import COLUMNS, RECORD_COLUMNS
from scaling.runs.reading import NEEDED, load
from scaling.runs.table import Dropped, Runs

__all__ = ["COLUMNS", "NEEDED", "RECORD_COLUMNS", "BadTable", "Dropped", "Runs", "load"]
