# UperNet on ADE20K with a MEDiC student, ViT-B/16.
_base_ = [
    '../../_base_/models/upernet_vit-base-p16.py',
    '../../_base_/datasets/ade20k_bs2_512px.py',
    '../../_base_/schedules/upernet_medic_bs16_160k.py',
    '../../_base_/segmentation_runtime.py',
]

model = dict(backbone=dict(layer_scale_init_value=0.1))
