"""Methods: their protocol, their table, their settings and the fitting of their stages."""
