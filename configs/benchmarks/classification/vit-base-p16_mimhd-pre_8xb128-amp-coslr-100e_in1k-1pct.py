# Fine-tuning of a MIM-HD student on 1 % of ImageNet-1K: 13 images of each
# class, drawn by their names.
#
# Published numbers use the lists of SimCLR: `train_dataloader.dataset.per_class=None`
# and `train_dataloader.dataset.ann_file=LIST` (lines of `path class`) take those.
_base_ = './vit-base-p16_mimhd-pre_8xb128-amp-coslr-100e_in1k.py'

train_dataloader = dict(dataset=dict(per_class=13))
