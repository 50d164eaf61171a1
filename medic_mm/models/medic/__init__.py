"""MEDiC; to be read in the order ``algorithm``, ``backbone``, ``head``."""
