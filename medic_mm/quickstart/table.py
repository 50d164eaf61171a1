"""The quickstart's table: k-NN of student, teacher and pixels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

from medic_mm.checkpoints.saving import write_json, write_whole
from medic_mm.cli.knn import evaluate_knn
from medic_mm.evaluation.features import (
    Encoder,
    PixelEncoder,
    TeacherEncoder,
    extract_features,
)
from medic_mm.evaluation.knn_metrics import knn_metrics
from medic_mm.evaluation.loaders import find_dataloaders, labelled_loaders
from medic_mm.registry import MODELS
from medic_mm.settings.student import RANDOM

#: Features in the order of the columns, and how they are called.
HEADINGS = {'cls': 'class token', 'mean': 'mean patch token', 'pixels': 'pixels'}


@dataclass(frozen=True)
class Row:
    """k-NN accuracies of one encoder.

    Attributes:
        name: What was evaluated.
        top1: Feature to accuracy in percent.
    """

    name: str
    top1: dict[str, float]


@dataclass(frozen=True)
class Table:
    """The rows, and how they were made.

    Attributes:
        rows: From the random student to the pixels.
        k: Number of neighbours.
        train_images: Images of the bank.
        test_images: Queries.
        num_classes: Number of classes.
        feature: What the gain is read off.
    """

    rows: list[Row]
    k: int
    train_images: int
    test_images: int
    num_classes: int
    feature: str = 'cls'

    @property
    def gain(self) -> float:
        """Points by which the student beats the random student."""
        random, student = self.rows[:2]
        return student.top1[self.feature] - random.top1[self.feature]

    def markdown(self) -> str:
        """The table in Markdown, with a line on how it was made."""
        names = [n for n in HEADINGS if any(n in row.top1 for row in self.rows)]
        width = max(len(row.name) for row in self.rows)
        heads = [HEADINGS[name] for name in names]
        lines = [
            f'k-NN accuracy in % (k = {self.k}; {self.train_images:,} training and '
            f'{self.test_images:,} validation images, {self.num_classes} classes, '
            f'chance {100 / self.num_classes:.0f} %)',
            '',
            f'| {"":<{width}} | ' + ' | '.join(heads) + ' |',
            f'|{"-" * (width + 2)}|'
            + '|'.join('-' * (len(h) + 1) + ':' for h in heads)
            + '|',
        ]
        for row in self.rows:
            cells = [
                f'{row.top1[name]:.1f}' if name in row.top1 else '' for name in names
            ]
            padded = [
                f'{cell:>{len(head)}}' for cell, head in zip(cells, heads, strict=True)
            ]
            lines.append(f'| {row.name:<{width}} | ' + ' | '.join(padded) + ' |')
        return '\n'.join(lines)

    def save(self, folder: Path) -> list[Path]:
        """Write ``knn.json`` and ``knn.md``; returns their paths."""
        paths = [folder / 'knn.json', folder / 'knn.md']
        write_json(paths[0], asdict(self))
        write_whole(paths[1], self.markdown() + '\n')
        return paths


def make_table(
    config: Config,
    checkpoint: Path,
    method: str,
    teacher_name: str,
    pretrained: tuple[Config, Path] | None = None,
    feature: str = 'cls',
    k: int = 20,
) -> Table:
    """Evaluate the student before and after training, its teacher, and raw pixels.

    All on the k-NN data of the config, with the same k and temperature.

    Args:
        config: Config of the pre-training; its teacher has its weights.
        checkpoint: Of the pre-training.
        method: The method's name, for the table.
        teacher_name: The teacher's name likewise.
        pretrained: Config and checkpoint of a teacher whose backbone is scored as the
            student's is. Without it the ``target_generator`` of the config is scored.
        feature: What the gain is read off.
        k: Number of neighbours.
    """
    sources = [
        ('random student', config, RANDOM),
        (f'{method} student', config, str(checkpoint)),
    ]
    if pretrained is not None:
        sources.append((teacher_name, pretrained[0], str(pretrained[1])))
    rows, report = [], {}
    for name, source_config, source in sources:
        report = evaluate_knn(source_config, source, ks=(k,), device='cpu')
        top1 = {result['features']: result['top1'] for result in report['results']}
        rows.append(Row(name, top1))
    preprocessor = MODELS.build(config.data_preprocessor)
    encoders: dict[str, Encoder] = {'raw pixels': PixelEncoder()}
    if pretrained is None:
        teacher = MODELS.build(config.model.target_generator)
        teacher.init_weights()
        encoders = {teacher_name: TeacherEncoder(teacher, preprocessor), **encoders}
    for name, encoder in encoders.items():
        rows.append(Row(name, _evaluate(config, encoder, preprocessor, k)))
    sizes = {key: report[key] for key in ('train_images', 'test_images', 'num_classes')}
    return Table(rows=rows, k=k, feature=feature, **sizes)


def _evaluate(
    config: Config, encoder: Encoder, preprocessor: object, k: int
) -> dict[str, float]:
    init_default_scope(config.default_scope)
    loaders, num_classes = labelled_loaders(find_dataloaders(config))
    train, test = (extract_features(encoder, preprocessor, x) for x in loaders)
    found = knn_metrics(train, test, num_classes, (k,))
    return {name: values[f'top1_k{k}'] for name, values in found.items()}
