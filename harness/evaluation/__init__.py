"""Evaluation of traces: metrics, exit policies, curves and statistics."""
