# Short name for the ViT-L/16 recipe.
_base_ = './medic_vit-large-p16_8xb256-amp-coslr-300e_in1k.py'
