"""Measuring on the machine at hand: samples, raw limits beside them, what processes used, and a quick bench.

Owns what `dropr bench` and the repository's larger bench share. Nothing outside of them depends on it.
"""
