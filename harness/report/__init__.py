"""Reports: figures as text."""
