"""Simulators, and policies that are played in them."""
