"""Run folders of ``tools/train.py``: read, judged, drawn, and shown as one page."""
