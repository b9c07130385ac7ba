"""The encoder of all methods, and its weights."""
