"""Accuracy, FLOPs and measured latency of early-exit and compressed encoders, under one interface."""

__version__ = "0.1.0"
