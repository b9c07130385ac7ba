"""Multi-exit models and the encoders they start from."""
