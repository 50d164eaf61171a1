# Mask table: random, 40 %: another name of the CIFAR-10 recipe.
_base_ = './medic_vit-tiny-p8_1xb100-coslr-20e_cifar10-64px.py'
