"""MIM-HD and TinyMIM, in reading order: ``algorithm``, ``backbone``, ``head``,
``matching`` and ``adaptive`` (which student head learns from which teacher heads),
``decoder``."""
