"""The quickstart: a teacher, a pre-training, a table, a picture and a report."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

import medic_mm
from medic_mm.checkpoints.saving import write_whole
from medic_mm.datasets.embedded_shapes import CAPTION_WORDS
from medic_mm.errors import UserError
from medic_mm.quickstart.picture import make_picture
from medic_mm.quickstart.table import HEADINGS, Table, make_table
from medic_mm.quickstart.teacher import WEIGHTS_FILE, Progress, Recipe, train_teacher
from medic_mm.runs.report import make_report
from medic_mm.settings.run_config import load_config


@dataclass(frozen=True)
class Method:
    """A method that the quickstart can show.

    Attributes:
        config: Its config in ``configs/quickstart``.
        title: Its name in texts.
        teacher: Its teacher's name in texts.
        teacher_name: How the quickstart calls the first step.
        feature: What the gain is read off: what the method hands on.
        least_gain: Points of k-NN that pre-training must win over the random student.
        seen: Who sees the masked images of the picture.
    """

    config: str
    title: str
    teacher: str
    teacher_name: str
    feature: str
    least_gain: float
    seen: str


METHODS = {
    'medic': Method(
        config='medic_tiny.py',
        title='MEDiC',
        teacher='CLIP',
        teacher_name='a tiny CLIP, trained on images and captions',
        feature='cls',
        least_gain=15,
        seen='the student',
    ),
    'mimhd': Method(
        config='mimhd_tiny.py',
        title='MIM-HD',
        teacher='MAE',
        teacher_name='a small MAE, trained on images alone',
        feature='mean',
        # a small MAE has learned little that k-NN can see, and the student follows it
        least_gain=0,
        seen='the decoder in its first view',
    ),
}


@dataclass
class Quickstart:
    """One run of the quickstart, in one folder.

    Finished steps are found in the folder and not repeated: the teacher is complete or
    absent, and the pre-training resumes from its newest checkpoint.

    Args:
        root: Folder that holds ``configs`` and ``tools``.
        work_dir: Where all results go.
        method: Key of :data:`METHODS`.

    Raises:
        UserError: where ``work_dir`` holds results of other settings.
    """

    root: Path
    work_dir: Path
    method: str = 'medic'

    def __post_init__(self) -> None:
        self.chosen = METHODS[self.method]
        self.title = self.chosen.title
        self.config_path = self.root / 'configs' / 'quickstart' / self.chosen.config
        self.teacher = self.work_dir / 'teacher'
        self.student = self.work_dir / self.method
        config = load_config(self.config_path, {})
        self.teacher_config = None
        weights = self.teacher / WEIGHTS_FILE
        if 'teacher_config' in config:
            path = self.config_path.with_name(config.teacher_config)
            self.teacher_config = load_config(path, {})
            weights = _last_epoch(self.teacher, self.teacher_config)
        self.options = {'model.target_generator.weights': str(weights)}
        self.config = load_config(self.config_path, self.options)

    def start_over(self) -> None:
        """Remove what an earlier run left."""
        for folder in (self.teacher, self.student):
            shutil.rmtree(folder, ignore_errors=True)
        self._settings_file.unlink(missing_ok=True)

    def run(self) -> Table:
        """All steps; returns the table."""
        start = time.perf_counter()
        self._remember_settings()
        _headline(1, f'A teacher: {self.chosen.teacher_name}')
        self.make_teacher()
        _headline(2, f'A student: {self.title} pre-training, no labels')
        checkpoint = self.pretrain()
        _headline(3, 'What it learned')
        table = make_table(
            self.config,
            checkpoint,
            self.title,
            f'teacher ({self.chosen.teacher})',
            self._pretrained_teacher(),
            self.chosen.feature,
        )
        files = table.save(self.work_dir)
        print(f'\n{table.markdown()}\n', flush=True)
        _headline(4, 'A picture and a report')
        picture = self.work_dir / 'quickstart.png'
        make_picture(
            self.config, checkpoint, table, self.title, self.chosen.seen, picture
        )
        report = make_report(
            self.student, config=self.config_path, results=files[:1], root=self.root
        )
        minutes = (time.perf_counter() - start) / 60
        print(
            f'\n{self.title} lifts k-NN from the {HEADINGS[table.feature]} by '
            f'{table.gain:.1f} points over the random student, in {minutes:.1f} '
            'minutes.\n'
        )
        for what, path in (
            ('picture', picture),
            ('table', files[1]),
            ('table as JSON', files[0]),
            ('student', checkpoint),
            ('teacher', self.teacher),
            ('log', self.student),
            ('report', report),
        ):
            print(f'{what:<14}{path}')
        return table

    def make_teacher(self) -> None:
        """Train the teacher, unless it is there."""
        if self.teacher_config is not None:
            path = self.config_path.with_name(self.config.teacher_config)
            self._train(path, self.teacher, {}, 'teacher')
            return
        if self.teacher.is_dir():
            print(f'It is in {self.teacher} already.', flush=True)
            return
        recipe = Recipe(**self.config.clip_recipe)
        print(f'{recipe.steps} steps of {recipe.batch_size} pairs:', flush=True)
        train_teacher(
            self.config.clip.to_dict(),
            list(CAPTION_WORDS),
            self.config.clip_dataset.to_dict(),
            recipe,
            self.teacher,
            lambda progress: _show(progress, recipe),
        )

    def pretrain(self) -> Path:
        """Run ``tools/train.py``; returns the last checkpoint.

        Raises:
            UserError: where it failed.
        """
        self._train(self.config_path, self.student, self.options, 'pre-training')
        return _last_epoch(self.student, self.config)

    def _train(self, config: Path, folder: Path, options: dict, what: str) -> None:
        checkpoint = _last_epoch(folder, load_config(config, options))
        if checkpoint.is_file():
            print(f'It is in {checkpoint} already.', flush=True)
            return
        tool = self.root / 'tools' / 'train.py'
        command = [sys.executable, str(tool), str(config)]
        command += ['--work-dir', str(folder), '--resume', 'auto']
        if options:
            command += ['--cfg-options', *(f'{k}={v}' for k, v in options.items())]
        status = subprocess.run(command, env=_environment(), check=False).returncode
        if status or not checkpoint.is_file():
            raise UserError(
                f'the {what} ended with status {status} (its reason is above); '
                'a second call goes on where it stopped'
            )

    def _pretrained_teacher(self) -> tuple[Config, Path] | None:
        """Config and checkpoint of a teacher that was pre-trained as students are."""
        if self.teacher_config is None:
            return None
        return self.teacher_config, _last_epoch(self.teacher, self.teacher_config)

    @property
    def _settings_file(self) -> Path:
        return self.work_dir / 'settings.sha256'

    def _remember_settings(self) -> None:
        """Results of other settings are not to be mixed with these."""
        print(f'Results go to {self.work_dir}.', flush=True)
        self.work_dir.mkdir(parents=True, exist_ok=True)
        ours = settings_key(self.config, self.teacher_config)
        if not self._settings_file.is_file():
            write_whole(self._settings_file, ours + '\n')
        elif self._settings_file.read_text().strip() != ours:
            raise UserError(
                f'{self.work_dir} holds a quickstart of other settings: give '
                '--fresh to start over, or another --work-dir'
            )


def _environment() -> dict[str, str]:
    """In which this very package is found, installed or not."""
    paths = [str(Path(medic_mm.__file__).parents[1]), os.environ.get('PYTHONPATH')]
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))}


def settings_key(*configs: Config | None) -> str:
    """SHA-256 of all settings of some configs."""
    texts = [config.pretty_text for config in configs if config is not None]
    return hashlib.sha256(''.join(texts).encode()).hexdigest()


def _last_epoch(folder: Path, config: Config) -> Path:
    return folder / f'epoch_{config.train_cfg.max_epochs}.pth'


def _headline(number: int, text: str) -> None:
    print(f'\n[{number}/4] {text}', flush=True)


def _show(progress: Progress, recipe: Recipe) -> None:
    minutes, seconds = divmod(round(progress.seconds_left), 60)
    print(
        f'  step {progress.step:>4}/{recipe.steps}  '
        f'loss {progress.loss:.3f}  '
        f'image to text {progress.accuracy:3.0f} %  '
        f'left {minutes}:{seconds:02}',
        flush=True,
    )
