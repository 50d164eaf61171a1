"""Networks, heads and losses. :mod:`medic_mm.models.components` registers them all."""
