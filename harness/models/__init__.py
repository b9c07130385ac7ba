"""Multi-exit models and the encoders that they start from."""
