"""Measurements as ratios against a peer or a limit of the same run.

Each file runs alone: `python -m benchmarks.NAME`.
"""
