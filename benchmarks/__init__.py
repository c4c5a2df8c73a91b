"""What session-proxy costs, measured against named peers in one interleaved run.

``python -m benchmarks`` starts the contestants, a load generator and a target, each in processes of their
own, on loopback only. Rounds are interleaved (every contestant once, then again in rotated order), and each
ratio is the median of the ratios within a round, so that a machine that slows down slows both sides.
"""
