"""The quickstart, behind ``tools/quickstart.py``."""
