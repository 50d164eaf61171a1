"""KNNHook: right numbers at the right steps, and no trace in the training."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from labelled import knn_hook_config, loader_config, make_folder, training_config
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from medic_mm.engine.hooks import KNNHook
from medic_mm.evaluation import knn_accuracy, rankme

COUNTER = itertools.count()
NAMES = ('top1_k3', 'rankme')


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp('labelled'))


def build(folder: Path, work_dir: Path, *hooks: dict, **changes) -> Runner:
    settings = {**training_config(folder, work_dir, list(hooks)), **changes}
    settings.setdefault('default_hooks', dict(checkpoint=None))
    settings['experiment_name'] = f'knn_{next(COUNTER)}'
    return Runner.from_cfg(Config(settings))


def curves(runner: Runner) -> dict[str, list[float]]:
    scalars = runner.message_hub.log_scalars
    return {k: v.data[0].tolist() for k, v in scalars.items() if k.startswith('knn/')}


def written(runner: Runner) -> list[dict]:
    """The points of k-NN in the file of the visualisation backend."""
    lines = Path(runner.log_dir, 'vis_data', 'scalars.json').read_text().splitlines()
    points = [json.loads(line) for line in lines]
    return [point for point in points if any(k.startswith('knn/') for k in point)]


def weights(runner: Runner) -> dict[str, Tensor]:
    return runner.model.state_dict()


def all_images(config: dict) -> tuple[Tensor, Tensor]:
    dataset = Runner.build_dataloader(config).dataset
    items = [dataset[index] for index in range(len(dataset))]
    labels = [int(item['data_samples'].gt_label) for item in items]
    return torch.stack([item['inputs'] for item in items]), torch.tensor(labels)


def expected_metrics(model: torch.nn.Module, folder: Path) -> dict[str, float]:
    """What the curves must hold, by a plain pass over all images at once."""
    features, labels = [], []
    model.eval()
    for split in ('train', 'val'):
        images, found = all_images(loader_config(folder, split))
        batch = model.data_preprocessor(dict(inputs=images, data_samples=[]))
        with torch.no_grad():
            tokens = model.extract_feat(batch['inputs'])[-1]
        features.append({'cls': tokens[:, 0], 'mean': tokens[:, 1:].mean(1)})
        labels.append(found)
    metrics = {}
    for name, queries in features[1].items():
        bank = features[0][name]
        accuracy = knn_accuracy(bank, labels[0], queries, labels[1], 3, (3,), topk=(1,))
        metrics[f'knn/{name}_top1_k3'] = accuracy[3][1]
        metrics[f'knn/{name}_rankme'] = rankme(queries)
    return metrics


def test_training_is_the_same_with_and_without(folder: Path, tmp_path: Path) -> None:
    plain = build(folder, tmp_path / 'plain')
    plain.train()
    hook = knn_hook_config(folder, k=(3, 5))
    watched = build(folder, tmp_path / 'watched', hook)
    watched.train()
    assert curves(watched)['knn/step'] == [0, 1, 2]
    assert not curves(plain)
    ours, theirs = weights(watched), weights(plain)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    moments = [
        r.optim_wrapper.optimizer.state_dict()['state'] for r in (watched, plain)
    ]
    torch.testing.assert_close(moments[0], moments[1], atol=0, rtol=0)
    modes = [[m.training for m in r.model.modules()] for r in (watched, plain)]
    assert modes[0] == modes[1]


def test_points_are_the_models_own(folder: Path, tmp_path: Path) -> None:
    hook = knn_hook_config(folder, k=3)
    runner = build(folder, tmp_path, hook, log_level='INFO')

    class Recorder(Hook):
        """Computes each point anew, right before KNNHook does."""

        priority = 'HIGH'
        found: list[dict] = []

        def before_train(self, runner: Runner) -> None:
            self.found.append(expected_metrics(runner.model, folder))

        def after_train_epoch(self, runner: Runner) -> None:
            self.found.append(expected_metrics(runner.model, folder))

    runner.register_hook(Recorder())
    runner.train()
    found = curves(runner)
    assert found.pop('knn/step') == [0, 1, 2]
    assert set(found) == {f'knn/{f}_{n}' for f in ('cls', 'mean') for n in NAMES}
    for index, expected in enumerate(Recorder.found):
        for key, value in expected.items():
            assert found[key][index] == pytest.approx(value, rel=1e-4)
    for index, point in enumerate(written(runner)):
        assert point.pop('step') == index
        assert point == {key: curve[index] for key, curve in found.items()}
    log = next(Path(runner.log_dir).glob('*.log')).read_text()
    value = found['knn/cls_top1_k3'][0]
    assert f'k-NN before training: cls_top1_k3 {value:.2f}, cls_rankme' in log


def test_intervals_and_the_last_point(folder: Path, tmp_path: Path) -> None:
    hook = knn_hook_config(folder, k=3, interval=2, features=('mean',))
    epochs = build(
        folder, tmp_path / 'a', hook, train_cfg=dict(by_epoch=True, max_epochs=3)
    )
    epochs.train()
    assert curves(epochs)['knn/step'] == [0, 2, 3]
    assert set(curves(epochs)) == {'knn/step', 'knn/mean_top1_k3', 'knn/mean_rankme'}
    iterations = build(
        folder,
        tmp_path / 'b',
        knn_hook_config(folder, k=3, interval=4, by_epoch=False),
    )
    iterations.train()
    assert curves(iterations)['knn/step'] == [0, 4, 6]


def test_resumed_run_goes_on_with_its_curve(folder: Path, tmp_path: Path) -> None:
    hook, saving = knn_hook_config(folder, k=3), dict(default_hooks={})
    whole = build(folder, tmp_path / 'whole', hook)
    whole.train()
    one_epoch = dict(by_epoch=True, max_epochs=1)
    first = build(folder, tmp_path / 'part', hook, train_cfg=one_epoch, **saving)
    first.train()
    # another folder: a fast first run has the same time stamp
    going_on = dict(resume=True, load_from=str(tmp_path / 'part' / 'epoch_1.pth'))
    second = build(folder, tmp_path / 'rest', hook, log_level='INFO', **going_on)
    second.train()
    assert curves(second)['knn/step'] == [0, 1, 2]
    assert curves(second)['knn/cls_top1_k3'][:2] == curves(whole)['knn/cls_top1_k3'][:2]
    assert [point['step'] for point in written(second)] == [2]
    log = next(Path(second.log_dir).glob('*.log')).read_text()
    assert 'before training' not in log
    line = next(line for line in log.splitlines() if 'k-NN' in line)
    assert 'k-NN epoch 2: cls_top1_k3 ' in line
    assert '15 train and 15 test images' in line


def test_diverged_network_is_named_and_training_goes_on(
    folder: Path, tmp_path: Path
) -> None:
    hook = knn_hook_config(folder, k=3, features=('cls',))
    runner = build(folder, tmp_path, hook)

    class Break(Hook):
        priority = 'HIGH'

        def after_train_epoch(self, runner: Runner) -> None:
            torch.nn.init.constant_(runner.model.backbone.ln1.weight, math.nan)

    runner.register_hook(Break())
    runner.train()
    assert runner.epoch == 2
    found = curves(runner)
    assert found['knn/step'] == [0, 1, 2]
    assert [math.isnan(v) for v in found['knn/cls_top1_k3']] == [False, True, True]
    assert [point['step'] for point in written(runner)] == [0]
    log = next(Path(runner.log_dir).glob('*.log')).read_text()
    assert 'k-NN epoch 1: features have NaN' in log


def unlabelled(folder: Path) -> dict:
    return loader_config(folder, 'train', with_label=False)


def listed(folder: Path) -> dict:
    """An annotation file has labels but no names of classes."""
    listing = folder / 'list.txt'
    listing.write_text('dark/0.png 0\nlight/0.png 2\n')
    return loader_config(folder, 'train', ann_file=str(listing))


def shuffled(folder: Path) -> dict:
    sampler = dict(type='DefaultSampler', shuffle=True)
    return {**loader_config(folder, 'train'), 'sampler': sampler}


@pytest.mark.parametrize(
    ('loader', 'words'),
    [
        (unlabelled, 'train data set of k-NN has no labels'),
        (listed, 'number of classes for k-NN is unknown'),
        (shuffled, 'must be in order'),
    ],
)
def test_bad_data_fails_before_the_first_step(
    folder: Path, tmp_path: Path, loader, words: str
) -> None:
    hook = knn_hook_config(folder)
    hook['train_dataloader'] = loader(folder)
    if loader is listed:
        hook['test_dataloader'] = loader(folder)
    runner = build(folder, tmp_path, hook)
    with pytest.raises(ValueError, match=words):
        runner.train()
    assert runner.iter == 0


def test_backbone_without_tokens_fails_before_the_first_step(
    folder: Path, tmp_path: Path
) -> None:
    settings = training_config(folder, tmp_path, [knn_hook_config(folder)])
    settings['model']['backbone']['out_type'] = 'avg_featmap'
    runner = Runner.from_cfg(Config({**settings, 'experiment_name': 'knn_tokens'}))
    with pytest.raises(ValueError, match="needs out_type='raw'"):
        runner.train()
    assert runner.iter == 0


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(interval=0), 'interval=0 of KNNHook'),
        (dict(k=0), 'k=0 must'),
        (dict(k=()), 'k is empty'),
        (dict(temperature=-1.0), 'temperature=-1.0 must'),
        (dict(features=('patch',)), 'features='),
    ],
)
def test_bad_settings(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        KNNHook({}, {}, **settings)
