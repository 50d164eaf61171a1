"""The tiny CLIP: its words, its schedule, and a checkpoint that open_clip can load."""

import json
import math

import open_clip
import pytest
import torch
from mmengine.registry import MODELS
from safetensors.torch import load_file

from medic_mm.datasets import EmbeddedShapes
from medic_mm.datasets.embedded_shapes import CAPTION_WORDS
from medic_mm.quickstart import teacher as module
from medic_mm.quickstart.captions import CaptionTokenizer
from medic_mm.quickstart.teacher import (
    CONFIG_FILE,
    HISTORY_FILE,
    WEIGHTS_FILE,
    Recipe,
    caption_accuracy,
    learning_rate,
    train_teacher,
)

CONFIG = dict(
    model_cfg=dict(
        embed_dim=16,
        vision_cfg=dict(image_size=32, patch_size=8, width=32, layers=1, head_width=16),
        text_cfg=dict(
            context_length=4,
            vocab_size=len(CAPTION_WORDS) + 2,
            width=32,
            heads=2,
            layers=1,
        ),
    ),
    preprocess_cfg=dict(mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4]),
)
DATASET = dict(type='medic_mm.EmbeddedShapes', img_size=32)
RECIPE = Recipe(steps=40, batch_size=16, learning_rate=3e-3, warmup=5)


def train(folder, recipe=RECIPE):
    reports = []
    train_teacher(CONFIG, CAPTION_WORDS, DATASET, recipe, folder, reports.append)
    return reports


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('quickstart') / 'teacher'
    return folder, train(folder)


def test_words_become_numbers_and_the_end_is_the_highest():
    tokenize = CaptionTokenizer(['a', 'ring', 'a', 'star'], context_length=4)
    assert tokenize.vocab_size == 5
    found = tokenize(['a star', 'ring', 'a a ring'])
    assert found.tolist() == [[1, 3, 4, 0], [2, 4, 0, 0], [1, 1, 2, 4]]
    with pytest.raises(ValueError, match=r"unknown words \['moon'\]"):
        tokenize(['a moon'])
    with pytest.raises(ValueError, match='more than 3 words'):
        tokenize(['a a a a'])


def test_another_vocabulary_is_refused(tmp_path):
    words = ('more', *CAPTION_WORDS)
    with pytest.raises(ValueError, match=f'vocab_size={len(CAPTION_WORDS) + 2} must'):
        train_teacher(CONFIG, words, DATASET, RECIPE, tmp_path / 'x', print)


def test_all_captions_of_the_data_set_fit():
    tokenize = CaptionTokenizer(CAPTION_WORDS, context_length=4)
    dataset = EmbeddedShapes(length=50)
    tokens = tokenize([dataset.get_data_info(i)['caption'] for i in range(50)])
    # one row of numbers per class
    assert len(set(map(tuple, tokens.tolist()))) == 10


def test_schedule_rises_then_falls_to_zero():
    recipe = Recipe(steps=14, batch_size=1, learning_rate=0.8, warmup=4)
    rates = [learning_rate(recipe, step) for step in range(1, 15)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[8] == pytest.approx(0.4 * (1 + math.cos(math.pi / 2)))
    assert rates[-1] == pytest.approx(0)
    assert rates[3:] == sorted(rates[3:], reverse=True)


def test_accuracy_counts_equal_captions_as_right():
    images = torch.eye(3)
    texts = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])
    assert caption_accuracy(images, texts, ['x', 'y', 'z']) == pytest.approx(100 / 3)
    assert caption_accuracy(images, texts, ['x', 'x', 'z']) == 100


def test_training_lowers_the_loss_and_tells_where_it_is(trained):
    _, reports = trained
    assert [r.step for r in reports] == list(range(2, 41, 2))
    assert reports[0].loss == pytest.approx(math.log(16), abs=0.6)
    late = sum(r.loss for r in reports[-4:]) / 4
    assert late < reports[0].loss - 0.1
    assert reports[-1].seconds_left == 0


def test_open_clip_and_the_teacher_load_the_checkpoint(trained):
    folder, reports = trained
    weights = load_file(folder / WEIGHTS_FILE)
    model = open_clip.create_model(f'local-dir:{folder}')
    assert tuple(model.visual.image_mean) == (0.4, 0.5, 0.6)
    state = model.state_dict()
    assert set(state) == set(weights)
    assert all(torch.equal(state[name], value) for name, value in weights.items())
    teacher = MODELS.build(
        dict(
            type='medic_mm.OpenCLIPTeacher',
            model=str(folder / CONFIG_FILE),
            weights=str(folder / WEIGHTS_FILE),
        )
    )
    teacher.init_weights()
    loaded = teacher.network.state_dict()
    assert all(torch.equal(v, weights[f'visual.{k}']) for k, v in loaded.items())
    assert len(json.loads((folder / HISTORY_FILE).read_text())) == len(reports)


def test_the_same_seed_trains_the_same_teacher(trained, tmp_path):
    train(tmp_path / 'again')
    first = load_file(trained[0] / WEIGHTS_FILE)
    again = load_file(tmp_path / 'again' / WEIGHTS_FILE)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_an_interrupted_save_leaves_no_teacher(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError('disk full')

    monkeypatch.setattr(module, 'save_file', fail)
    recipe = Recipe(steps=1, batch_size=2, learning_rate=1e-3, warmup=1)
    with pytest.raises(OSError, match='disk full'):
        train(tmp_path / 'teacher', recipe)
    assert not (tmp_path / 'teacher').exists()
    monkeypatch.undo()
    train(tmp_path / 'teacher', recipe)
    assert (tmp_path / 'teacher' / WEIGHTS_FILE).is_file()
    assert [p.name for p in tmp_path.iterdir()] == ['teacher']
