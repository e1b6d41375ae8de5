"""The report of a study: a page for the browser, figures for a paper, tables for the terminal.

Data flows one way: evidence (what a folder holds) -> exhibits (panels of series) and tables (text
cells) -> figures, charts, page and terminal, which draw them.
"""

from scaling.analysis.report.findings import headline
from scaling.analysis.report.page import render_page, write_report
from scaling.analysis.report.terminal import show, summarize, terminal_table

__all__ = ["headline", "render_page", "show", "summarize", "terminal_table", "write_report"]
