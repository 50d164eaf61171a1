# One's own images without labels, from one folder:
#   CONFIG=configs/medic/medic_vit-base-p16_8xb256-amp-coslr-300e_folder.py
#   tools/dist_train.sh $CONFIG 8 --cfg-options train_dataloader.dataset.data_root=PATH
_base_ = [
    '../_base_/models/medic_vit-base-p16.py',
    '../_base_/datasets/image_folder_bs256_medic.py',
    '../_base_/schedules/adamw_bs2048_coslr_300e.py',
    '../_base_/default_runtime.py',
]
