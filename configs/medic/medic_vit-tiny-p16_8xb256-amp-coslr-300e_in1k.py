# MEDiC with a ViT-Ti/16 student. Not in the paper: ViT-B's recipe, no drop path.
_base_ = [
    '../_base_/models/medic_vit-tiny-p16.py',
    '../_base_/datasets/imagenet_bs256_medic.py',
    '../_base_/schedules/adamw_bs2048_coslr_300e.py',
    '../_base_/default_runtime.py',
]
