"""MIM-HD and TinyMIM, in reading order: ``algorithm``, ``backbone``, ``head``,
``matching`` (which student head learns from which teacher heads), ``adaptive`` (the same
with learned weights), ``decoder``."""
