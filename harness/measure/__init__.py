"""What needs the model: traces, MACs, latency."""
