"""Figures computed from records and traces; formatting them is left to the report."""
