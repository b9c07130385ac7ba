"""Arithmetic on traces."""
