"""Measurements of speed: ratios within one run, since machines differ and are noisy."""
