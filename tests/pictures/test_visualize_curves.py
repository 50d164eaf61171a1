"""tools/visualize.py curves: runs of the training tool, and what is refused."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from medic_mm.pictures.curves import visualize_curves
from medic_mm.runs.charts import Chart
from medic_mm.runs.run import read_run

CONFIG = """
launcher = {launcher!r}
train_dataloader = dict(
    batch_size={batch},
    dataset=dict(type='CustomDataset'))
work_dir = exit('a config in a run is not to be run')
"""


def write_run(
    folder: Path, losses: list[float], batch: int = 4, launcher: str = 'none'
) -> Path:
    data = folder / '20250101_000000' / 'vis_data'
    data.mkdir(parents=True)
    records = [
        dict(loss=loss, loss_a=loss, lr=0.1, time=0.5, step=10 * place)
        for place, loss in enumerate(losses, start=1)
    ]
    lines = [json.dumps(record) for record in records]
    (data / 'scalars.json').write_text('\n'.join(lines) + '\n')
    (data / 'config.py').write_text(CONFIG.format(batch=batch, launcher=launcher))
    return folder


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    seen: list[tuple] = []
    monkeypatch.setattr(
        'medic_mm.pictures.curves.draw_charts',
        lambda figure, charts, labels: seen.append((charts, labels)),
    )
    return seen


def run_tool(monkeypatch: pytest.MonkeyPatch, root: Path, *words: object) -> None:
    """Run tools/visualize.py as the command line does."""
    monkeypatch.setattr(sys, 'argv', ['visualize.py', *map(str, words)])
    runpy.run_path(str(root / 'tools' / 'visualize.py'), run_name='__main__')


def charts_of(drawn: list[tuple]) -> dict[str, Chart]:
    return {chart.title: chart for chart in drawn[-1][0]}


def test_the_tool_draws_what_the_json_lines_say(
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    runs = [
        write_run(tmp_path / 'one', [3.0, 2.0]),
        write_run(tmp_path / 'two', [5.0, 4.0, 3.5], batch=8),
    ]
    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure,
        'savefig',
        lambda self, *a, **k: figures.append(self) or save(self, *a, **k),
    )
    out = tmp_path / 'deep' / 'out.png'
    run_tool(monkeypatch, root, 'curves', *runs, '--out', out, '--labels', 'x', 'y')
    # a library may print when the tool first imports it
    assert capsys.readouterr().out.splitlines()[-1:] == [f'wrote {out}']
    assert out.stat().st_size > 10_000
    (figure,) = figures
    axes = {axis.get_title(loc='left'): axis for axis in figure.axes}
    assert list(axes) == ['total loss', 'learning rate', 'images per second']
    points = {
        title: [list(zip(*line.get_data(), strict=True)) for line in axis.lines]
        for title, axis in axes.items()
    }
    assert points['total loss'] == [
        [(10, 3.0), (20, 2.0)],
        [(10, 5.0), (20, 4.0), (30, 3.5)],
    ]
    assert points['images per second'] == [
        [(10, 8.0), (20, 8.0)],
        [(10, 16.0), (20, 16.0), (30, 16.0)],
    ]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ['x', 'y']


def test_a_folder_gets_curves_png(tmp_path: Path) -> None:
    run = write_run(tmp_path / 'one', [3.0])
    for out in (tmp_path / 'new', tmp_path / 'one'):
        assert visualize_curves([run], out).files == [out / 'curves.png']
        assert (out / 'curves.png').is_file()


def test_runs_are_named_by_as_much_of_their_path_as_is_needed(
    tmp_path: Path, drawn: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [write_run(tmp_path / name / 'run', [1.0]) for name in ('a', 'b')]
    visualize_curves(runs, tmp_path)
    assert drawn[-1][1] == ['a/run', 'b/run']
    monkeypatch.chdir(runs[0])
    visualize_curves(['.'], tmp_path)
    assert drawn[-1][1] == ['run']


def test_the_batch_is_read_from_the_runs_config_which_is_not_run(
    tmp_path: Path, drawn: list
) -> None:
    one = write_run(tmp_path / 'one', [1.0], batch=6)
    several = write_run(tmp_path / 'several', [1.0], launcher='pytorch')
    assert read_run(one).images_per_iteration == 6
    assert read_run(one / '20250101_000000').images_per_iteration == 6
    # how many processes there were is not written down
    assert read_run(several).images_per_iteration is None
    visualize_curves([one, several], tmp_path)
    curves = charts_of(drawn)['seconds per iteration'].curves
    assert curves == {'one': [(10, 0.5)], 'several': [(10, 0.5)]}
    (one / '20250101_000000' / 'vis_data' / 'config.py').unlink()
    assert read_run(one).images_per_iteration is None


def test_bad_input_gives_one_sentence(
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    run, other = (write_run(tmp_path / name, [1.0]) for name in ('one', 'two'))
    silent = write_run(tmp_path / 'silent', [])
    out = tmp_path / 'out'
    cases = {
        (tmp_path / 'none', '--out', out): f"folder '{tmp_path}/none' does not exist",
        (silent, '--out', out): f'the logs of {silent} have no losses',
        (run, '--out', tmp_path / 'a.txt'): 'give a folder, or a file ending in .png',
        (run, run, '--out', out): "two runs are called 'one'",
        (run, other, '--out', out, '--labels', 'x'): '--labels has 1 names for 2 runs',
        (run, other, '--out', out, '--labels', 'x', 'x'): "two runs are called 'x'",
    }
    for words, sentence in cases.items():
        with pytest.raises(SystemExit) as stop:
            run_tool(monkeypatch, root, 'curves', *words)
        assert stop.value.code == 1
        error = capsys.readouterr().err
        assert sentence in error
        assert error.startswith('error: ')
        assert error.count('\n') == 1
    assert not out.exists()


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / 'one', [1.0, float('nan'), 2.0])
    log = run / '20250101_000000' / 'vis_data' / 'scalars.json'
    log.write_text('nothing\n' + log.read_text())
    assert visualize_curves([run], tmp_path / 'out').notes == [
        'one: 1 line(s) of the scalars cannot be read.',
        'one: NaN or infinite values are left out of loss, loss_a.',
    ]
