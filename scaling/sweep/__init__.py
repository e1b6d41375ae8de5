"""Grids of runs: which cells to train, and how they are launched."""
