"""Ways to carry out runs."""
