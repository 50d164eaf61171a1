# Short name for the MaskDistill recipe.
_base_ = './maskdistill_vit-base-p16_8xb256-amp-coslr-300e_in1k.py'
