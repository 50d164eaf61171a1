# The short name of the ViT-Ti recipe.
_base_ = './mimhd_vit-tiny-p16_8xb320-amp-coslr-100e_in1k.py'
