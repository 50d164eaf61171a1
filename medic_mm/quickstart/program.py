"""The quickstart: a teacher, a pre-training, a table and a picture."""

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
from medic_mm.apis import OptionError
from medic_mm.apis.run_config import load_config
from medic_mm.datasets.embedded_shapes import CAPTION_WORDS
from medic_mm.quickstart.picture import make_picture
from medic_mm.quickstart.table import Table, make_table
from medic_mm.quickstart.teacher import WEIGHTS_FILE, Progress, Recipe, train_teacher

#: Method to its config in ``configs/quickstart``, and its name in texts.
METHODS = {'medic': ('medic_tiny.py', 'MEDiC')}
#: Points of k-NN that pre-training must win over the random student.
LEAST_GAIN = 15


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
        OptionError: where ``work_dir`` holds results of other settings.
    """

    root: Path
    work_dir: Path
    method: str = 'medic'

    def __post_init__(self) -> None:
        file, self.title = METHODS[self.method]
        self.config_path = self.root / 'configs' / 'quickstart' / file
        self.teacher = self.work_dir / 'teacher'
        self.student = self.work_dir / self.method
        self.options = {
            'model.target_generator.weights': str(self.teacher / WEIGHTS_FILE)
        }
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
        _headline(1, 'A teacher: a tiny CLIP, trained on images and captions')
        self.make_teacher()
        _headline(2, f'A student: {self.title} pre-training, no labels')
        checkpoint = self.pretrain()
        _headline(3, 'What it learned')
        table = make_table(self.config, checkpoint, self.title)
        files = table.save(self.work_dir)
        print(f'\n{table.markdown()}\n', flush=True)
        _headline(4, 'A picture')
        picture = self.work_dir / 'quickstart.png'
        make_picture(self.config, checkpoint, table, self.title, picture)
        minutes = (time.perf_counter() - start) / 60
        print(
            f'\n{self.title} lifts k-NN from the class token by {table.gain:.1f} '
            f'points over the random student, in {minutes:.1f} minutes.\n'
        )
        for what, path in (
            ('picture', picture),
            ('table', files[1]),
            ('table as JSON', files[0]),
            ('student', checkpoint),
            ('teacher', self.teacher),
            ('log', self.student),
        ):
            print(f'{what:<14}{path}')
        return table

    def make_teacher(self) -> None:
        """Train the CLIP, unless it is there."""
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
            OptionError: where it failed.
        """
        checkpoint = self.student / f'epoch_{self.config.train_cfg.max_epochs}.pth'
        if checkpoint.is_file():
            print(f'It is in {checkpoint} already.', flush=True)
            return checkpoint
        tool = self.root / 'tools' / 'train.py'
        command = [sys.executable, str(tool), str(self.config_path)]
        command += ['--work-dir', str(self.student), '--resume', 'auto']
        command += ['--cfg-options', *(f'{k}={v}' for k, v in self.options.items())]
        status = subprocess.run(command, env=_environment(), check=False).returncode
        if status or not checkpoint.is_file():
            raise OptionError(
                f'the pre-training ended with status {status} (its reason is above); '
                'a second call goes on where it stopped'
            )
        return checkpoint

    @property
    def _settings_file(self) -> Path:
        return self.work_dir / 'settings.sha256'

    def _remember_settings(self) -> None:
        """Results of other settings are not to be mixed with these."""
        print(f'Results go to {self.work_dir}.', flush=True)
        self.work_dir.mkdir(parents=True, exist_ok=True)
        ours = settings_key(self.config)
        if not self._settings_file.is_file():
            self._settings_file.write_text(ours + '\n')
        elif self._settings_file.read_text().strip() != ours:
            raise OptionError(
                f'{self.work_dir} holds a quickstart of other settings: give '
                '--fresh to start over, or another --work-dir'
            )


def _environment() -> dict[str, str]:
    """In which this very package is found, installed or not."""
    paths = [str(Path(medic_mm.__file__).parents[1]), os.environ.get('PYTHONPATH')]
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))}


def settings_key(config: Config) -> str:
    """SHA-256 of all settings of a config."""
    return hashlib.sha256(config.pretty_text.encode()).hexdigest()


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
