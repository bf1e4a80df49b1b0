"""Benchmarks through lm-evaluation-harness: the model that it runs, published settings, and what they would cost.

Nothing here imports lm-eval before an evaluation begins: that takes seconds, and it is optional.
"""
