"""Score rows, the run store, and the labelled score table."""
