# UperNet on CamVid with the MEDiC student of laptop size, on a CPU.
_base_ = [
    '../../_base_/models/upernet_vit-tiny-p8.py',
    '../../_base_/datasets/camvid_bs8_240x176.py',
    '../../_base_/schedules/upernet_camvid_bs8_400i.py',
    '../../_base_/segmentation_runtime.py',
]

model = dict(
    data_preprocessor=dict(size=(176, 240)),
    backbone=dict(layer_scale_init_value=0.1),
    decode_head=dict(num_classes=11),
    auxiliary_head=dict(num_classes=11),
)
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(interval=_base_.max_iters)
)
