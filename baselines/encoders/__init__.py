"""The one encoder and its weights."""
