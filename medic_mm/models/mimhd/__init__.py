"""MIM-HD and TinyMIM, in reading order: ``algorithm``, ``backbone``, ``head``,
``matching`` (which student head learns from which teacher head), ``decoder``."""
