# Short name for the ViT-B/16 recipe.
_base_ = './medic_vit-base-p16_8xb256-amp-coslr-300e_in1k.py'
