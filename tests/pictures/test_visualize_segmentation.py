"""tools/visualize.py segmentation: a tiny UperNet on tiny images with their truth."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from shrinking_benchmarks import shrink_benchmark
from torch import nn

from medic_mm.errors import UserError
from medic_mm.pictures.segmentation import visualize_segmentation

CAMVID = 'vit-tiny-p8_medic-pre_upernet_1xb8-400i_camvid-240x176.py'
DRAW = 'medic_mm.pictures.segmentation.draw_segmentations'


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of 60x80 with the classes 0 to 10, and ignored pixels."""
    random = np.random.default_rng(0)
    root = tmp_path_factory.mktemp('camvid')
    for kind in ('images', 'annotations'):
        (root / kind / 'test').mkdir(parents=True)
    for name in 'abcdef':
        image = random.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        truth = (
            random.integers(0, 12, (12, 16), dtype=np.uint8).repeat(5, 0).repeat(5, 1)
        )
        truth[truth == 11] = 255
        cv2.imwrite(str(root / f'images/test/{name}.jpg'), image)
        cv2.imwrite(str(root / f'annotations/test/{name}.png'), truth)
    return root


@pytest.fixture
def config(data: Path, root: Path) -> Config:
    pytest.importorskip('mmseg')
    path = root / 'configs' / 'benchmarks' / 'segmentation' / CAMVID
    cfg = shrink_benchmark(Config.fromfile(path))
    cfg.test_dataloader.dataset.data_root = str(data)
    return cfg


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What is given to the drawing, in place of a figure."""
    seen: list[tuple] = []
    monkeypatch.setattr(DRAW, lambda figure, *given: seen.append(given))
    return seen


def build(config: Config) -> nn.Module:
    torch.manual_seed(3)
    model = config.model.to_dict()
    model['backbone']['init_cfg'] = None
    with DefaultScope.overwrite_default_scope('mmseg'):
        network = MODELS.build(model)
    network.init_weights()
    return network.eval()


def run_tool(monkeypatch: pytest.MonkeyPatch, root: Path, *words: object) -> None:
    """Run tools/visualize.py as the command line does."""
    monkeypatch.setattr(sys, 'argv', ['visualize.py', *map(str, words)])
    runpy.run_path(str(root / 'tools' / 'visualize.py'), run_name='__main__')


def test_the_tool_draws_four_images_a_picture(
    config: Config,
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    path, out = tmp_path / 'tiny.py', tmp_path / 'out'
    config.dump(path)
    words = ('segmentation', path, 'random', '--limit', 5, '--out', out)
    run_tool(monkeypatch, root, *words, '--device', 'cpu')
    files = [out / 'segmentation.png', out / 'segmentation_2.png']
    assert sorted(out.iterdir()) == files
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2:] == [f'wrote {file}' for file in files]
    # the truth has all classes, so all colours of the palette are on the page
    page = cv2.imread(str(files[0]))[..., ::-1].reshape(-1, 3)
    present = {tuple(colour) for colour in np.unique(page, axis=0).tolist()}
    palette = config.test_dataloader.dataset.metainfo.palette
    assert {tuple(colour) for colour in palette} <= present


def test_truth_is_the_files_and_the_prediction_the_models(
    config: Config, data: Path, tmp_path: Path, drawn: list
) -> None:
    model = build(config)
    checkpoint = tmp_path / 'iter_9.pth'
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    visualize_segmentation(config, str(checkpoint), [], tmp_path / 'out', limit=3)
    ((found, classes, heading),) = drawn
    assert heading.endswith('iter_9.pth')
    assert [each.name for each in found] == ['a', 'c', 'e'], 'not neighbours'
    assert list(classes.names)[:2] == ['sky', 'building']
    assert classes.ignore_index == 255
    preprocessor = config.model.data_preprocessor
    mean, std = (np.array(preprocessor[key]) for key in ('mean', 'std'))
    for each in found:
        image = cv2.imread(str(data / f'images/test/{each.name}.jpg'))
        truth = cv2.imread(str(data / f'annotations/test/{each.name}.png'), -1)
        assert np.array_equal(each.image, image[..., ::-1])
        assert np.array_equal(each.truth, truth)
        # by hand: resized to the size of the config, normalised, and back to 60x80
        small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_LINEAR)
        normalised = (small[..., ::-1] - mean) / std
        batch = torch.from_numpy(normalised).permute(2, 0, 1)[None].float()
        with torch.no_grad():
            logits = model.encode_decode(batch, [dict(img_shape=(64, 64))])
            logits = nn.functional.interpolate(
                logits, (60, 80), mode='bilinear', align_corners=False
            )
        expected = logits[0].argmax(0).numpy()
        assert (each.prediction == expected).mean() > 0.999
        assert len(np.unique(expected)) > 1


def test_files_of_the_user_with_and_without_annotations(
    config: Config, data: Path, tmp_path: Path, drawn: list
) -> None:
    images = [data / 'images' / 'test' / 'f.jpg', data / 'images' / 'test' / 'b.jpg']
    # the config's own data are not needed then
    config.test_dataloader.dataset.data_root = str(tmp_path / 'nowhere')
    visualize_segmentation(config, 'random', images, tmp_path)
    assert [each.name for each in drawn[0][0]] == ['f', 'b']
    assert [each.truth for each in drawn[0][0]] == [None, None]
    truths = data / 'annotations'  # found below it, too
    visualize_segmentation(config, 'random', images, tmp_path, annotations=truths)
    for each in drawn[1][0]:
        truth = cv2.imread(str(truths / 'test' / f'{each.name}.png'), -1)
        assert np.array_equal(each.truth, truth)
    for first, second in zip(drawn[0][0], drawn[1][0], strict=True):
        assert np.array_equal(first.prediction, second.prediction)


def test_labels_are_reduced_as_the_config_says(
    config: Config, data: Path, tmp_path: Path, drawn: list
) -> None:
    config.test_dataloader.dataset.reduce_zero_label = True
    for step in config.test_dataloader.dataset.pipeline:
        if step.type == 'LoadAnnotations':
            step.reduce_zero_label = True
    visualize_segmentation(config, 'random', [], tmp_path, limit=1)
    found = drawn[0][0][0]
    truth = cv2.imread(str(data / f'annotations/test/{found.name}.png'), -1).astype(int)
    expected = np.where((truth == 0) | (truth == 255), 255, truth - 1)
    assert np.array_equal(found.truth, expected)


def refused(
    monkeypatch: pytest.MonkeyPatch,
    root: Path,
    capsys: pytest.CaptureFixture,
    *words: object,
) -> str:
    """The one sentence that the tool ends with."""
    with pytest.raises(SystemExit) as stop:
        run_tool(monkeypatch, root, 'segmentation', *words)
    assert stop.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    (error,) = [line for line in lines if line.startswith('error: ')]
    assert lines[-1] == error
    return error


def test_bad_input_gives_one_sentence(
    config: Config,
    data: Path,
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    state = build(config).state_dict()
    lacking = tmp_path / 'lacking.pth'
    del state['decode_head.conv_seg.bias']
    torch.save(dict(state_dict=state), lacking)
    many = tmp_path / 'many'
    many.mkdir()
    cv2.imwrite(str(many / 'a.png'), np.full((60, 80), 11, np.uint8))
    (tmp_path / 'empty').mkdir()
    config.dump(tmp_path / 'good.py')
    config.model.decode_head.num_classes = 5
    config.dump(tmp_path / 'five.py')
    config.test_dataloader.dataset.data_root = 'nowhere'
    config.dump(tmp_path / 'away.py')
    Config(dict(model=dict(type='MAE'))).dump(tmp_path / 'mae.py')
    image = data / 'images' / 'test' / 'a.jpg'
    cases = {
        ('good', lacking): r'missing decode_head\.conv_seg\.bias; unexpected nothing',
        ('good', 'none.pth'): r"checkpoint 'none\.pth' does not exist",
        ('good', 'random', '--annotations', many): r'many needs IMAGES',
        (
            'good',
            'random',
            image,
            '--annotations',
            tmp_path / 'empty',
        ): r'no file a\.png',
        (
            'good',
            'random',
            image,
            '--annotations',
            many,
        ): r'holds the class 11 but .* 11',
        ('good', 'random', '--limit', 0): r'--limit 0: use 1 or more',
        ('good', 'random', lacking): r'lacking\.pth cannot be read: it is not an',
        ('five', 'random', image): r'num_classes=5 but the test data set 11 classes',
        ('away', 'random'): r"config's test images cannot be read: .*nowhere",
        ('mae', 'random'): r'the config is not one of segmentation',
    }
    for (name, *words), sentence in cases.items():
        call = (tmp_path / f'{name}.py', *words, '--out', tmp_path / 'out')
        assert re.search(sentence, refused(monkeypatch, root, capsys, *call))
    assert not (tmp_path / 'out').exists()


def test_without_mmseg_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'mmseg', None)
    monkeypatch.delitem(sys.modules, 'mmseg.models', raising=False)
    config = Config(
        dict(
            default_scope='mmseg',
            model=dict(backbone=dict(), decode_head=dict()),
            test_dataloader=dict(dataset=dict(pipeline=[])),
        )
    )
    with pytest.raises(UserError, match=r'needs mmsegmentation: pip install .*\[seg'):
        visualize_segmentation(config, 'random', [], tmp_path)
