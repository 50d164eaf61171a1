"""Features: their values, their order over processes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from mmengine.dataset import DefaultSampler
from mmengine.structures import BaseDataElement
from numbered import (
    IMAGES,
    Model,
    Numbers,
    Preprocessor,
    Unlabelled,
    check_values,
    loader,
    run_process,
)
from torch import Tensor, nn
from torch.utils.data import Dataset

from medic_mm.evaluation.features import (
    Features,
    PixelEncoder,
    TeacherEncoder,
    TokenEncoder,
    count_classes,
    extract_features,
    loader_settings,
)
from medic_mm.evaluation.knn_metrics import knn_metrics


def test_tokens_in_order_and_modes_restored() -> None:
    model = Model().train()
    model.backbone.eval()  # a mix of modes, as with frozen stages
    model.backbone.dropout.train()
    preprocessor = Preprocessor()
    check_values(extract_features(TokenEncoder(model), preprocessor, loader()))
    modes = [model.training, model.backbone.training, model.backbone.dropout.training]
    assert modes == [True, False, True]
    assert preprocessor.training


def test_modes_are_restored_after_an_error() -> None:
    model = Model().train()
    encode = TokenEncoder(model)
    with pytest.raises(ValueError, match='no labels'):
        extract_features(encode, Preprocessor(), loader(Unlabelled()))
    assert all(module.training for module in model.modules())


def test_pixels_and_teacher() -> None:
    pixels = extract_features(PixelEncoder(), Preprocessor(), loader())
    expected = torch.arange(IMAGES).float()[:, None].expand(-1, 48) / 2
    assert torch.equal(pixels.values['pixels'], expected)

    from tiny import TinyTeacher

    class Statistics(Preprocessor):
        mean, std = torch.zeros(3, 1, 1), torch.full((3, 1, 1), 255.0)

    teacher, preprocessor = TinyTeacher(), Statistics()
    teacher.init_weights()
    encode = TeacherEncoder(teacher, preprocessor)
    found = extract_features(encode, preprocessor, loader())
    images = torch.arange(IMAGES).float().view(-1, 1, 1, 1).expand(-1, 3, 4, 4) / 2
    output = teacher(images, preprocessor.mean, preprocessor.std)
    close = torch.testing.assert_close
    close(found.values['cls'], output.cls_token, atol=1e-4, rtol=1e-4)
    close(found.values['mean'], output.patch_tokens.mean(1), atol=1e-4, rtol=1e-4)


def test_runs_under_the_callers_autocast() -> None:
    seen = []

    class Watching(Model):
        def extract_feat(self, inputs: Tensor) -> tuple[Tensor]:
            seen.append(torch.is_autocast_enabled('cpu'))
            return super().extract_feat(inputs)

    with torch.autocast('cpu', torch.bfloat16):
        found = extract_features(TokenEncoder(Watching()), Preprocessor(), loader())
    assert all(seen) and len(seen) == 3
    assert found.values['cls'].dtype == torch.float32


def test_two_processes_gather_in_order(tmp_path: Path) -> None:
    mp.spawn(run_process, args=(2, str(tmp_path / 'store')), nprocs=2)


def test_metrics_of_diverged_features_are_nan() -> None:
    good = Features({'cls': torch.randn(9, 4)}, torch.arange(9))
    bad = Features({'cls': torch.full((9, 4), torch.inf)}, torch.arange(9))
    names = {'top1_k3', 'top5_k3', 'rankme'}
    for train, test in ((good, bad), (bad, good)):
        found = knn_metrics(train, test, 9, ks=(3,))['cls']
        assert set(found) == names
        assert all(value != value for value in found.values())
    few = knn_metrics(good, Features(good.values, torch.zeros(9).long()), 9, ks=(3,))
    assert set(few['cls']) == names


def test_five_best_of_few_classes_are_left_out() -> None:
    features = Features({'cls': torch.randn(9, 4)}, torch.arange(9) % 5)
    assert set(knn_metrics(features, features, 5, (2,))['cls']) == {'top1_k2', 'rankme'}


class MultiLabel(Numbers):
    def __getitem__(self, index: int) -> dict:
        sample = BaseDataElement(gt_label=torch.tensor([0, 1]))
        return {**super().__getitem__(index), 'data_samples': sample}


class Views(Numbers):
    def __getitem__(self, index: int) -> dict:
        item = super().__getitem__(index)
        return {**item, 'inputs': [item['inputs'], item['inputs']]}


class ListPreprocessor(Preprocessor):
    def forward(self, data: dict, training: bool) -> dict:
        return data


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(sampler=DefaultSampler(Numbers(), shuffle=True)), 'must be in order'),
        (dict(sampler=None, shuffle=True), 'is RandomSampler but'),
        (dict(drop_last=True), 'gave 6 of its 7 images: use drop_last=False'),
        (dict(dataset=MultiLabel()), '2 labels for an image'),
        (dict(dataset=Views()), 'default_collate'),
    ],
)
def test_bad_loaders(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        extract_features(PixelEncoder(), ListPreprocessor(), loader(**settings))


def test_plain_loader_in_order() -> None:
    data = loader(sampler=None, shuffle=False)
    check_values(extract_features(TokenEncoder(Model()), Preprocessor(), data))


@pytest.mark.parametrize(
    ('change', 'names', 'words'),
    [
        (dict(out_type='avg_featmap'), ('cls',), "needs out_type='raw'"),
        (dict(num_extra_tokens=0), ('cls',), "no class token: use 'mean'"),
        ({}, ('cls', 'max'), 'features='),
        ({}, (), 'features='),
        ({}, 'cls', 'features='),
    ],
)
def test_bad_encoders(change: dict, names: tuple, words: str) -> None:
    model = Model()
    for name, value in change.items():
        setattr(model.backbone, name, value)
    with pytest.raises(ValueError, match=words):
        TokenEncoder(model, names)


def test_outputs_that_are_no_tokens() -> None:
    class Maps(Model):
        def extract_feat(self, inputs: Tensor) -> Tensor:
            return inputs

    encode = TokenEncoder(Maps())
    with pytest.raises(ValueError, match=r'gives \(2, 3, 4, 4\): k-NN needs raw'):
        encode(torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match='Linear has no backbone'):
        TokenEncoder(nn.Linear(1, 1))


class Renamed(Numbers):
    """Another kind of data set, with other words for its classes."""


@pytest.mark.parametrize(
    ('train', 'test', 'words'),
    [
        (Unlabelled(), Numbers(), 'train data set of k-NN has no labels'),
        (Numbers(), Unlabelled(), 'test data set of k-NN has no labels'),
        (Numbers(classes=None), Numbers(classes=None), 'number of classes .* unknown'),
        (Numbers(classes='abcd'), Numbers(), 'different classes: 4 in train, 3 in'),
        (Numbers(classes='abd'), Numbers(), 'different classes'),
        (Renamed(classes='abcd'), Numbers(), 'different classes'),
        (Numbers(0), Numbers(), 'train data set of k-NN is empty'),
        ([1, 2], Numbers(), 'gives no data_samples'),
    ],
)
def test_bad_data_sets(train: Dataset, test: Dataset, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        count_classes(train, test)


def test_classes_of_either_data_set_do() -> None:
    assert count_classes(Numbers(), Numbers(classes=None)) == 3
    assert count_classes(Numbers(classes=None), Numbers()) == 3
    assert count_classes(Renamed(classes='xyz'), Numbers()) == 3


def test_loader_settings_fill_gaps_only() -> None:
    filled = loader_settings(dict(batch_size=2, sampler=dict(type='Mine')))
    assert filled == dict(
        batch_size=2,
        sampler=dict(type='Mine'),
        collate_fn=dict(type='default_collate'),
    )
