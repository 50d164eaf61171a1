"""Configs: read from files and options, checked before anything is built."""
