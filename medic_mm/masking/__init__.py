"""Masks as pure functions on tensors: bool ``(B, L)``, True = hidden."""
