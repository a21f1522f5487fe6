"""Sweeps on a Ray cluster: `cluster` finds its machines, `launcher` starts populations on them."""
