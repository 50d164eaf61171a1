"""Accuracies of benchmarks against counting by hand."""

from __future__ import annotations

from importlib import resources

import pytest
import torch

from medic_mm.errors import UserError
from medic_mm.evaluation.layer_accuracy import LayerAccuracy
from medic_mm.evaluation.subset_accuracy import SubsetAccuracy, class_numbers


def test_subset_accuracy_ignores_other_classes():
    # the data set has classes 7, 2, 4 of the classifier, in this order
    metric = SubsetAccuracy(classes=[7, 2, 4], topk=(1, 2))
    scores = torch.zeros(4, 9)
    scores[0, [7, 2, 4, 0]] = torch.tensor([3.0, 2.0, 1.0, 9.0])  # right, 0 is no class
    scores[1, [7, 2, 4]] = torch.tensor([3.0, 2.0, 1.0])  # second
    scores[2, [7, 2, 4]] = torch.tensor([3.0, 2.0, 1.0])  # third
    scores[3, [7, 2, 4]] = torch.tensor([1.0, 2.0, 3.0])  # right
    labels = torch.tensor([[0], [1], [2], [2]])
    samples = [
        dict(pred_score=score, gt_label=label)
        for score, label in zip(scores, labels, strict=True)
    ]
    metric.process({}, samples)
    assert metric.evaluate(4) == {'accuracy/top1': 50.0, 'accuracy/top2': 75.0}


def test_lists_of_timm():
    for name, (first, last) in {
        'imagenet-a': (6, 988),
        'imagenet-r': (1, 988),
    }.items():
        numbers = class_numbers(name)
        assert len(numbers) == 200
        assert numbers == sorted(numbers)
        assert (numbers[0], numbers[-1]) == (first, last)


def test_list_in_a_file(tmp_path):
    file = tmp_path / 'classes.txt'
    file.write_text('4\n0\n')
    assert class_numbers(str(file)) == [4, 0]
    file.write_text('n01440764\n')
    with pytest.raises(ValueError, match='one class number a line'):
        class_numbers(str(file))
    with pytest.raises(ValueError, match="'imagenet-b' is not a file"):
        class_numbers('imagenet-b')
    with pytest.raises(ValueError, match='different class numbers'):
        class_numbers([1, 1])


def test_subset_accuracy_refuses_other_data():
    metric = SubsetAccuracy(classes=[0, 1])
    with pytest.raises(ValueError, match='has class 2'):
        metric.process({}, [dict(pred_score=torch.zeros(3), gt_label=torch.tensor(2))])
    with pytest.raises(ValueError, match='the classifier 1 classes'):
        metric.process({}, [dict(pred_score=torch.zeros(1), gt_label=torch.tensor(0))])


def test_subset_accuracy_compares_its_list_with_the_data():
    metric = SubsetAccuracy(classes=[7, 2, 4])
    metric.check_classes(['a', 'b', 'c'])
    with pytest.raises(UserError, match=r'lists 3 classes, but .* has 2 \(a, b\)'):
        metric.check_classes(['a', 'b'])
    known = SubsetAccuracy(classes='imagenet-a')
    text = resources.files('timm.data').joinpath('_info', 'imagenet_synsets.txt')
    synsets = text.read_text().split()
    names = [synsets[number] for number in known.classes.tolist()]
    known.check_classes(names)
    # 200 folders, of which one is another class: as many, and all after it are wrong
    names[3] = 'n02112706'
    with pytest.raises(UserError, match='n02112706 where imagenet-a has n01558993'):
        known.check_classes(names)


def test_no_images_have_no_accuracy():
    for metric in (SubsetAccuracy(classes=[0, 1]), LayerAccuracy()):
        with pytest.raises(UserError, match='the data set is empty'):
            metric.compute_metrics([])


def test_layer_accuracy_names_the_best_block():
    metric = LayerAccuracy()
    layers = [[0, 1, 1], [2, 1, 0], [3, 2, 2], [3, 3, 0]]
    wanted = [1, 1, 2, 3]
    metric.process(
        {},
        [
            dict(layer_labels=torch.tensor(found), gt_label=torch.tensor([label]))
            for found, label in zip(layers, wanted, strict=True)
        ],
    )
    assert metric.evaluate(4) == {
        'layer_accuracy/top1_block_1': 25.0,
        'layer_accuracy/top1_block_2': 100.0,
        'layer_accuracy/top1_block_3': 50.0,
        'layer_accuracy/best_top1': 100.0,
        'layer_accuracy/best_block': 2,
    }


def test_layer_accuracy_needs_its_head():
    with pytest.raises(ValueError, match=r'medic_mm\.LayerProbeHead'):
        LayerAccuracy().process({}, [dict(gt_label=torch.tensor([0]))])
    with pytest.raises(UserError, match='gt_label is missing'):
        LayerAccuracy().process({}, [dict(layer_labels=torch.tensor([0, 1]))])
    with pytest.raises(UserError, match='gt_label is missing'):
        SubsetAccuracy([0]).process({}, [dict(pred_score=torch.tensor([0.0]))])
