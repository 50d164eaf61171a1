"""Backbones outside OpenMMLab: as timm networks, Hugging Face folders and ONNX files.

Needs torch and timm. OpenMMLab is needed only where one of its files is read: a
training checkpoint with its log history, a config file, an architecture given by name.
"""

from medic_mm.export.load import load_model

__all__ = ['load_model']
