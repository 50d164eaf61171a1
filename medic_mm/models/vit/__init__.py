"""What both methods need of a Vision Transformer."""
