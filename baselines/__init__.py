"""The published methods, and the encoder, losses and training loop that they share."""
