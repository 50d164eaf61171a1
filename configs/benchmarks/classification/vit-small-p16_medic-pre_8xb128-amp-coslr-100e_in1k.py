# Fine-tuning of a MEDiC student, ViT-S/16. No source gives a recipe: ViT-B's, with the
# drop path of pre-training.
_base_ = './vit-base-p16_medic-pre_8xb128-amp-coslr-100e_in1k.py'

model = dict(
    backbone=dict(arch='deit-small', drop_path_rate=0.1),
    head=dict(in_channels=384),
)
