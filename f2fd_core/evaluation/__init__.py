"""Scores against a reference."""
