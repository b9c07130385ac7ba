"""Measurements that run the model: traces, MACs and latency."""
