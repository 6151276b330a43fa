"""From a score table to a report."""
