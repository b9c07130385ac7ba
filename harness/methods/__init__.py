"""What a method is, and how its stages are fitted."""
