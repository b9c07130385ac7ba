"""A fitted model on texts without labels."""
