"""A teacher from outside, as docs/extending.md shows it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from extended import run, write_files
from mmpretrain.models.backbones import VisionTransformer
from tiny_runs import write_images

from medic_mm.models.teachers import CachedTeacher, FrozenTeacher

ARCH = dict(embed_dims=96, num_layers=3, num_heads=3, feedforward_channels=192)
SHORT = """
train_cfg = dict(max_epochs=2)
train_dataloader = dict(
    batch_size=20, num_workers=0, persistent_workers=False, dataset=dict(length=100)
)
default_hooks = dict(logger=dict(interval=1))
_knn = dict(batch_size=50, num_workers=0)
_images = dict(
    type='medic_mm.EmbeddedShapes', length=100, pipeline=[dict(type='PackInputs')]
)
custom_hooks = [
    dict(
        type='medic_mm.KNNHook',
        interval=2,
        k=(20,),
        train_dataloader=dict(**_knn, dataset=dict(_images, split='train')),
        test_dataloader=dict(**_knn, dataset=dict(_images, split='val')),
    ),
]
"""


def classifier(path: Path) -> VisionTransformer:
    """A ViT whose weights are saved as mmpretrain's are."""
    torch.manual_seed(7)
    network = VisionTransformer(ARCH, img_size=64, patch_size=8, out_type='raw')
    for value in network.parameters():
        torch.nn.init.normal_(value, std=0.1)
    state = {f'backbone.{name}': value for name, value in network.state_dict().items()}
    torch.save(dict(state_dict=state), path)
    network.eval()
    return network


def test_trains_and_is_drawn_and_reported(tmp_path: Path) -> None:
    _, config = write_files('A teacher', tmp_path)
    with (tmp_path / config).open('a') as file:
        file.write(SHORT)
    classifier(tmp_path / 'classifier.pth')
    images = write_images(tmp_path / 'images', 1)
    printed = run(
        tmp_path,
        f'tools/train.py {config} --work-dir work',
        f'tools/visualize.py attention {config} work/epoch_2.pth {images} --out seen',
        'tools/report.py work',
    )
    assert list((tmp_path / 'seen').glob('*.png')), printed
    assert 'The teacher is left out' not in printed
    assert list((tmp_path / 'work').glob('*.html')), printed
    log = next((tmp_path / 'work').glob('*/vis_data/scalars.json')).read_text()
    rows = [json.loads(line) for line in log.splitlines()]
    losses = [row['loss_token'] for row in rows if 'loss_token' in row]
    assert len(losses) == 10 and all(map(math.isfinite, losses))
    assert any('knn' in key for row in rows for key in row)
    saved = torch.load(tmp_path / 'work' / 'epoch_2.pth', weights_only=False)
    assert not [name for name in saved['state_dict'] if 'target_generator' in name]


@torch.no_grad()
def test_gives_what_its_network_computes(tmp_path: Path) -> None:
    module, _ = write_files('A teacher', tmp_path)
    # not registered here, where other tests go through all registered components
    code = (tmp_path / module).read_text().replace('@MODELS.register_module()\n', '')
    found: dict = {}
    exec(code, found)
    network = classifier(tmp_path / 'classifier.pth')
    teacher: FrozenTeacher = found['ClassifierTeacher'](
        ARCH, str(tmp_path / 'classifier.pth'), 64, 8
    )
    assert teacher.gives_attention
    teacher.init_weights()
    raw = torch.rand(2, 3, 64, 64)
    mean, std = torch.full((3, 1, 1), 127.5), torch.full((3, 1, 1), 60.0)
    given = (mean, std)
    images = (255 * raw - mean) / std
    own = [
        torch.tensor(value).view(3, 1, 1)
        for value in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    ]
    seen = []
    attn = network.layers[-1].attn
    hook = attn.qkv.register_forward_hook(lambda *args: seen.append(args[2]))
    (tokens,) = network((raw - own[0]) / own[1])
    hook.remove()
    out = teacher(images, *given, attention=True)
    torch.testing.assert_close(out.patch_tokens, tokens[:, 1:], rtol=1e-3, atol=1e-4)
    query, key, _ = seen[0].reshape(2, 65, 3, 3, 32).permute(2, 0, 3, 1, 4)
    maps = (query @ key.transpose(2, 3) / math.sqrt(32)).softmax(-1)  # (B, M, N, N)
    expected = maps.mean(1)[:, 1:, 1:]
    torch.testing.assert_close(out.attention, expected, rtol=1e-3, atol=1e-5)
    for asked in (teacher, CachedTeacher(teacher, attention=True)):
        shown = asked.class_attention(images, *given)
        assert shown.labels == [f'teacher, head {n} of 3' for n in (1, 2, 3)]
        torch.testing.assert_close(
            shown.weights.flatten(2), maps[:, :, 0, 1:], rtol=1e-3, atol=1e-5
        )
        patches = asked.patch_attention(images, *given)
        torch.testing.assert_close(patches, expected, rtol=1e-3, atol=1e-5)
