"""medic_mm.load_model: the same tokens as the source network, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from exported import (
    ARCH,
    MASKED,
    RELATION,
    TINYMIM,
    images,
    make_run,
    network,
    run_config,
    save_checkpoint,
)
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import medic_mm
from medic_mm.checkpoints.saving import save_weights
from medic_mm.cli.convert import convert_file
from medic_mm.cli.export_hf import export_hf

PRE_NORM = dict(MASKED, pre_norm=True, qkv_bias=False)
ODD_WIDTH = dict(RELATION, arch=dict(ARCH, feedforward_channels=97))
NO_FINAL_NORM = dict(RELATION, final_norm=False)
HOST = dict(RELATION, type='mmpretrain.VisionTransformer', out_type='raw')


def test_import_is_cheap() -> None:
    code = (
        'import sys, medic_mm; heavy = {"torch", "timm", "mmengine", "mmpretrain"}; '
        'assert not heavy & set(sys.modules), heavy & set(sys.modules)'
    )
    root = Path(medic_mm.__file__).parents[1]
    environment = dict(os.environ, PYTHONPATH=str(root))
    subprocess.run([sys.executable, '-c', code], check=True, env=environment)


@pytest.mark.parametrize(
    'backbone',
    [MASKED, RELATION, TINYMIM, PRE_NORM, ODD_WIDTH, NO_FINAL_NORM, HOST],
    ids=['masked', 'relation', 'tinymim', 'pre-norm', 'odd', 'no-norm', 'host'],
)
@torch.no_grad()
def test_tokens_equal_those_of_the_source(backbone: dict, tmp_path: Path) -> None:
    path, source = make_run(tmp_path, backbone)
    model = medic_mm.load_model(path)
    assert isinstance(model, VisionTransformer) and not model.training
    expected = source(images())[-1]
    found = model.forward_features(images())
    assert expected.std() > 0.1
    assert (found - expected).abs().max() < 1e-5
    assert (model(images()) - expected[:, 0]).abs().max() < 1e-5


@torch.no_grad()
def test_tokens_equal_for_names_of_the_host(tmp_path: Path) -> None:
    backbone = dict(MASKED, arch='deit-tiny', img_size=(32, 48), patch_size=16)
    path, source = make_run(tmp_path, backbone)
    wide = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    found = medic_mm.load_model(path).forward_features(wide)
    assert (found - source(wide)[-1]).abs().max() < 1e-5


@torch.no_grad()
def test_other_heads_matter(tmp_path: Path) -> None:
    # the same weights with the plain number of heads: another network
    path, source = make_run(tmp_path, TINYMIM)
    plain = medic_mm.load_model(path, config=run_config(RELATION))
    assert (plain.forward_features(images()) - source(images())[-1]).abs().max() > 1e-2


@torch.no_grad()
def test_mean_pooled_classifier_keeps_its_norm(tmp_path: Path) -> None:
    backbone = dict(
        RELATION,
        type='mmpretrain.VisionTransformer',
        out_type='avg_featmap',
        final_norm=False,
    )
    path, source = make_run(tmp_path, backbone)
    found = medic_mm.load_model(path)(images())
    assert (found - source(images())[-1]).abs().max() < 1e-5


@torch.no_grad()
def test_head_is_added_on_request(tmp_path: Path) -> None:
    path, source = make_run(tmp_path, MASKED)
    model = medic_mm.load_model(path, num_classes=5)
    expected = model.head(source(images())[-1][:, 0])
    assert expected.shape == (4, 5)
    assert (model(images()) - expected).abs().max() < 1e-5


@torch.no_grad()
def test_mean_pooling_of_timm_keeps_the_trained_norm(tmp_path: Path) -> None:
    path, source = make_run(tmp_path, MASKED)
    model = medic_mm.load_model(path)
    model.reset_classifier(0, 'avg')
    expected = source(images())[-1][:, 1:].mean(1)
    assert (model(images()) - expected).abs().max() < 1e-5


@torch.no_grad()
def test_another_image_size_resizes_positions(tmp_path: Path) -> None:
    path, _ = make_run(tmp_path, MASKED)
    same, larger = medic_mm.load_model(path), medic_mm.load_model(path, img_size=48)
    assert larger.forward_features(images(side=48)).shape == (4, 1 + 36, 48)
    # the class token's position is no part of the grid
    assert torch.equal(larger.pos_embed[:, 0], same.pos_embed[:, 0])
    picture = Image.fromarray(np.zeros((40, 40, 3), np.uint8))
    assert larger.transforms(picture).shape == (3, 48, 48)
    with pytest.raises(
        ValueError, match='img_size=30 is not a multiple of patch_size=8'
    ):
        medic_mm.load_model(path, img_size=30)


@torch.no_grad()
def test_config_beside_a_file_of_plain_weights(tmp_path: Path) -> None:
    source = network(MASKED)
    weights = {f'backbone.{key}': v for key, v in source.state_dict().items()}
    save_file(weights, tmp_path / 'weights.safetensors')
    Config(run_config(MASKED)).dump(tmp_path / 'run.py')
    found = medic_mm.load_model(tmp_path / 'weights.safetensors', tmp_path / 'run.py')
    difference = found.forward_features(images()) - source(images())[-1]
    assert difference.abs().max() < 1e-5
    with pytest.raises(RuntimeError, match=r"no config of its run \(meta\['cfg'\]\)"):
        medic_mm.load_model(tmp_path / 'weights.safetensors')


@torch.no_grad()
def test_config_in_the_metadata_of_a_converted_file(tmp_path: Path) -> None:
    source = network(MASKED)
    weights = {f'backbone.{key}': v for key, v in source.state_dict().items()}
    text = Config(run_config(MASKED)).pretty_text
    save_weights(weights, tmp_path / 'converted.safetensors', dict(config=text))
    found = medic_mm.load_model(tmp_path / 'converted.safetensors')
    difference = found.forward_features(images()) - source(images())[-1]
    assert difference.abs().max() < 1e-5


def test_code_in_the_config_of_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / 'ran'
    text = Config(run_config(MASKED)).pretty_text
    text += f'\nevil = __import__("pathlib").Path({str(mark)!r}).touch()\n'
    path = save_checkpoint(tmp_path / 'evil.pth', text, network(MASKED))
    medic_mm.load_model(path)
    assert not mark.exists()
    text = f'import os\n{text}'
    path = save_checkpoint(tmp_path / 'import.pth', text, network(MASKED))
    with pytest.raises(RuntimeError, match='line 1 is not a setting'):
        medic_mm.load_model(path)


def test_pickled_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / 'made'),)

    torch.save(dict(meta=dict(), state_dict=Evil()), tmp_path / 'evil.pth')
    with pytest.raises(RuntimeError, match='carries pickled code'):
        medic_mm.load_model(tmp_path / 'evil.pth')
    assert not (tmp_path / 'made').exists()


def test_torn_file_is_refused(tmp_path: Path) -> None:
    path, _ = make_run(tmp_path, MASKED)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(RuntimeError, match='is incomplete or not a checkpoint'):
        medic_mm.load_model(path)


def test_checkpoint_of_a_teacher_is_refused(tmp_path: Path) -> None:
    save_file({'visual.conv1.weight': torch.zeros(2)}, tmp_path / 'clip.safetensors')
    with pytest.raises(RuntimeError, match=r'no weights below .*holds visual\.conv1'):
        medic_mm.load_model(tmp_path / 'clip.safetensors')
    path = tmp_path / 'config_only.pth'
    torch.save(dict(meta=dict(cfg='max_epochs = 3'), **_backbone_state()), path)
    with pytest.raises(RuntimeError, match=r'has no model\.backbone'):
        medic_mm.load_model(path)


def _backbone_state() -> dict:
    return dict(state_dict={'backbone.cls_token': torch.zeros(1)})


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (dict(arch=dict(ARCH, embed_dims=96)), 'does not fit: size mism'),
        (dict(arch=dict(ARCH, num_layers=4)), r'missing blocks\.3\.norm1\.weight'),
        (dict(arch=dict(ARCH, num_layers=2)), r'unexpected blocks\.2\.norm1\.weight'),
        (dict(layer_scale_init_value=0.0), r'unexpected blocks\.0\.ls1\.gamma'),
        (dict(final_norm=False), r'unexpected norm\.weight'),
    ],
)
def test_weights_of_another_size_are_refused(
    change: dict, sentence: str, tmp_path: Path
) -> None:
    config = run_config(dict(MASKED, **change))
    path = save_checkpoint(tmp_path / 'epoch_4.pth', config, network(MASKED))
    with pytest.raises(RuntimeError, match=sentence):
        medic_mm.load_model(path)


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (dict(type='mmpretrain.BEiTPretrainViT'), 'is not a plain Vision Transformer'),
        (dict(norm_cfg=dict(type='LN', eps=1e-5)), "has no place in timm's config"),
        (dict(patch_cfg=dict(stride=4)), 'takes a plain patch embedding'),
        (dict(layer_cfgs=dict(ffn_type='swiglu_fused')), "ffn_type='swiglu_fused'"),
        (dict(use_abs_pos_emb=False), 'backbone.use_abs_pos_emb=False has no place'),
        (dict(arch='tiniest'), "arch='tiniest' is unknown"),
        (dict(out_type='avg_featmap'), 'norms twice'),
    ],
)
def test_networks_that_timm_cannot_be_are_refused(
    change: dict, sentence: str, tmp_path: Path
) -> None:
    config = run_config(dict(MASKED, **change))
    path = save_checkpoint(tmp_path / 'epoch_4.pth', config, network(MASKED))
    with pytest.raises(ValueError, match=sentence):
        medic_mm.load_model(path)


def test_folder_and_id_that_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match=r'has no config\.json: give a folder of'):
        medic_mm.load_model(tmp_path)
    for name in ('no/such/folder', 'work_dirs/epoch_4.pth', 'nothing'):
        with pytest.raises(FileNotFoundError, match='is not a file, a folder or an id'):
            medic_mm.load_model(name)
    with pytest.raises(ValueError, match='config is for a checkpoint file'):
        medic_mm.load_model(tmp_path, config='run.py')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    with pytest.raises(RuntimeError, match=r"'nobody/nothing' on the Hugging Face Hub"):
        medic_mm.load_model('hf-hub:nobody/nothing')


def test_torn_folder_is_refused(tmp_path: Path) -> None:
    path, _ = make_run(tmp_path, MASKED)
    folder = tmp_path / 'folder'
    export_hf(path, folder)
    weights = folder / 'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(RuntimeError, match=r'cannot be loaded by timm \(Safetensor'):
        medic_mm.load_model(folder)


def test_transforms_are_no_part_of_the_state(tmp_path: Path) -> None:
    path, _ = make_run(tmp_path, MASKED)
    model = medic_mm.load_model(path)
    assert not isinstance(model.transforms, nn.Module)
    assert not [key for key in model.state_dict() if 'transform' in key]


WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('mmengine', 'mmcv', 'mmpretrain'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Missing())
import medic_mm
for path in sys.argv[1:]:
    try:
        print(type(medic_mm.load_model(path)).__name__)
    except Exception as error:
        print(f'{type(error).__name__}: {error}')
"""


def test_without_mmengine_the_missing_package_is_named(tmp_path: Path) -> None:
    """Case: "carries pickled code"; what the sentence advises works."""
    path, _ = make_run(tmp_path, MASKED)
    content = torch.load(path, weights_only=False)
    buffer = HistoryBuffer()
    buffer.update(1.0)
    content['message_hub'] = {'log_scalars': {'train/loss': buffer}}
    torch.save(content, path)
    folder, bare = tmp_path / 'folder', tmp_path / 'bare.safetensors'
    export_hf(path, folder)
    convert_file(path, bare, 'mmpretrain')
    command = [sys.executable, '-c', WITHOUT, str(path), str(folder), str(bare)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, *rest = done.stdout.splitlines()
    assert first.startswith(f'FileError: checkpoint {path} holds the training log')
    assert 'package mmengine is not installed: pip install mmengine, or' in first
    assert rest == ['VisionTransformer', 'VisionTransformer']


def test_numbers_of_a_folder(tmp_path: Path) -> None:
    path, _ = make_run(tmp_path, MASKED)
    folder = tmp_path / 'folder'
    export_hf(path, folder)
    weights = load_file(folder / 'model.safetensors')
    name = 'blocks.0.mlp.fc1.weight'
    for value, words in (
        (weights[name] * torch.nan, 'NaN or infinity in'),
        (weights[name].int(), r'torch\.int32 in place of floating-point numbers in'),
    ):
        save_file({**weights, name: value}, folder / 'model.safetensors')
        with pytest.raises(
            RuntimeError, match=f'{folder} cannot be used: {words} {name}'
        ):
            medic_mm.load_model(folder)


def test_a_config_for_as_many_patches_in_another_grid(tmp_path: Path) -> None:
    """36 patches in 4 rows of 9, and a config of 6 rows of 6."""
    oblong = dict(MASKED, img_size=(32, 72))
    config = run_config(oblong)
    path = save_checkpoint(tmp_path / 'a.pth', config, network(oblong))
    assert medic_mm.load_model(path).patch_embed.grid_size == (4, 9)
    with pytest.raises(RuntimeError, match=r'is of 4x9 patches, but .* ask for 6x6'):
        medic_mm.load_model(path, config=run_config(dict(MASKED, img_size=48)))
