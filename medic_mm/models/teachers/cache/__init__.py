"""Outputs of a frozen teacher, kept on disk for views that are drawn once."""
