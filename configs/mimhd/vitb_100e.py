# The short name of the ViT-B recipe.
_base_ = './mimhd_vit-base-p16_8xb320-amp-coslr-100e_in1k.py'
