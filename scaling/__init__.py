"""Scaling laws, closed: train a grid of models, fit the frontier, plan and verify the next run."""

__version__ = "0.1.0"
