"""Filters without training: CTF and deconvolution."""
