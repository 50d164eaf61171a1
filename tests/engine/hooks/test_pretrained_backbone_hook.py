"""What is loaded, reported and refused before the first step."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from safetensors.torch import save_file
from tiny_runs import ARCH, SIZE, classifier_config, write_images

from medic_mm.engine.hooks import PretrainedBackboneHook


def build_backbone(**settings) -> torch.nn.Module:
    base = dict(type='VisionTransformer', arch=dict(ARCH), img_size=SIZE, patch_size=8)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build({**base, **settings})


def scramble(module: torch.nn.Module, seed: int = 3) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))


def write_checkpoint(path: Path, prefix: str = 'backbone.', **settings) -> dict:
    """A file as pre-training leaves it; returns the backbone's weights."""
    backbone = build_backbone(**settings)
    scramble(backbone)
    weights = backbone.state_dict()
    state = {f'{prefix}{k}': v for k, v in weights.items()}
    torch.save({'state_dict': {**state, 'neck.weight': torch.zeros(2)}}, path)
    return weights


def start(backbone: torch.nn.Module, path: str | Path | None, **settings):
    """Run the hook in the order of a Runner; the host's part is drawing weights."""
    prefix = settings.pop('prefix', 'backbone.')
    backbone.init_cfg = dict(type='Pretrained', checkpoint=path, prefix=prefix)
    logs: list[str] = []
    logger = SimpleNamespace(info=logs.append, warning=logs.append)
    runner = SimpleNamespace(model=SimpleNamespace(backbone=backbone), logger=logger)
    hook = PretrainedBackboneHook(**settings)
    hook.before_run(runner)
    assert backbone.init_cfg is None  # the host finds no file to load
    scramble(backbone, seed=9)
    hook.before_train(runner)
    return hook.report, logs


FINETUNE = dict(out_type='avg_featmap', final_norm=False)


def test_all_weights_and_the_documented_gaps(tmp_path):
    weights = write_checkpoint(tmp_path / 'a.pth')
    backbone = build_backbone(**FINETUNE)
    report, logs = start(backbone, tmp_path / 'a.pth')
    assert set(report.missing) == {'ln2.weight', 'ln2.bias'}
    assert set(report.unexpected) == {'ln1.weight', 'ln1.bias'}
    for name in report.loaded:
        assert torch.equal(backbone.state_dict()[name], weights[name]), name
    total = len(backbone.state_dict())
    assert f'{total - 2} of {total} weights loaded' in logs[0]
    assert 'new in the network: ln2.weight, ln2.bias' in logs[0]
    assert 'left in the file: ln1.weight, ln1.bias' in logs[0]


def test_safetensors_and_a_prefix_without_dot(tmp_path):
    weights = write_checkpoint(tmp_path / 'a.pth')
    tensors = {f'student.{k}': v.contiguous() for k, v in weights.items()}
    save_file(tensors, tmp_path / 'a.safetensors')
    backbone = build_backbone()
    report, _ = start(backbone, tmp_path / 'a.safetensors', prefix='student')
    assert report.missing == report.unexpected == ()
    assert torch.equal(backbone.cls_token, weights['cls_token'])


def test_positions_are_resized_as_the_host_does(tmp_path):
    weights = write_checkpoint(tmp_path / 'a.pth')
    backbone = build_backbone(img_size=2 * SIZE, out_type='featmap', final_norm=False)
    start(backbone, tmp_path / 'a.pth')
    position = weights['pos_embed']
    grid = position[:, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(
        grid, size=(8, 8), mode='bicubic', align_corners=False
    )
    wanted = torch.cat([position[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
    torch.testing.assert_close(backbone.pos_embed.data, wanted)


@pytest.mark.parametrize(
    ('file', 'network', 'words'),
    [
        (
            dict(),
            dict(layer_scale_init_value=0.1),
            r'missing layers\.0\.attn\.gamma1\.weight.*had no LayerScale',
        ),
        (
            dict(layer_scale_init_value=0.1),
            dict(),
            r'unexpected layers\.0\.attn\.gamma1\.weight.*had LayerScale',
        ),
        (
            dict(arch=dict(ARCH, num_layers=3)),
            dict(),
            r'unexpected layers\.2\..*another architecture',
        ),
        (
            dict(arch=dict(ARCH, embed_dims=16)),
            dict(),
            r'does not fit: .*size mismatch for cls_token',
        ),
        (
            dict(prefix='module.student.'),
            dict(),
            r"no weights below prefix='backbone\.'",
        ),
        (dict(prefix='visual.'), dict(), r'begin with visual\.'),
    ],
)
def test_refuses_what_does_not_fit(tmp_path, file, network, words):
    write_checkpoint(tmp_path / 'a.pth', **file)
    with pytest.raises(RuntimeError, match=words):
        start(build_backbone(**network), tmp_path / 'a.pth')


def test_gaps_may_be_allowed_by_name(tmp_path):
    write_checkpoint(tmp_path / 'a.pth')
    backbone = build_backbone(layer_scale_init_value=0.1)
    report, _ = start(backbone, tmp_path / 'a.pth', new=('layers.0.', 'layers.1.'))
    assert len(report.missing) == 4


class Code:
    def __reduce__(self):
        return os.mkdir, ('made_by_a_checkpoint',)


def test_refuses_broken_and_dangerous_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({'state_dict': {'backbone.cls_token': Code()}}, 'code.pth')
    with pytest.raises(RuntimeError, match='carries pickled code'):
        start(build_backbone(), 'code.pth')
    assert not Path('made_by_a_checkpoint').exists()
    write_checkpoint(Path('whole.pth'))
    Path('torn.pth').write_bytes(Path('whole.pth').read_bytes()[:5000])
    with pytest.raises(RuntimeError, match=r'torn\.pth is incomplete'):
        start(build_backbone(), 'torn.pth')
    with pytest.raises(FileNotFoundError, match='absent'):
        start(build_backbone(), 'absent.pth')
    with pytest.raises(ValueError, match='--pretrained FILE'):
        start(build_backbone(), None)


def runner_config(folder: Path, checkpoint: Path, **settings) -> Config:
    images = write_images(folder / 'images')
    cfg = classifier_config(images)
    cfg.model.backbone.update(
        out_type='avg_featmap',
        final_norm=False,
        init_cfg=dict(
            type='Pretrained', checkpoint=str(checkpoint), prefix='backbone.'
        ),
    )
    # a host's own init_cfg of the whole model would redraw all linear layers
    cfg.model.init_cfg = dict(type='Constant', layer='Linear', val=0.5)
    cfg.train_dataloader.collate_fn = dict(type='default_collate')
    cfg.optim_wrapper.optimizer.lr = 0.0
    cfg.optim_wrapper.optimizer.weight_decay = 0.0
    for key in ('test_dataloader', 'test_cfg', 'test_evaluator'):
        cfg.pop(key)
    cfg.custom_hooks = [dict(type='medic_mm.PretrainedBackboneHook')]
    cfg.work_dir = str(folder / 'work')
    cfg.experiment_name = f'{folder.name}_{os.urandom(4).hex()}'
    cfg.log_level = logging.WARNING
    cfg.update(settings)
    return cfg


def test_in_a_run_the_file_wins_over_the_hosts_initialisation(tmp_path):
    weights = write_checkpoint(tmp_path / 'a.pth')
    runner = Runner.from_cfg(runner_config(tmp_path, tmp_path / 'a.pth'))
    runner.train()
    state = runner.model.backbone.state_dict()
    for name, value in weights.items():
        if not name.startswith('ln1'):
            assert torch.equal(state[name], value), name


def test_weights_of_load_from_are_left_alone(tmp_path):
    write_checkpoint(tmp_path / 'a.pth')
    cfg = runner_config(tmp_path, tmp_path / 'a.pth')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model)
    scramble(model, seed=11)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'whole.pth')
    cfg.load_from = str(tmp_path / 'whole.pth')
    runner = Runner.from_cfg(cfg)
    runner.train()
    torch.testing.assert_close(runner.model.state_dict(), model.state_dict())
