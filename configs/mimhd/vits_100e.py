# The short name of the ViT-S recipe.
_base_ = './mimhd_vit-small-p16_8xb320-amp-coslr-100e_in1k.py'
