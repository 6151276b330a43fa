"""Estimates from a score table, their intervals, and comparisons."""
