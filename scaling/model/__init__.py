"""Transformers whose weights are declared once, as letters of the alphabet in `scaling.axes`."""
