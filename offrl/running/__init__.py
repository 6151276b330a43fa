"""Protocols, the runs that they expand into, and how runs are carried out."""
