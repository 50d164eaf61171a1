"""TeacherCacheHook: caches equal the teacher, keys see changes, errors are named."""

from __future__ import annotations

import copy
import errno
import fcntl
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.models.selfsup import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medic_mm.errors import DiskError, FileError, UserError
from medic_mm.models.teachers import CachedTeacher, FrozenTeacher, TeacherOutput
from medic_mm.models.teachers.cache import hook as teacher_cache_hook
from medic_mm.randomness import seeded_construction
from medic_mm.registry import MODELS, TRANSFORMS

IMAGES, WIDTH = 10, 12
COUNTER = itertools.count()


@MODELS.register_module(force=True)
class CacheTestTeacher(FrozenTeacher):
    """A frozen random network of 4 patches that counts the images it sees."""

    #: of attention; 100 leaves most values among the smallest of float16, or below
    sharpness = 10.0

    def __init__(self, weight_seed: int = 0, **kwargs) -> None:
        with seeded_construction(weight_seed):
            network = nn.Sequential(nn.Conv2d(3, WIDTH, 8, 8), nn.Flatten(2), nn.GELU())
        half = (0.5, 0.5, 0.5)
        super().__init__(network, half, half, WIDTH, 8, 16, **kwargs)
        self.seen = 0

    def load_weights(self) -> None:
        pass

    def encode(self, images: Tensor, attention: bool) -> TeacherOutput:
        self.seen += len(images)
        tokens = self.network(images).transpose(1, 2)
        looks = (self.sharpness * tokens @ tokens.mT).softmax(-1) if attention else None
        return TeacherOutput(tokens, tokens.amax(1), looks)


@MODELS.register_module(force=True)
class CacheTestStudent(BaseSelfSupervisor):
    """Regresses masked teacher tokens; its dropout draws from torch's generator."""

    def __init__(self, target_generator: dict | None, data_preprocessor: dict) -> None:
        super().__init__(
            backbone=nn.Sequential(nn.Conv2d(3, WIDTH, 8, 8), nn.Dropout(0.2)),
            target_generator=target_generator and MODELS.build(target_generator),
            data_preprocessor=data_preprocessor,
        )
        self.masks: list[Tensor] = []

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        tokens = self.backbone(inputs).flatten(2).transpose(1, 2)  # (B, L, D)
        if self.target_generator is None:
            return dict(loss=tokens.square().mean())
        statistics = self.data_preprocessor.mean, self.data_preprocessor.std
        out = self.target_generator(inputs, *statistics, data_samples)
        mask = torch.stack([sample.mask.flatten() for sample in data_samples])
        self.masks.append(mask)
        token_error = ((tokens - out.patch_tokens).square().mean(-1) * mask).mean()
        return dict(loss=token_error + (tokens.mean(1) - out.cls_token).abs().mean())


@TRANSFORMS.register_module(force=True)
class CacheTestDrop(BaseTransform):
    """Drops one image, as a loader does with one it cannot read."""

    def transform(self, results: dict) -> dict | None:
        return None if results['sample_idx'] == 3 else results


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp('images')
    generator = np.random.default_rng(0)
    for index in range(IMAGES):
        image = generator.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        cv2.imwrite(str(target / f'{index}.png'), image)
    return target


def make_config(folder: Path, work_dir: Path, num_views: int = 2) -> dict:
    """A Runner's config: 10 images, 2 views, 2 epochs of 2 batches."""
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(
            type='medic_mm.FixedView',
            num_views=num_views,
            transforms=[
                dict(type='RandomResizedCrop', scale=16),
                dict(type='RandomFlip', prob=0.5),
            ],
        ),
        dict(type='medic_mm.RandomMask', grid=2, mask_ratio=0.5),
        dict(type='PackInputs', meta_keys=('sample_idx', 'view')),
    ]
    return dict(
        default_scope='mmpretrain',
        work_dir=str(work_dir / 'work'),
        model=dict(
            type='medic_mm.CacheTestStudent',
            data_preprocessor=dict(
                type='SelfSupDataPreprocessor',
                mean=[123.0, 116.0, 103.0],
                std=[58.0, 57.0, 57.0],
                to_rgb=True,
            ),
            target_generator=dict(
                type='medic_mm.CachedTeacher',
                cache_dir=str(work_dir / 'cache'),
                teacher=dict(type='medic_mm.CacheTestTeacher'),
            ),
        ),
        train_dataloader=dict(
            batch_size=5,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
            dataset=dict(
                type='CustomDataset',
                data_prefix=str(folder),
                with_label=False,
                serialize_data=False,
                pipeline=pipeline,
            ),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-2)),
        custom_hooks=[dict(type='medic_mm.TeacherCacheHook', batch_size=4)],
        randomness=dict(seed=0),
        # these, and serialize_data, save some tenths of a second a run
        default_hooks=dict(checkpoint=None),
        visualizer=dict(type='Visualizer', vis_backends=None),
    )


def with_attention(config: dict) -> dict:
    config['model']['target_generator']['attention'] = True
    return config


def pipeline_of(config: dict) -> list[dict]:
    return config['train_dataloader']['dataset']['pipeline']


@pytest.fixture
def config(folder: Path, tmp_path: Path) -> dict:
    return make_config(folder, tmp_path)


def train(config: dict) -> Runner:
    config = copy.deepcopy(config)
    config['experiment_name'] = f'cache-{next(COUNTER)}'
    runner = Runner.from_cfg(Config(config))
    runner.train()
    return runner


def cached_teacher(runner: Runner) -> CachedTeacher:
    return runner.model.target_generator


def cache_files(config: dict) -> list[Path]:
    folder = Path(config['model']['target_generator']['cache_dir'])
    return sorted(folder.iterdir()) if folder.exists() else []


def cache_file(config: dict) -> Path:
    (found,) = [p for p in cache_files(config) if p.suffix == '.safetensors']
    return found


def weights(runner: Runner) -> Tensor:
    return torch.cat([p.detach().flatten() for p in runner.model.parameters()])


def all_batches(runner: Runner) -> Iterator[tuple[Tensor, list]]:
    """Every image and view, shuffled, drawn apart from the code under test."""
    dataset = runner.train_dataloader.dataset
    pairs = [(i, v) for i in range(IMAGES) for v in range(2)]
    np.random.default_rng(1).shuffle(pairs)
    for start in range(0, len(pairs), 5):
        items = []
        for image, view in pairs[start : start + 5]:
            info = dataset.get_data_info(image)
            info['view'] = view
            items.append(dataset.pipeline(info))
        data = runner.train_dataloader.collate_fn(items)
        out = runner.model.data_preprocessor(data)
        yield out['inputs'], out['data_samples']


@pytest.mark.parametrize('num_workers', [0, 2])
def test_the_cache_equals_the_live_teacher(config: dict, num_workers: int) -> None:
    config['custom_hooks'][0]['num_workers'] = num_workers
    runner = train(config)
    cached = cached_teacher(runner)
    # all rows once, and the 8 that are checked: training asked for none
    assert cached.teacher.seen == 2 * IMAGES + 8
    statistics = runner.model.data_preprocessor.mean, runner.model.data_preprocessor.std
    looks = set()
    for images, samples in all_batches(runner):
        stored = cached(images, *statistics, samples)
        live = cached.teacher(images, *statistics)
        for name in ('patch_tokens', 'cls_token'):
            found, expected = getattr(stored, name), getattr(live, name)
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
        looks.update(row.numpy().tobytes() for row in stored.cls_token)
    assert len(looks) == 2 * IMAGES
    assert not runner.model.state_dict().keys() - {
        'backbone.0.weight',
        'backbone.0.bias',
    }


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
def test_cached_attention_equals_the_teachers(config: dict, dtype: str) -> None:
    config['model']['target_generator'].update(attention=True, dtype=dtype)
    for filled_anew in (2 * IMAGES, 0):
        runner = train(config)
        cached = cached_teacher(runner)
        assert cached.teacher.seen == filled_anew + 8
        preprocessor = runner.model.data_preprocessor
        statistics = preprocessor.mean, preprocessor.std
        for images, samples in all_batches(runner):
            stored = cached(images, *statistics, samples, attention=True)
            live = cached.teacher(images, *statistics, attention=True)
            assert live.attention.std() > 0.1
            rounding = dict(float16=(2**-11, 2**-25), float32=(1e-5, 1e-8))[dtype]
            for name in ('patch_tokens', 'cls_token', 'attention'):
                found, expected = getattr(stored, name), getattr(live, name)
                rtol, atol = rounding[0], rounding[1] + 1e-6 * (name != 'attention')
                # 1e-5 more for sums in another order than when filling
                torch.testing.assert_close(found, expected, rtol=rtol + 1e-5, atol=atol)


def test_attention_has_its_own_file_and_leaves_the_key_without(config: dict) -> None:
    train(config)
    without = cache_file(config)
    about = json.loads(without.with_suffix('.json').read_text())
    # any more would void the caches that are there
    assert set(about['made_from']) == {
        *('teacher', 'teacher_class', 'dataset', 'dataset_class', 'images'),
        *('images_sha256', 'pipeline', 'num_views', 'seed', 'preprocessor'),
        *('shape', 'dtype'),
    }
    assert cached_teacher(train(with_attention(config))).teacher.seen == 2 * IMAGES + 8
    (path,) = {p for p in cache_files(config) if p.suffix == '.safetensors'} - {without}
    added = json.loads(path.with_suffix('.json').read_text())
    assert added['made_from'].pop('attention_shape') == [2 * IMAGES, 4, 4]
    assert added['made_from'] == about['made_from']
    logs = [p.read_text() for p in Path(config['work_dir']).glob('*/*.log')]
    assert any(f'10 images x 2 views, {path.stat().st_size} bytes' in t for t in logs)


def test_attention_of_the_smallest_values_passes_the_check(
    config: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CacheTestTeacher, 'sharpness', 100.0)
    with_attention(config)
    config['custom_hooks'][0]['verify_samples'] = 2 * IMAGES
    train(config)
    stored = load_file(cache_file(config))['attention']
    smallest = torch.finfo(torch.float16).smallest_normal
    assert ((stored > 0) & (stored < smallest)).any()


def test_filling_and_reusing_train_alike(config: dict) -> None:
    config['model']['target_generator']['dtype'] = 'float32'
    filling = train(config)
    content = cache_file(config).read_bytes()
    reusing = train(config)
    assert cached_teacher(reusing).teacher.seen == 8
    assert cache_file(config).read_bytes() == content
    assert torch.equal(weights(filling), weights(reusing))
    # the masks are those of a run that never heard of a cache, and so is the result
    config['model']['target_generator'] = dict(type='medic_mm.CacheTestTeacher')
    config['custom_hooks'] = []
    live = train(config)
    assert all(map(torch.equal, filling.model.masks, live.model.masks))
    torch.testing.assert_close(weights(filling), weights(live))
    assert len({m.numpy().tobytes() for m in live.model.masks}) == len(live.model.masks)


def test_what_stands_beside_the_file(config: dict) -> None:
    train(config)
    path = cache_file(config)
    about = json.loads(path.with_suffix('.json').read_text())
    assert about['bytes'] == path.stat().st_size
    assert about['key'][:24] in path.name
    assert about['made_from']['shape'] == [2 * IMAGES, 5, WIDTH]
    assert about['made_from']['images'] == IMAGES
    fixed_view = about['made_from']['pipeline'][-1]
    assert fixed_view['transforms'][0] == dict(type='RandomResizedCrop', scale=16)
    assert {p.suffix for p in cache_files(config)} == {'.json', '.safetensors'}
    log = next(Path(config['work_dir']).glob('*/*.log')).read_text()
    assert f'10 images x 2 views, {about["bytes"]} bytes' in log
    assert '20 of 20 views (100 %)' in log


def _change_teacher(config: dict) -> None:
    config['model']['target_generator']['teacher']['weight_seed'] = 1


def _change_crop(config: dict) -> None:
    crop = pipeline_of(config)[1]['transforms'][0]
    crop['crop_ratio_range'] = (0.5, 1.0)


def _change_seed(config: dict) -> None:
    pipeline_of(config)[1]['seed'] = 1


def _change_views(config: dict) -> None:
    pipeline_of(config)[1]['num_views'] = 3


def _change_mean(config: dict) -> None:
    config['model']['data_preprocessor']['mean'] = [120.0, 116.0, 103.0]


def _change_dtype(config: dict) -> None:
    config['model']['target_generator']['dtype'] = 'float32'


def _change_list(config: dict) -> None:
    config['train_dataloader']['dataset']['indices'] = 9


def _change_file(config: dict) -> None:
    os.utime(Path(config['train_dataloader']['dataset']['data_prefix']) / '4.png')


def _change_mask(config: dict) -> None:
    pipeline_of(config)[2]['mask_ratio'] = 0.3


def _change_batch(config: dict) -> None:
    config['train_dataloader']['batch_size'] = 2


@pytest.mark.parametrize(
    ('change', 'anew'),
    [
        (_change_teacher, True),
        (_change_crop, True),
        (_change_seed, True),
        (_change_views, True),
        (_change_mean, True),
        (_change_dtype, True),
        (_change_list, True),
        (_change_file, True),
        (_change_mask, False),
        (_change_batch, False),
    ],
)
def test_the_key_sees_what_changes_outputs(config: dict, change, anew: bool) -> None:
    config['train_cfg']['max_epochs'] = 1
    train(config)
    change(config)
    runner = train(config)
    assert (cached_teacher(runner).teacher.seen > 8) == anew
    count = sum(p.suffix == '.safetensors' for p in cache_files(config))
    assert count == 1 + anew


def _rewrite(path: Path, row: int, value: Tensor, name: str = 'tokens') -> None:
    """Replace a row and its checksum, keeping key and all else."""
    stored = load_file(path)
    stored = {name: tensor.clone() for name, tensor in stored.items()}
    stored[name][row] = value
    with safe_open(path, framework='pt') as file:
        about = file.metadata()
    parts = [stored[part][row].numpy().tobytes() for part in about['contents'].split()]
    stored['checksums'][row] = zlib.crc32(b''.join(parts))
    save_file(stored, path, metadata=about)


def test_a_corrupted_row_is_named(config: dict) -> None:
    config['custom_hooks'][0]['verify_samples'] = 2 * IMAGES
    train(config)
    path = cache_file(config)
    intact = load_file(path)['tokens'][13].clone()
    for factor in (1.05, float('nan')):
        damaged = intact.clone()
        damaged[2, intact[2].abs().argmax()] *= factor
        _rewrite(path, 13, damaged)
        with pytest.raises(RuntimeError, match=r'for image 6 view 1 .* remove') as info:
            train(config)
        assert str(path.with_suffix('.*')) in str(info.value)
    _rewrite(path, 13, intact)
    train(config)


def test_a_corrupted_row_of_attention_is_named(config: dict) -> None:
    config['custom_hooks'][0]['verify_samples'] = 2 * IMAGES
    train(with_attention(config))
    path = cache_file(config)
    intact = load_file(path)['attention'][13].clone()
    for factor in (1.05, float('nan')):
        damaged = intact.clone()
        damaged[2, intact[2].argmax()] *= factor
        _rewrite(path, 13, damaged, 'attention')
        with pytest.raises(RuntimeError, match='for image 6 view 1 '):
            train(config)
    _rewrite(path, 13, load_file(path)['attention'][12], 'attention')
    with pytest.raises(RuntimeError, match='for image 6 view 1 '):
        train(config)


def test_a_random_transform_outside_is_found(config: dict) -> None:
    pipeline_of(config).insert(2, dict(type='ColorJitter', brightness=0.5))
    words = 'random transform stands outside FixedView: move it inside'
    with pytest.raises(FileError, match=words) as info:
        train(config)
    assert 'remove' not in str(info.value), 'there is no file to remove'
    assert cache_files(config) == []


def test_nothing_has_the_final_name_unless_complete(
    config: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = []

    def fail(source: Path, target: Path) -> None:
        names.extend([source.name, target.suffix])
        raise OSError('disk gone')

    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', fail)
        with pytest.raises(OSError, match='disk gone'):
            train(config)
    assert names[0].endswith('.partial')
    assert names[1] == '.safetensors'
    assert [path.name for path in cache_files(config)] == names[:1]
    # what is in it counts: nothing but the check is computed again
    assert cached_teacher(train(config)).teacher.seen == 8
    assert {p.suffix for p in cache_files(config)} == {'.json', '.safetensors'}


class CacheTestKiller(CacheTestTeacher):
    """Kills the process at the third batch, as a scheduler does."""

    def encode(self, images: Tensor, attention: bool) -> TeacherOutput:
        if self.seen == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(images, attention)


def _fill_until_killed(config: dict) -> None:
    """In a process of its own, with a teacher that has the same fingerprint."""
    CacheTestKiller.__name__ = 'CacheTestTeacher'
    killer = copy.deepcopy(config)
    killer['model']['target_generator']['teacher'] = dict(type=CacheTestKiller)
    process = multiprocessing.get_context('fork').Process(target=train, args=(killer,))
    process.start()
    process.join(timeout=120)
    assert process.exitcode == -signal.SIGKILL


def test_a_killed_fill_goes_on_where_it_stopped(config: dict) -> None:
    _fill_until_killed(config)
    (partial,) = cache_files(config)
    assert partial.suffix == '.partial'
    assert load_file(partial)['filled'].tolist() == [True] * 8 + [False] * 12
    # one of the rows reached the disk in part only
    content, layout = bytearray(partial.read_bytes()), load_file(partial)
    place = content.index(layout['tokens'][5].numpy().tobytes())
    content[place + 30] ^= 1
    partial.write_bytes(content)
    runner = train(config)
    assert cached_teacher(runner).teacher.seen == 2 * IMAGES - 7 + 8
    log = next(
        p
        for p in Path(config['work_dir']).glob('*/*.log')
        if '7 of 20' in p.read_text()
    )
    assert f'The fill of {partial} goes on where it was cut short' in log.read_text()
    assert {p.suffix for p in cache_files(config)} == {'.json', '.safetensors'}
    resumed = load_file(cache_file(config))
    for path in cache_files(config):
        path.unlink()
    train(config)
    whole = load_file(cache_file(config))
    assert resumed['filled'].all()
    for name in ('tokens', 'filled'):
        torch.testing.assert_close(resumed[name], whole[name], rtol=1e-3, atol=1e-6)


def test_a_fill_that_is_at_work_is_left_alone(config: dict) -> None:
    _fill_until_killed(config)
    (partial,) = cache_files(config)
    before = partial.read_bytes()
    with partial.open('r+b') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert cached_teacher(train(config)).teacher.seen == 2 * IMAGES + 8
    assert partial.read_bytes() == before


def test_a_file_of_an_earlier_format_is_filled_anew(config: dict) -> None:
    train(config)
    path, about = cache_file(config), cache_file(config).with_suffix('.json')
    stored, new = load_file(path), path.read_bytes()
    key = json.loads(about.read_text())['key']
    old = {name: stored[name].clone() for name in ('tokens', 'filled')}
    save_file(old, path, metadata=dict(key=key))
    runner = train(config)
    assert cached_teacher(runner).teacher.seen == 2 * IMAGES + 8
    assert path.read_bytes() == new
    logs = [p.read_text() for p in Path(config['work_dir']).glob('*/*.log')]
    assert any('has format 1, but this version of medic_mm uses' in t for t in logs)


def test_a_leftover_of_a_killed_build_is_not_used(config: dict) -> None:
    train(config)
    path = cache_file(config)
    leftover = path.with_suffix('.0123abcd.partial')
    leftover.write_bytes(path.read_bytes()[:500])
    path.unlink()
    runner = train(config)
    assert cached_teacher(runner).teacher.seen == 2 * IMAGES + 8
    assert leftover.exists()


def test_a_full_disk_is_seen_before_filling(
    config: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage('/')._replace(free=100)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
    with pytest.raises(DiskError, match='set cache_dir of CachedTeacher'):
        train(config)
    assert cache_files(config) == []


def test_what_a_killed_fill_left_is_named_where_the_disk_is_full(
    config: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And doing what the sentence says is enough."""
    folder = Path(config['model']['target_generator']['cache_dir'])
    folder.mkdir()
    leftover = folder / 'CustomDataset-0.0123abcd.partial'
    leftover.write_bytes(bytes(100_000))
    usage = shutil.disk_usage('/')

    def disk_usage(path: Path) -> object:
        return usage._replace(free=100 if leftover.exists() else 100_000)

    monkeypatch.setattr(shutil, 'disk_usage', disk_usage)
    with pytest.raises(DiskError, match=r'remove .*0123abcd\.partial') as info:
        train(config)
    assert f'remove {leftover} (0.000102 GB)' in str(info.value)
    assert 'larger disk' not in str(info.value)
    assert cache_files(config) == [leftover]
    leftover.unlink()
    train(config)


def test_a_leftover_too_small_to_help_is_named_beside_a_larger_disk(
    config: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(config['model']['target_generator']['cache_dir'])
    folder.mkdir()
    # laid out, but nothing is on the disk yet
    with (folder / 'x.partial').open('wb') as file:
        file.write(b'0')
        file.truncate(10**9)
    usage = shutil.disk_usage('/')._replace(free=-(10**6))
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
    with pytest.raises(DiskError, match=r'larger disk, .*x\.partial.* not enough'):
        train(config)


def test_a_disk_that_becomes_full_while_filling(
    config: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pwrite(*_: object) -> int:
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'pwrite', pwrite)
    with pytest.raises(DiskError, match=r'became full .* make room in .*cache, or set'):
        train(config)
    assert cache_files(config) == []


def test_a_cache_dir_that_is_a_file(config: dict) -> None:
    path = Path(config['model']['target_generator']['cache_dir'])
    path.write_text('here is a file')
    with pytest.raises(DiskError, match=r"cache_dir='.*cache' .* \(File exists\): set"):
        train(config)


def test_an_image_that_can_be_read_again_names_the_remedy(config: dict) -> None:
    pipeline_of(config).insert(1, dict(type='medic_mm.CacheTestDrop'))
    runner = train(config)
    sample = DataSample(metainfo=dict(sample_idx=3, view=0))
    images = torch.zeros(1, 3, 16, 16)
    with pytest.raises(FileError, match=r'image 3 .* remove the cache in cache_dir='):
        cached_teacher(runner)(images, None, None, [sample])


def test_images_that_cannot_be_read_any_more(
    config: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline_of(config).insert(1, dict(type='medic_mm.CacheTestDrop'))
    config['custom_hooks'][0]['verify_samples'] = 2 * IMAGES
    keep = CacheTestDrop.transform
    monkeypatch.setattr(CacheTestDrop, 'transform', lambda _, results: results)
    train(config)
    monkeypatch.setattr(CacheTestDrop, 'transform', keep)
    path = cache_file(config)
    with pytest.raises(UserError, match=r'2 of 20 images .* or remove .* without') as e:
        train(config)
    assert str(path.with_suffix('.*')) in str(e.value)
    for file in path.parent.glob(path.with_suffix('.*').name):
        file.unlink()
    assert not cached_teacher(train(config)).filled[6:8].any()


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        *[('batch_size', v) for v in (0, -1, 2.5, True, 'all', float('nan'))],
        *[('num_workers', v) for v in (-1, 0.5, False, float('inf'))],
        *[('verify_samples', v) for v in (-1, 1.5, None, True)],
    ],
)
def test_settings_that_are_not_numbers_are_refused(name: str, value: object) -> None:
    words = f'{name}={value!r} of TeacherCacheHook must be'
    with pytest.raises(UserError, match=words):
        teacher_cache_hook.TeacherCacheHook(**{name: value})


def test_unreadable_images_have_no_row(config: dict) -> None:
    pipeline_of(config).insert(1, dict(type='medic_mm.CacheTestDrop'))
    runner = train(config)
    expected = torch.ones(2 * IMAGES, dtype=torch.bool)
    expected[6:8] = False
    assert torch.equal(cached_teacher(runner).filled, expected)
    log = next(Path(config['work_dir']).glob('*/*.log')).read_text()
    assert '1 images could not be read' in log


def test_a_repeated_data_set_is_cached_once(config: dict) -> None:
    loader = config['train_dataloader']
    loader['dataset'] = dict(type='RepeatDataset', times=3, dataset=loader['dataset'])
    runner = train(config)
    assert len(cached_teacher(runner).filled) == 2 * IMAGES


def test_the_built_in_data_set_is_cached(config: dict) -> None:
    # it makes its images in prepare_data, not in the pipeline
    pytest.importorskip('medic_mm.datasets.embedded_shapes', reason='no scikit-image')
    config['train_dataloader']['dataset'] = dict(
        type='medic_mm.EmbeddedShapes',
        length=IMAGES,
        img_size=24,
        pipeline=pipeline_of(config)[1:],
    )
    runner = train(config)
    assert cached_teacher(runner).filled.all()


def test_several_data_sets_are_refused(config: dict) -> None:
    loader = config['train_dataloader']
    loader['dataset'] = dict(type='ConcatDataset', datasets=[loader['dataset']] * 2)
    with pytest.raises(ValueError, match='training data are a ConcatDataset'):
        train(config)


def test_a_pipeline_without_fixed_view_is_refused(config: dict) -> None:
    pipeline_of(config)[1:2] = pipeline_of(config)[1]['transforms']
    with pytest.raises(ValueError, match='has 0 FixedView'):
        train(config)


def test_missing_meta_keys_are_found_before_training(config: dict) -> None:
    pipeline_of(config)[-1].pop('meta_keys')
    with pytest.raises(ValueError, match=r"meta_keys=\('sample_idx', 'view'\)"):
        train(config)


def test_models_without_a_cached_teacher(config: dict) -> None:
    config['model']['target_generator'] = None
    train(config)  # a run without a teacher has nothing to cache
    config['model']['target_generator'] = dict(type='medic_mm.CacheTestTeacher')
    with pytest.raises(ValueError, match='needs one CachedTeacher'):
        train(config)


def test_a_run_without_the_hook_names_it(config: dict) -> None:
    config['custom_hooks'] = []
    with pytest.raises(RuntimeError, match='TeacherCacheHook'):
        train(config)


def _train_in_group(rank: int, folder: Path, work_dir: Path) -> None:
    """One of two processes; run by the test below through this file's last lines."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', f'file://{work_dir / "meeting"}', rank=rank, world_size=2
    )
    runner = train(with_attention(make_config(folder, work_dir)))
    (work_dir / f'seen-{rank}').write_text(str(cached_teacher(runner).teacher.seen))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_share_the_work(folder: Path, tmp_path: Path) -> None:
    alone, together = make_config(folder, tmp_path / 'a'), make_config(folder, tmp_path)
    train(with_attention(alone))
    command = [sys.executable, __file__]
    processes = [
        subprocess.Popen([*command, rank, folder, tmp_path]) for rank in ('0', '1')
    ]
    try:
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    assert cache_file(together).name == cache_file(alone).name
    expected, found = load_file(cache_file(alone)), load_file(cache_file(together))
    for name in ('tokens', 'attention'):
        # atol: two of the smallest steps of float16
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1.2e-7)
    assert found['filled'].all()
    seen = [int((tmp_path / f'seen-{rank}').read_text()) for rank in (0, 1)]
    assert seen == [IMAGES + 8, IMAGES + 8]


if __name__ == '__main__':
    _train_in_group(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
