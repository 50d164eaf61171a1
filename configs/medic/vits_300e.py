# Short name for the ViT-S/16 recipe.
_base_ = './medic_vit-small-p16_8xb256-amp-coslr-300e_in1k.py'
