"""The published methods, with the encoder, losses and training loop that they share."""
