"""Figures of estimates: functions that take and return a matplotlib Axes."""
