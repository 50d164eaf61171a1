"""Results of the evaluating tools that belong to a run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medic_mm.errors import UserError
from medic_mm.runs.run import read_run

_ACCURACY = re.compile(r'knn/(?P<features>\w+?)_top1_k(?P<k>\d+)')
_NAMES = {'cls': 'class token', 'mean': 'mean patch token', 'pixels': 'pixels'}


@dataclass(frozen=True)
class Result:
    """A table of numbers that one tool wrote.

    Attributes:
        path: The file.
        title: What it is of.
        heads: Names of the columns.
        rows: Cells as text.
        notes: Sentences below it.
    """

    path: Path
    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    @property
    def numbers(self) -> list[int]:
        """Columns whose cells are all numbers."""
        return [
            column
            for column in range(1, len(self.heads))
            if all(_is_number(row[column]) for row in self.rows)
        ]


def find_results(folder: Path, places: Iterable[Path] = ()) -> list[Result]:
    """Results in a run's folder, up to two folders deep, and those of it elsewhere.

    Args:
        folder: The run's.
        places: Folders of evaluations, ``work_dirs/evaluation`` and the like. What
            they hold counts where its checkpoint lies in ``folder``.
    """
    paths = [
        x for pattern in ('*', '*/*', '*/*/*') for x in folder.glob(f'{pattern}.json')
    ]
    name = folder.resolve().name
    for place in places:
        for path in sorted(place.glob(f'{name}-*/evaluation.json')):
            if _is_of(path, folder) and path not in paths:
                paths.append(path)
    seen: dict[Path, Result] = {}
    for path in sorted(paths, key=lambda x: (x.name != 'evaluation.json', x)):
        # task.json, result.json and features-*/ are the parts of an evaluation
        parts = {
            x.path.parent for x in seen.values() if x.path.name == 'evaluation.json'
        }
        if parts & set(path.parents) and path.name != 'evaluation.json':
            continue
        found = read_result(path)
        if found is not None:
            seen[path.resolve()] = found
    return list(seen.values())


def read_result(path: Path) -> Result | None:
    """The result that a JSON file holds; None where it holds none that is known."""
    try:
        # the scalars of mmengine are called .json as well, and are many
        content = json.loads(path.read_text(encoding='utf-8'))
        if not isinstance(content, dict):
            return None
        if {'rows', 'left_out', 'checkpoint'} <= content.keys():
            return _evaluation(path, content)
        if 'linear' in content:
            return _linear(path, content)
        if {'results', 'checkpoint'} <= content.keys():
            return _knn(path, content)
        if {'rows', 'k', 'num_classes'} <= content.keys():
            return _quickstart(path, content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return None


@dataclass(frozen=True)
class Accuracy:
    """A k-NN accuracy.

    Attributes:
        features: ``'cls'`` (class token) or ``'mean'`` (mean patch token).
        k: Number of neighbours.
        top1: In percent.
        before: The same of the network before training, where it was measured.
    """

    features: str
    k: int
    top1: float
    before: float | None


def read_accuracies(checkpoint: Path, step: int | None) -> list[Accuracy]:
    """k-NN accuracies of a checkpoint, as ``KNNHook`` logged them in its run.

    Args:
        checkpoint: The file, in the folder of its run.
        step: Its epoch, or iteration where k-NN counts these: numbers of other steps
            are another network's. None: unknown, so there are none.
    """
    if step is None:
        return []
    try:
        curves = read_run(checkpoint.parent).curves
    except UserError:  # a checkpoint that was taken out of its run
        return []
    accuracies = []
    for name, points in curves.items():
        parts, values = _ACCURACY.fullmatch(name), dict(points)
        if parts and step in values:
            features, k = parts['features'], int(parts['k'])
            accuracies.append(Accuracy(features, k, values[step], values.get(0)))
    return accuracies


def _is_number(text: str) -> bool:
    return text == '' or text.replace('.', '', 1).replace('-', '', 1).isdecimal()


def _is_of(path: Path, folder: Path) -> bool:
    try:
        checkpoint = json.loads(path.read_text(encoding='utf-8'))['checkpoint']
        return Path(checkpoint).resolve().parent == folder.resolve()
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _evaluation(path: Path, content: dict[str, Any]) -> Result:
    rows = tuple(
        (row['task'], row['data'], row['metric'], f'{row["value"]:.2f}', row['config'])
        for row in content['rows']
    )
    notes = [
        f'{word}: {item["title"]} ({item["reason"]}).'
        for word, key in (('Left out', 'left_out'), ('Failed', 'failed'))
        for item in content.get(key, ())
    ]
    title = f'Evaluation of {Path(content["checkpoint"]).name}'
    heads = ('task', 'data', 'metric', 'value', 'config')
    return Result(path, title, heads, rows, tuple(notes))


def _knn(path: Path, content: dict[str, Any]) -> Result:
    rows = tuple(
        (_NAMES.get(row['features'], row['features']), str(row['k']), *_accuracies(row))
        for row in content['results']
    )
    title = f'k-NN of {Path(content["checkpoint"]).name}'
    heads = ('features', 'k', 'top-1 in %', 'top-5 in %')
    return Result(path, title, heads, rows, (_sizes(content),))


def _linear(path: Path, content: dict[str, Any]) -> Result:
    rows = [
        (f'linear probe, block {row["block"]}', row['features'], f'{row["top1"]:.2f}')
        for row in content['linear']
    ]
    rows += [
        (f'k-NN, k = {row["k"]}', row['features'], f'{row["top1"]:.2f}')
        for row in content.get('knn', ())
    ]
    title = f'Linear probe of {Path(content["checkpoint"]).name}'
    heads = ('evaluation', 'features', 'top-1 in %')
    return Result(path, title, heads, tuple(rows), (_sizes(content),))


def _quickstart(path: Path, content: dict[str, Any]) -> Result:
    columns = [x for x in _NAMES if any(x in row['top1'] for row in content['rows'])]
    rows = tuple(
        (row['name'], *(_number(row['top1'].get(column)) for column in columns))
        for row in content['rows']
    )
    title = f'k-NN accuracy in %, k = {content["k"]}'
    heads = ('', *(_NAMES[column] for column in columns))
    return Result(path, title, heads, rows, (_sizes(content),))


def _accuracies(row: dict[str, Any]) -> tuple[str, str]:
    return _number(row.get('top1'), 2), _number(row.get('top5'), 2)


def _number(value: float | None, digits: int = 1) -> str:
    return '' if value is None else f'{value:.{digits}f}'


def _sizes(content: dict[str, Any]) -> str:
    return (
        f'{content["train_images"]:,} training and {content["test_images"]:,} test '
        f'images, {content["num_classes"]} classes.'
    )
