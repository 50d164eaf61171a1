# Short name for the ViT-Ti/16 recipe.
_base_ = './medic_vit-tiny-p16_8xb256-amp-coslr-300e_in1k.py'
