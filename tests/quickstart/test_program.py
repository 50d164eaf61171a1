"""The whole quickstart, very small: table, picture, report, re-use, a fresh start."""

import json
from pathlib import Path

import pytest
from PIL import Image

from medic_mm.errors import UserError
from medic_mm.quickstart import program
from medic_mm.quickstart.program import METHODS, Quickstart
from medic_mm.quickstart.table import Row, Table

SMALL = """# The quickstart's config, cut down for a test.
_base_ = ['{config}']
{more}
train_dataloader = dict(
    batch_size=10,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(length={length}),
)
knn = dict(type='medic_mm.EmbeddedShapes', pipeline=[dict(type='PackInputs')])
custom_hooks = [
    dict(
        type='medic_mm.KNNHook',
        k=(20,),
        train_dataloader=dict(batch_size=20, num_workers=0, dataset=dict(
            knn, split='train', length=40)),
        test_dataloader=dict(batch_size=20, num_workers=0, dataset=dict(
            knn, split='val', length=20)),
    )
]
train_cfg = dict(max_epochs=2)
default_hooks = dict(logger=dict(interval=1))
"""


def make_root(folder: Path, root: Path, length: int = 20) -> Path:
    place = folder / 'configs' / 'quickstart'
    place.mkdir(parents=True, exist_ok=True)
    for config in (root / 'configs' / 'quickstart').glob('*.py'):
        clip = 'clip_recipe = dict(steps=4, batch_size=8, warmup=1)'
        more = clip if 'clip_recipe' in config.read_text() else ''
        text = SMALL.format(config=config, more=more, length=length)
        (place / config.name).write_text(text)
    if not (folder / 'tools').exists():
        (folder / 'tools').symlink_to(root / 'tools')
    return folder


def stamps(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob('*') if p.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize('method', METHODS)
def test_from_nothing_to_a_picture_and_again(
    method, tmp_path, root, capfd, monkeypatch
):
    place, work_dir = make_root(tmp_path / 'root', root), tmp_path / 'work'
    table = Quickstart(place, work_dir, method).run()
    told = capfd.readouterr().out
    # progress of both trainings, the table, and where everything is
    progress = {'medic': 'step    4/4', 'mimhd': 'Saving checkpoint at 2 epochs'}
    for words in (
        progress[method],
        'Epoch(train)',
        table.markdown(),
        'quickstart.png',
    ):
        assert words in told
    for line in told.splitlines()[-7:]:
        assert Path(line.split()[-1]).exists(), line
    # the report is the last word, and holds the table
    assert told.split()[-1] == str(work_dir / method / 'report.html')
    page = (work_dir / method / 'report.html').read_text()
    for row in table.rows:
        assert f'>{row.name}</th>' in page
    chosen = METHODS[method]
    assert table.feature == chosen.feature
    student, teacher = f'{chosen.title} student', f'teacher ({chosen.teacher})'
    names = ['random student', student, teacher, 'raw pixels']
    assert [row.name for row in table.rows] == names
    saved = json.loads((work_dir / 'knn.json').read_text())
    assert saved['rows'][3]['top1'] == table.rows[3].top1
    assert (saved['train_images'], saved['test_images']) == (40, 20)
    with Image.open(work_dir / 'quickstart.png') as picture:
        assert len(set(picture.convert('L').getdata())) > 100

    trained = {**stamps(work_dir / 'teacher'), **stamps(work_dir / method)}
    monkeypatch.setattr(
        program.subprocess, 'run', lambda *_, **__: pytest.fail('trained again')
    )
    monkeypatch.setattr(
        program, 'train_teacher', lambda *_: pytest.fail('trained again')
    )
    again = Quickstart(place, work_dir, method).run()
    assert again == table
    report = str(work_dir / method / 'report.html')
    found = {**stamps(work_dir / 'teacher'), **stamps(work_dir / method)}
    assert found.pop(report) > trained.pop(report)
    assert found == trained

    make_root(place, root, length=30)
    with pytest.raises(UserError, match='of other settings: give --fresh'):
        Quickstart(place, work_dir, method).run()
    Quickstart(place, work_dir, method).start_over()
    assert not (work_dir / 'teacher').exists()
    assert not (work_dir / method).exists()


def test_a_failed_training_is_told(tmp_path, root, capfd):
    place = make_root(tmp_path / 'root', root)
    (place / 'tools').unlink()
    (place / 'tools').mkdir()
    (place / 'tools' / 'train.py').write_text('raise SystemExit(3)')
    with pytest.raises(UserError, match='ended with status 3'):
        Quickstart(place, tmp_path / 'work').pretrain()


def test_table_shows_and_keeps_every_number(tmp_path):
    rows = [
        Row('random student', dict(cls=12.0, mean=13.0)),
        Row('MEDiC student', dict(cls=52.25, mean=40.0)),
        Row('teacher (CLIP)', dict(cls=81.0, mean=55.0)),
        Row('raw pixels', dict(pixels=33.0)),
    ]
    table = Table(rows, k=20, train_images=2000, test_images=1000, num_classes=10)
    assert table.gain == pytest.approx(40.25)
    title, _, *lines = table.markdown().splitlines()
    assert '2,000 training and 1,000 validation images, 10 classes' in title
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]
    assert cells[0] == ['', 'class token', 'mean patch token', 'pixels']
    assert cells[2:] == [
        ['random student', '12.0', '13.0', ''],
        ['MEDiC student', '52.2', '40.0', ''],
        ['teacher (CLIP)', '81.0', '55.0', ''],
        ['raw pixels', '', '', '33.0'],
    ]
    assert len({len(line) for line in lines}) == 1, 'columns do not line up'
    table.save(tmp_path)
    assert (tmp_path / 'knn.md').read_text() == table.markdown() + '\n'
    saved = json.loads((tmp_path / 'knn.json').read_text())
    assert [Row(**row) for row in saved.pop('rows')] == rows
    sizes = dict(train_images=2000, test_images=1000, num_classes=10)
    assert saved == dict(k=20, feature='cls', **sizes)
