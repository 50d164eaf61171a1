# MEDiC as published: token + CLS + pixel, sparse, block masks of 40 %.
_base_ = [
    '../_base_/models/medic_vit-base-p16.py',
    '../_base_/datasets/imagenet_bs256_medic.py',
    '../_base_/schedules/adamw_bs2048_coslr_300e.py',
    '../_base_/default_runtime.py',
]
