"""Simulated tomograms, of which the truth is known."""
