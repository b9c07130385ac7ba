"""Stored runs against a baseline."""
