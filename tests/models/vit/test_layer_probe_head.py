"""A probe on every block against classifiers trained apart."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.structures import DataSample

from medic_mm.errors import UserError
from medic_mm.models.vit.probe import LayerProbeHead


def samples(labels: list[int]) -> list[DataSample]:
    return [DataSample().set_gt_label(label) for label in labels]


def test_losses_and_gradients_are_those_of_each_block_alone():
    torch.manual_seed(0)
    head = LayerProbeHead(num_classes=3, in_channels=4, num_layers=2)
    feats = (torch.randn(5, 4), torch.randn(5, 4))
    labels = [0, 2, 1, 1, 2]
    losses = head.loss(feats, samples(labels))
    assert list(losses) == ['loss_block_1', 'loss_block_2']
    sum(losses.values()).backward()
    for layer, feature, loss in zip(
        head.classifiers, feats, losses.values(), strict=True
    ):
        alone = torch.nn.Linear(4, 3)
        alone.load_state_dict(layer.state_dict())
        wanted = F.cross_entropy(alone(feature), torch.tensor(labels))
        wanted.backward()
        torch.testing.assert_close(loss, wanted)
        torch.testing.assert_close(layer.weight.grad, alone.weight.grad)
        torch.testing.assert_close(layer.bias.grad, alone.bias.grad)


def test_predictions():
    head = LayerProbeHead(num_classes=3, in_channels=3, num_layers=2)
    with torch.no_grad():
        for layer, sign in zip(head.classifiers, (1.0, -1.0), strict=True):
            layer.weight.copy_(sign * torch.eye(3))
            layer.bias.zero_()
    feature = torch.tensor([[3.0, 2.0, 1.0], [0.0, 1.0, 2.0]])
    found = head.predict((feature, feature), samples([0, 0]))
    assert [x.layer_labels.tolist() for x in found] == [[0, 2], [2, 0]]
    assert [x.pred_label.tolist() for x in found] == [[2], [0]]
    wanted = F.softmax(-feature, dim=1)
    torch.testing.assert_close(torch.stack([x.pred_score for x in found]), wanted)
    assert found[0].gt_label.tolist() == [0]
    assert head.predict((feature, feature))[1].layer_labels.tolist() == [2, 0]


def test_refuses_another_number_of_blocks():
    head = LayerProbeHead(num_classes=3, in_channels=4, num_layers=2)
    with pytest.raises(UserError, match=r'num_layers=2 of LayerProbeHead .* 1 bl'):
        head((torch.zeros(1, 4),))
