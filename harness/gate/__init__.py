"""Comparison of stored runs with a baseline."""
