"""One self-contained HTML page of a run, as ``tools/report.py`` makes it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from medic_mm.checkpoints.openmmlab import read_config_file
from medic_mm.checkpoints.saving import write_whole
from medic_mm.errors import UserError
from medic_mm.runs.page import Extras, render_page
from medic_mm.runs.results import Result, find_results, read_result
from medic_mm.runs.run import Run, read_run
from medic_mm.runs.settings import compare_settings
from medic_mm.settings.run_config import short_path

#: The page in the run's folder.
FILE_NAME = 'report.html'
_EVALUATIONS = Path('work_dirs', 'evaluation')


def make_report(
    work_dir: str | Path,
    out: str | Path | None = None,
    config: str | Path | None = None,
    results: Sequence[str | Path] = (),
    root: Path | None = None,
) -> Path:
    """Write the HTML report of a run, which needs no network and no other file.

    The run may be finished, going on, or broken off.

    Args:
        work_dir: The folder given to ``tools/train.py --work-dir``.
        out: The page. Default: ``report.html`` in ``work_dir``.
        config: The config that the run's settings are compared with. Default: the one
            of the same name below ``configs``, if there is one alone.
        results: JSON files of ``tools/evaluate.py``, ``knn.py`` or ``linear_probe.py``
            to show as well. Those in ``work_dir``, and evaluations of its checkpoints
            in ``work_dirs/evaluation``, are found without.
        root: Folder that holds ``configs``, ``tools`` and ``work_dirs``.

    Returns:
        The page's path.

    Raises:
        UserError: for a folder that holds no run, a config or a result that cannot be
            read, or a page that cannot be written; in one sentence.
    """
    folder = Path(work_dir)
    page = Path(out) if out is not None else folder / FILE_NAME
    if page.is_dir():
        raise UserError(f'--out {page} is a folder: give a file')
    run = read_run(folder)
    base = _base_config(run, config, root)
    extras = Extras(
        base=str(short_path(base)) if base else None,
        changes=_changes(run, base),
        config_text=_text_of(run.config_file),
        results=[*_results(run, root), *map(_read_given, results)],
        command=_command(run),
        made=f'{datetime.now():%Y-%m-%d %H:%M}',
    )
    _write(page, render_page(run, extras))
    return page


def _base_config(run: Run, config: str | Path | None, root: Path | None) -> Path | None:
    """The config that the run came from, where it is known."""
    if config is not None:
        if not Path(config).is_file():
            raise UserError(f'--config: config {str(config)!r} does not exist')
        return Path(config)
    if root is None or run.config_file is None:
        return None
    found = list((root / 'configs').rglob(run.config_file.name))
    # a config that stands in two folders says nothing of where this one came from
    return found[0] if len(found) == 1 else None


def _changes(run: Run, base: Path | None) -> list:
    if base is None:
        return []
    try:
        settings = read_config_file(base)
    except Exception as error:  # whatever a torn Python file raises
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f'config {base} cannot be read: {reason}') from error
    return list(compare_settings(settings, run.config))


def _text_of(path: Path | None) -> str:
    return path.read_text(encoding='utf-8', errors='replace') if path else ''


def _results(run: Run, root: Path | None) -> list[Result]:
    roots = {place.resolve() for place in (Path(), root) if place is not None}
    places = [place / _EVALUATIONS for place in sorted(roots)]
    return find_results(run.folder, places)


def _read_given(path: str | Path) -> Result:
    if not Path(path).is_file():
        raise UserError(f'--results: file {str(path)!r} does not exist')
    found = read_result(Path(path))
    if found is None:
        raise UserError(
            f'--results: {path} is no JSON of tools/evaluate.py, knn.py or '
            'linear_probe.py'
        )
    return found


def _command(run: Run) -> str:
    if run.config_file is None:
        return ''
    words = f'python tools/train.py {shlex.quote(str(short_path(run.config_file)))}'
    seed = (run.config.get('randomness') or {}).get('seed')
    drawn = run.environment.get('seed')
    option = f' --cfg-options randomness.seed={drawn}' if drawn and seed is None else ''
    return f'{words} --work-dir NEW_FOLDER{option}'


def _write(page: Path, text: str) -> None:
    try:
        write_whole(page, text)
    except OSError as error:
        raise UserError(f'--out {page} cannot be written: {error.strerror}') from error
