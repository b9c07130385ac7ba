"""Prediction with fitted models on texts without labels."""
