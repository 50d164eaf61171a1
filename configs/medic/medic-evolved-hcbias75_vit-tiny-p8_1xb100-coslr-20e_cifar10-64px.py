# Mask table: evolved masks, hierarchical clusters of nearby patches, 75 %.
#
# The paper speaks of hierarchical clustering "with relative position bias" and does not
# say what that is. Here the similarity of two clusters is lowered by their distance on
# the grid, as a share of its diagonal; the weight of 1 is this project's choice.
_base_ = './medic-evolved-hc75_vit-tiny-p8_1xb100-coslr-20e_cifar10-64px.py'

model = dict(masking=dict(clustering=dict(spatial_bias=1.0)))
