# MEDiC with a ViT-S/16 student. Not in the paper: ViT-B's recipe.
_base_ = [
    '../_base_/models/medic_vit-small-p16.py',
    '../_base_/datasets/imagenet_bs256_medic.py',
    '../_base_/schedules/adamw_bs2048_coslr_300e.py',
    '../_base_/default_runtime.py',
]
