# ADE20K as TinyMIM does it: AdamW 1e-4, layer decay 0.75, the rest as for MEDiC.
#
# MIM-HD says no more than 'OpenMMLab, UperNet'. mmseg's MAE has layer decay 0.65,
# TinyMIM's ViT-Ti* has 0.8.
_base_ = './upernet_medic_bs16_160k.py'

optim_wrapper = dict(optimizer=dict(lr=1e-4))
