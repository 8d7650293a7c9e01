"""Measuring texts: languages, signals, edits and signatures."""
