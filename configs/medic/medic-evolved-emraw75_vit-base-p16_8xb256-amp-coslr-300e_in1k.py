# Mask table: evolved masks, clusters by EM, 75 %, on the released code's descriptors.
#
# The released code does not bring the rows of the attention to unit length, so that the
# clusters are others: see `unit_length` of cluster_em.
_base_ = './medic-evolved-em75_vit-base-p16_8xb256-amp-coslr-300e_in1k.py'

model = dict(masking=dict(clustering=dict(unit_length=False)))
