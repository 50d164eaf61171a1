"""The built-in data set: pure by index, honest splits, labels that match the pixels."""

import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS, DefaultScope
from torch.utils.data import DataLoader

from medic_mm.datasets import embedded_shapes
from medic_mm.datasets.embedded_shapes import CAPTION_WORDS, CLASSES, EmbeddedShapes
from medic_mm.datasets.photographs import (
    CUTS,
    PHOTOGRAPHS,
    load_photographs,
    photograph_folder,
    split_box,
)
from medic_mm.datasets.shapes import SHAPES, draw_shape


def same(one: dict, other: dict) -> bool:
    return pickle.dumps(one) == pickle.dumps(other)


def plain_crop(level: float, size: int, generator: object) -> np.ndarray:
    return np.full((size, size, 3), 20 * level, np.uint8)


def test_a_sample_depends_on_its_index_alone():
    first, again = EmbeddedShapes(length=40), EmbeddedShapes(length=90)
    backwards = {i: again[i] for i in reversed(range(40))}
    assert all(same(first[i], backwards[i]) for i in range(40))
    images = {first[i]['img'].tobytes() for i in range(40)}
    assert len(images) == 40


def test_other_processes_make_the_same_samples(tmp_path):
    settings = dict(split='val', length=30, seed=3)
    program = f"""
import pickle
from medic_mm.datasets import EmbeddedShapes
dataset = EmbeddedShapes(**{settings!r})
with open({str(tmp_path / 'samples.pkl')!r}, 'wb') as file:
    pickle.dump([dataset[i] for i in (0, 7, 29)], file)
"""
    subprocess.run([sys.executable, '-c', program], check=True)
    here = EmbeddedShapes(**settings)
    elsewhere = pickle.loads((tmp_path / 'samples.pkl').read_bytes())
    assert all(same(here[i], s) for i, s in zip((0, 7, 29), elsewhere, strict=True))


@pytest.mark.parametrize('change', [dict(seed=1), dict(split='val')])
def test_seed_and_split_change_every_image(change):
    one, other = EmbeddedShapes(length=20), EmbeddedShapes(length=20, **change)
    assert not any(np.array_equal(one[i]['img'], other[i]['img']) for i in range(20))


@pytest.mark.parametrize('name', PHOTOGRAPHS)
def test_splits_share_no_pixel_of_a_photograph(name):
    image = cv2.imread(str(photograph_folder() / PHOTOGRAPHS[name]))
    height, width = image.shape[:2]
    owners = np.zeros((height, width), int)
    for split in CUTS:
        owners[split_box(name, split, height, width)] += 1
    assert owners.max() == 1
    # and the parts that are used are these: marked pixels come out where expected
    for split in CUTS:
        part = load_photographs(split)[list(PHOTOGRAPHS).index(name)]
        assert np.array_equal(part, image[split_box(name, split, height, width)])
        assert min(part.shape[:2]) >= 100


def test_images_show_only_pixels_of_their_split(monkeypatch):
    """Photographs painted in one colour a split: only it and white may appear."""
    paint = {'train': (200, 0, 0), 'val': (0, 0, 200)}

    def painted(split: str) -> list[np.ndarray]:
        return [np.full((120, 140, 3), paint[split], np.uint8) for _ in PHOTOGRAPHS]

    monkeypatch.setattr(embedded_shapes, 'load_photographs', painted)
    embedded_shapes._textures.cache_clear()
    try:
        for split, colour in paint.items():
            # two channels stay equal, however much white is mixed in
            one, other = (i for i in range(3) if colour[i] == 0)
            for i in range(20):
                image = EmbeddedShapes(split, length=20)[i]['img']
                assert np.array_equal(image[..., one], image[..., other])
                assert not np.array_equal(image[..., 0], image[..., 2])
                assert (image == colour).all(-1).any()
    finally:
        embedded_shapes._textures.cache_clear()


def test_map_and_label_match_what_is_pasted(monkeypatch):
    """With a white foreground on black, the map is where the image is bright."""
    dataset = EmbeddedShapes(length=50)
    monkeypatch.setattr(
        embedded_shapes,
        '_random_crop',
        lambda levels, size, generator: np.full((size, size, 3), levels, np.uint8),
    )
    monkeypatch.setattr(
        embedded_shapes, '_choose_photographs', lambda generator: (1, 0)
    )
    monkeypatch.setattr(embedded_shapes, '_textures', lambda split, size: (0, 255))
    for i in range(50):
        sample = dataset[i]
        seg_map = sample['gt_seg_map']
        assert seg_map.dtype == np.uint8
        assert seg_map.shape == sample['img'].shape[:2] == sample['img_shape']
        assert np.array_equal(seg_map > 0, sample['img'][..., 0] >= 128)
        assert set(np.unique(seg_map)) == {0, sample['gt_label'] + 1}
        edge = np.ones_like(seg_map)
        edge[1:-1, 1:-1] = 0
        assert not seg_map[edge > 0].any(), 'the shape is cut off by the border'


@pytest.mark.parametrize('label', range(len(CLASSES)))
def test_coverage_equals_supersampling(label):
    """Against point-in-polygon (even-odd) tests of 8x8 points per pixel."""
    size, radius, angle = 48, 17.3, 0.3
    centre = np.array([23.2, 24.9])
    steps = (np.arange(size * 8) + 0.5) / 8 - 0.5
    x, y = np.meshgrid(steps, steps)
    cos, sin = np.cos(angle), np.sin(angle)
    inside = np.zeros(x.shape, bool)
    for outline in SHAPES[CLASSES[label]]:
        points = radius * outline @ [[cos, sin], [-sin, cos]] + centre
        for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, 0), strict=True):
            if y1 != y2:
                crosses = ((y1 > y) != (y2 > y)) & (
                    x < (x2 - x1) * (y - y1) / (y2 - y1) + x1
                )
                inside ^= crosses
    expected = inside.reshape(size, 8, size, 8).mean((1, 3))
    found = draw_shape(label, size, centre, radius, angle) / 255
    assert np.abs(found - expected).mean() < 0.02
    # far from the outline there is nothing to smooth
    assert (found[expected == 0] > 0.5).sum() == 0
    assert (found[expected == 1] < 0.5).sum() == 0


def test_shapes_fit_their_circle_and_differ():
    drawn = []
    for label, outlines in enumerate(SHAPES.values()):
        assert max(np.linalg.norm(o, axis=1).max() for o in outlines) <= 1 + 1e-9
        drawn.append(draw_shape(label, 64, np.array([31.5, 31.5]), 25, 0.0) > 127)
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert (one & other).sum() / (one | other).sum() < 0.9


def test_classes_are_balanced_and_labels_are_cheap(monkeypatch):
    dataset = EmbeddedShapes(length=1_000_000)
    monkeypatch.setattr(
        EmbeddedShapes, '_make_image', lambda *_: pytest.fail('an image was made')
    )
    labels = dataset.get_gt_labels()
    assert set(np.bincount(labels)) == {100_000}
    some = [0, 11, 999_999]
    assert [dataset.get_data_info(i)['gt_label'] for i in some] == labels[some].tolist()
    assert dataset.get_cat_ids(12) == [2]
    assert isinstance(dataset.data_list, range), 'a list of a million takes memory'


def test_captions_name_the_shape_and_nothing_else():
    dataset = EmbeddedShapes(length=20)
    captions = [dataset[i]['caption'] for i in range(20)]
    assert captions[:10] == captions[10:]
    assert captions[:9:8] == ['a circle', 'an arrow']
    for caption, name in zip(captions, CLASSES, strict=False):
        assert caption.split()[1:] == [name]
        assert set(caption.split()) <= set(CAPTION_WORDS)


def test_all_pairs_of_different_photographs_are_drawn(monkeypatch):
    numbers = tuple(range(len(PHOTOGRAPHS)))
    monkeypatch.setattr(embedded_shapes, '_textures', lambda split, size: numbers)
    monkeypatch.setattr(embedded_shapes, '_random_crop', plain_crop)
    dataset = EmbeddedShapes(length=1500)
    pairs = set()
    for i in range(1500):
        sample = dataset[i]
        inner = cv2.erode(sample['gt_seg_map'], np.ones((9, 9), np.uint8)) > 0
        foreground = np.bincount(sample['img'][inner][:, 0]).argmax()
        pairs.add((foreground, sample['img'][0, 0, 0]))
    assert pairs == {(20 * a, 20 * b) for a in numbers for b in numbers if a != b}


def test_works_in_a_host_pipeline_with_subsets_and_workers():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build(
            dict(
                type='medic_mm.EmbeddedShapes',
                length=40,
                pipeline=[dict(type='PackInputs')],
            )
        )
    subset = dataset.get_subset([3, 17])
    assert subset.get_gt_labels().tolist() == [3, 7]
    assert subset[1]['inputs'].equal(dataset[17]['inputs'])
    assert subset[1]['data_samples'].sample_idx == 1
    loaded = list(DataLoader(dataset, 8, num_workers=2, collate_fn=list))
    for i, sample in enumerate(s for batch in loaded for s in batch):
        assert sample['inputs'].equal(dataset[i]['inputs'])
        assert sample['data_samples'].gt_label.item() == i % 10
    assert dataset.CLASSES == CLASSES


@pytest.mark.parametrize(
    'settings, words',
    [
        (dict(split='test'), "split='test' is unknown"),
        (dict(length=0), 'length=0'),
        (dict(img_size=8), 'img_size=8'),
        (dict(seed=-1), 'seed=-1'),
    ],
)
def test_bad_settings_are_named(settings, words):
    with pytest.raises(ValueError, match=words):
        EmbeddedShapes(**settings)


def test_a_missing_photograph_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(
        'medic_mm.datasets.photographs.photograph_folder', lambda: tmp_path
    )
    with pytest.raises(RuntimeError, match=r'astronaut\.png is missing'):
        load_photographs('train')
