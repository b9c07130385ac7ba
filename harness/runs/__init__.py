"""Cells and grids: from what is asked for to records."""
