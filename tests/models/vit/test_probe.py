"""The probe's features against sums written out; every block against one alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from mmpretrain.utils import register_all_modules

from medic_mm.errors import UserError
from medic_mm.models.vit.probe import LayerProbeHead, ProbeNeck


def normalised(column: list[float]) -> list[float]:
    mean = sum(column) / len(column)
    variance = sum((x - mean) ** 2 for x in column) / len(column)
    return [(x - mean) / (variance + 1e-6) ** 0.5 for x in column]


def literal(tokens: torch.Tensor, features: tuple, layer_norm: bool) -> torch.Tensor:
    """``(B, 1 + L, D)`` to ``(B, D * features)``, image by image."""
    rows = []
    for image in tokens.tolist():
        if layer_norm:
            image = [normalised(token) for token in image]
        mean = [
            sum(column) / (len(image) - 1) for column in zip(*image[1:], strict=True)
        ]
        parts = dict(cls=image[0], mean=mean)
        rows.append([x for name in features for x in parts[name]])
    columns = [normalised(list(column)) for column in zip(*rows, strict=True)]
    return torch.tensor(columns).T


@pytest.mark.parametrize('layer_norm', [False, True])
@pytest.mark.parametrize('features', [('cls',), ('mean',), ('cls', 'mean')])
def test_features_of_a_batch(features, layer_norm):
    torch.manual_seed(0)
    tokens = torch.randn(5, 4, 3) * 4 + 2
    neck = ProbeNeck(3, features, layer_norm=layer_norm, final_norm=False)
    (found,) = neck((tokens,))
    wanted = literal(tokens, features, layer_norm)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_each_block_has_statistics_of_its_own():
    torch.manual_seed(0)
    blocks = tuple(torch.randn(6, 4, 3) * (i + 1) + i for i in range(2))
    neck = ProbeNeck(3, num_layers=2)
    for _ in range(200):  # running means come to the batch's
        neck(blocks)
    neck.eval()
    for found, tokens in zip(neck(blocks), blocks, strict=True):
        cls_token = tokens[:, 0]
        wanted = (cls_token - cls_token.mean(0)) / cls_token.std(0)
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def test_weights_of_a_final_norm_would_change_nothing():
    """Why the probe of earlier blocks does without the final norm's weights."""
    torch.manual_seed(0)
    tokens = torch.randn(8, 4, 3)
    norm = torch.nn.LayerNorm(3, eps=1e-6)
    torch.nn.init.uniform_(norm.weight, 0.5, 2)
    torch.nn.init.normal_(norm.bias)
    plain = ProbeNeck(3, ('cls', 'mean'), layer_norm=True, final_norm=False)((tokens,))[
        0
    ]
    weighted = ProbeNeck(3, ('cls', 'mean'))((norm(tokens),))[0]
    torch.testing.assert_close(plain, weighted, rtol=1e-4, atol=1e-4)


def shipped(name: str) -> Config:
    folder = 'configs/benchmarks/classification'
    return Config.fromfile(Path(__file__).parents[3] / folder / name)


@pytest.mark.parametrize('method', ['medic', 'mimhd'])
def test_every_block_of_the_shipped_probe_is_normalised_once(method):
    """Against a walk over the blocks: the last has the backbone's norm and no other."""
    config = shipped(
        f'vit-tiny-p8_{method}-pre_linear-layers_1xb100-coslr-10e_cifar10-64px.py'
    )
    config.model.backbone.init_cfg = None
    torch.manual_seed(0)
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(config.model)
    backbone, neck = model.backbone, model.neck.train()
    torch.nn.init.uniform_(backbone.ln1.weight, 0.2, 3)
    torch.nn.init.normal_(backbone.ln1.bias)
    images = torch.randn(4, 3, 64, 64)
    inner = []
    for layer in backbone.layers:
        layer.register_forward_hook(lambda _, __, tokens: inner.append(tokens))
    with torch.no_grad():
        found = neck(backbone(images))
    assert len(found) == len(inner) == 6
    for number, (feature, tokens) in enumerate(zip(found, inner, strict=True), start=1):
        tokens = backbone.ln1(tokens) if number == 6 else tokens
        wanted = literal(tokens, neck.features, layer_norm=number < 6)
        torch.testing.assert_close(feature, wanted, rtol=1e-3, atol=1e-3)
    # the second norm of the last block would show
    twice = literal(backbone.ln1(inner[-1]), neck.features, layer_norm=True)
    assert (found[-1] - twice).abs().max() > 0.01


def test_it_has_nothing_to_train():
    assert list(ProbeNeck(3).parameters()) == []


def test_refuses_misfits():
    with pytest.raises(ValueError, match='gives 2 blocks'):
        ProbeNeck(3)((torch.zeros(2, 4, 3), torch.zeros(2, 4, 3)))
    with pytest.raises(ValueError, match="out_type='raw'"):
        ProbeNeck(3)((torch.zeros(2, 3),))
    with pytest.raises(ValueError, match='blocks before the last and num_layers=1'):
        ProbeNeck(3, layer_norm=True)
    with pytest.raises(ValueError, match='features='):
        ProbeNeck(3, ('patches',))


# every block


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
