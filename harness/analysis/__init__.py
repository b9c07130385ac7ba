"""Records and traces as figures; nothing here writes text."""
