"""Measures, one a file: pure functions of what was found and what was wanted."""
