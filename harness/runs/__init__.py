"""Run cells and grids, from their specs to their records."""
