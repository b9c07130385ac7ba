"""Accuracy, FLOPs and measured latency of early-exit and compressed encoders, all in one tool."""

__version__ = "0.1.0"
