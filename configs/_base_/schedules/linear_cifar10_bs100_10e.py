# Linear probe on CIFAR-10, on a CPU: chosen on that data, not from a paper.
_base_ = './finetune_cifar10_bs100_10e.py'

optim_wrapper = dict(
    optimizer=dict(weight_decay=0.0),
    # all that is trained is outside the backbone
    paramwise_cfg=dict(layer_decay_rate=1.0),
)
