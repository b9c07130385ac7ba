"""Text made of figures."""
