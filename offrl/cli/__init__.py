"""The command line; `main` runs it."""
