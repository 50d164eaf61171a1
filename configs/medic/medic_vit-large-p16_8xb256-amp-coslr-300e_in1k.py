# MEDiC with a ViT-L/16 student. Not in the paper: ViT-B's recipe, drop path 0.2.
_base_ = [
    '../_base_/models/medic_vit-large-p16.py',
    '../_base_/datasets/imagenet_bs256_medic.py',
    '../_base_/schedules/adamw_bs2048_coslr_300e.py',
    '../_base_/default_runtime.py',
]
