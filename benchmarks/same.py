"""Show that a change of structure changed no result.

``python benchmarks/same.py BASE`` checks the commit BASE out into a temporary folder,
collects the same facts from it and from this working tree, one after the other on this
machine, and compares them:

- losses and final weights of seven trainings of 20 steps, bit for bit (small configs,
  fixed seeds, images made on the spot);
- names in the ``state_dict`` of the model of every shipped config;
- registered names;
- options of every tool, which may gain but not lose.

No numbers are stored, since they differ from CPU to CPU. It takes some minutes a
tree on one core. Status 0: all is equal; 1: something differs, and is named.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

TRAIN = dict(batch_size=10, num_workers=0, persistent_workers=False)
COMMON = dict(
    train_cfg=dict(max_epochs=2),
    param_scheduler=[dict(type='ConstantLR', factor=1.0, by_epoch=True)],
    default_hooks=dict(
        logger=dict(interval=1), checkpoint=dict(interval=2, max_keep_ckpts=1)
    ),
    randomness=dict(seed=1),
    train_dataloader=TRAIN,
)
RANDOM_VIT = dict(
    _delete_=True,
    type='medic_mm.TimmTeacher',
    model='test_vit',
    input_size=128,
    random_weights=True,
)
MEDIC = dict(
    head=dict(target_dims=64),
    target_generator=dict(cache_dir='cache', teacher=RANDOM_VIT),
)
MAE_TEACHER = dict(weights=None, random_weights=True)
CIFAR = '1xb100-coslr-{}e_cifar10-64px.py'
TINYMIM = dict(
    backbone=dict(block_heads=8),
    head=dict(
        student_heads=8,
        matching=dict(_delete_=True, type='medic_mm.OneToOneMatching'),
    ),
    target_generator=MAE_TEACHER,
)

# name: (config, what is changed in it)
RUNS = {
    'quickstart': (
        'quickstart/medic_tiny.py',
        dict(
            model=dict(target_generator=dict(weights=None, random_weights=True)),
            train_dataloader=dict(TRAIN, dataset=dict(length=100)),
            custom_hooks=[dict(type='medic_mm.StopOnNaNHook')],
        ),
    ),
    'MEDiC': (
        f'medic/medic_vit-tiny-p8_{CIFAR.format(20)}',
        dict(model=MEDIC),
    ),
    'MEDiC, evolved masks': (
        f'medic/medic-evolved-em75_vit-tiny-p8_{CIFAR.format(20)}',
        dict(model=MEDIC),
    ),
    'MIM-HD': (
        f'mimhd/mimhd_vit-tiny-p8_{CIFAR.format(12)}',
        dict(model=dict(target_generator=MAE_TEACHER)),
    ),
    'TinyMIM': (
        f'mimhd/mimhd-relations_vit-tiny-p8_{CIFAR.format(12)}',
        dict(model=TINYMIM),
    ),
    'fine-tuning': (
        f'benchmarks/classification/vit-tiny-p8_medic-pre_{CIFAR.format(10)}',
        {},
    ),
    'UperNet': (
        'benchmarks/segmentation/vit-tiny-p8_medic-pre_upernet_1xb8-400i_'
        'camvid-240x176.py',
        dict(
            train_cfg=dict(max_iters=20, val_interval=100),
            train_dataloader=dict(TRAIN, batch_size=2),
            val_dataloader=dict(num_workers=0, persistent_workers=False),
            default_hooks=dict(
                logger=dict(interval=1),
                checkpoint=dict(interval=20, by_epoch=False, max_keep_ckpts=1),
            ),
        ),
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('base', nargs='?', help='a commit to compare with')
    parser.add_argument('--collect', metavar='FOLDER', help=argparse.SUPPRESS)
    parser.add_argument(
        '--skip', nargs='+', default=[], choices=('runs', 'keys', 'names', 'options')
    )
    args = parser.parse_args()
    if args.collect:
        print(json.dumps(collect(Path(args.collect), args.skip)))
        return 0
    if args.base is None:
        parser.error('name a commit to compare with')
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, 'base')
        git = ['git', '-C', str(ROOT)]
        subprocess.run(
            [*git, 'worktree', 'add', '-q', str(base), args.base], check=True
        )
        try:
            facts = [facts_of(tree, args.skip) for tree in (base, ROOT)]
        finally:
            subprocess.run([*git, 'worktree', 'remove', '--force', str(base)])
    return compare(*facts)


def facts_of(tree: Path, skip: list[str]) -> dict:
    """What :func:`collect` finds with the package of ``tree``, in its own process."""
    command = [sys.executable, __file__, '--collect', str(tree)]
    command += ['--skip', *skip] if skip else []
    environment = {**os.environ, 'PYTHONPATH': str(tree), 'OMP_NUM_THREADS': '1'}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
        )
    if done.returncode:
        sys.exit(f'error: nothing could be collected from {tree}')
    return json.loads(done.stdout.splitlines()[-1])


def collect(tree: Path, skip: list[str]) -> dict:
    """All facts of one tree; runs in an empty folder with PYTHONPATH=tree."""
    facts = {}
    if 'runs' not in skip:
        make_data(Path.cwd())
        facts['runs'] = {name: train(tree, *RUNS[name]) for name in RUNS}
    if 'keys' not in skip:
        facts['keys'] = weight_names(tree)
    if 'names' not in skip:
        facts['names'] = registered_names()
    if 'options' not in skip:
        facts['options'] = tool_options(tree)
    return facts


def make_data(folder: Path) -> None:
    """CIFAR-10's and CamVid's folders with a few images of noise."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)

    def save(array: np.ndarray, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)

    for split in ('train', 'val', 'test'):
        for i in range(100):
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            save(pixels, folder / f'data/cifar10/{split}/class{i % 10}/{i:03}.png')
        for i in range(8):
            pixels = random.integers(0, 256, (60, 80, 3), dtype=np.uint8)
            save(pixels, folder / f'data/camvid/images/{split}/{i}.jpg')
            classes = random.integers(0, 11, (60, 80), dtype=np.uint8)
            save(classes, folder / f'data/camvid/annotations/{split}/{i}.png')


def train(tree: Path, config: str, changes: dict) -> dict:
    """Losses of each step and the hash of the weights after 20."""
    import torch

    settings = {**COMMON, **changes}
    if 'dataset' not in settings['train_dataloader']:
        settings.setdefault('val_dataloader', None)
    lines = [f'_base_ = {str(tree / "configs" / config)!r}']
    for name, value in settings.items():
        if value is not None:
            lines.append(f'{name} = {value!r}')
    Path('run.py').write_text('\n'.join(lines) + '\n')
    work = Path('work', hashlib.sha256(config.encode()).hexdigest()[:8])
    command = [sys.executable, str(tree / 'tools/train.py'), 'run.py']
    command += ['--work-dir', str(work), '--no-validate']
    if config.startswith('benchmarks/'):
        command += ['--pretrained', 'random']
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f'error: {config} in {tree}:\n{(done.stdout + done.stderr)[-3000:]}')
    losses = []
    for path in sorted(work.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            if 'loss' in row:
                losses.append({k: v for k, v in row.items() if 'loss' in k})
    checkpoint = max(work.glob('*.pth'), key=lambda path: path.stat().st_mtime)
    state = torch.load(checkpoint, map_location='cpu', weights_only=False)['state_dict']
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].contiguous().numpy().tobytes())
    return {'losses': losses, 'weights': digest.hexdigest()}


def weight_names(tree: Path) -> dict[str, str]:
    """Hash of the names and shapes in each shipped config's model, at test size."""
    from mmengine.config import Config
    from mmengine.registry import MODELS, DefaultScope

    sys.path.append(str(ROOT / 'tests'))
    from shrinking import shrink
    from shrinking_benchmarks import shrink_benchmark

    found = {}
    for path in sorted((tree / 'configs').rglob('*.py')):
        if '_base_' in path.parts:
            continue
        cfg = Config.fromfile(path)
        cfg = shrink_benchmark(cfg) if 'benchmarks' in path.parts else shrink(cfg)
        model = dict(cfg.model)
        if cfg.get('data_preprocessor'):
            model.setdefault('data_preprocessor', cfg.data_preprocessor)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            state = MODELS.build(model).state_dict()
        text = '\n'.join(f'{k} {tuple(v.shape)}' for k, v in sorted(state.items()))
        found[str(path.relative_to(tree / 'configs'))] = (
            f'{len(state)} {hashlib.sha256(text.encode()).hexdigest()[:16]}'
        )
    return found


def registered_names() -> list[str]:
    """``registry/name`` of all our components."""
    from mmengine.registry import Registry

    from medic_mm import registry

    own = {k: v for k, v in vars(registry).items() if isinstance(v, Registry)}
    names = []
    for name, found in own.items():
        if found.scope == 'medic_mm':
            found.import_from_location()
            names += [f'{name}/{key}' for key in found.module_dict]
    return sorted(names)


def tool_options(tree: Path) -> dict[str, list[str]]:
    """Options of each tool and sub-command, from its own help."""
    found = {}
    for path in sorted((tree / 'tools').glob('*.py')):
        help_text = _help(path)
        found[path.name] = _options(help_text)
        commands = re.search(r'\{([\w,-]+)\}\s*\.\.\.', help_text)
        for command in commands[1].split(',') if commands else []:
            found[f'{path.name} {command}'] = _options(_help(path, command))
    return found


def _help(path: Path, *command: str) -> str:
    call = [sys.executable, str(path), *command, '--help']
    return subprocess.run(call, capture_output=True, text=True, check=True).stdout


def _options(text: str) -> list[str]:
    return sorted(set(re.findall(r'(?<![\w-])--[a-z][a-z0-9-]*', text)))


def compare(base: dict, now: dict) -> int:
    """Print what is equal and what is not; the status."""
    differences = []
    for kind, before in base.items():
        after = now[kind]
        if kind == 'names':
            lost = sorted(set(before) - set(after))
            gained = sorted(set(after) - set(before))
            differences += [f'{kind}: {name} is gone' for name in lost]
            print(f'{kind}: {len(before)} before; gained {gained or "none"}')
            continue
        for name, value in before.items():
            other = after.get(name)
            if kind == 'options':
                lost = sorted(set(value) - set(other or []))
                if lost or other is None:
                    differences.append(f'{kind}: {name} lost {lost or "all"}')
            elif other != value:
                differences.append(f'{kind}: {name} {_how(value, other)}')
        print(f'{kind}: {len(before)} compared')
    for difference in differences:
        print(f'DIFFERS {difference}')
    print('Nothing moved.' if not differences else f'{len(differences)} differ.')
    return bool(differences)


def _how(before: object, after: object) -> str:
    if not isinstance(before, dict) or not isinstance(after, dict):
        return f'was {before}, is {after}'
    for step, (one, two) in enumerate(
        zip(before['losses'], after['losses'], strict=False), start=1
    ):
        if one != two:
            return f'differs from step {step} on: {one} and {two}'
    return 'has equal losses and other final weights'


if __name__ == '__main__':
    sys.exit(main())
