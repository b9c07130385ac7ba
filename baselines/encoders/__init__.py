"""The encoder and its weights."""
