"""tools/report.py: the page of a run, and what it refuses."""

from __future__ import annotations

import base64
import io
import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from PIL import Image
from report_page import Page
from written_runs import WrittenRun, finished_run, settings

from medic_mm.runs.page import MOST_PANELS
from medic_mm.runs.report import make_report
from medic_mm.runs.run import read_run


def page_of(folder: Path, **kwargs) -> Page:
    return Page(make_report(folder, **kwargs))


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    finished_run(tmp_path)
    page = page_of(tmp_path)
    assert page.text.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert 'script' not in page.names
    for link in page.links:
        kinds = ('#', 'data:image/png;base64,', 'data:image/svg+xml;base64,')
        assert link.startswith(kinds), link
    for word in ('http:', 'https:', '@import', 'url('):
        assert word not in page.text
    assert {link[1:] for link in page.links if link[0] == '#'} == set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert all(len(image['alt']) > 20 for image in page.images)
    assert list(tmp_path.glob('.*')) == [], 'a part of the page was left'


def test_the_summary(tmp_path: Path) -> None:
    finished_run(tmp_path)
    text = page_of(tmp_path).text
    expected = (
        '<p class="lead">MEDiC of a ViT of 3 blocks from TimmTeacher: 4 of 4 epochs in '
        '90 s, finished.</p>'
    )
    assert expected in text
    for fact, words in {
        'Teacher': 'TimmTeacher (model_name vit_tiny, weights b.pth)',
        'Data': 'CustomDataset (data_root data/some)',
        'Batch': '32 images an iteration, 2 processes',
        'Checkpoints': 'epoch_4.pth',
    }.items():
        assert f'<dt>{fact}</dt><dd>{words}</dd>' in text
    assert '<dd>ViT of 3 blocks, 48 wide, 3 heads, patches of 8 px' in text


def test_curves_are_the_scalars(tmp_path: Path) -> None:
    finished_run(tmp_path)
    curves = read_run(tmp_path).curves
    logged: dict[str, list] = {}
    for file in tmp_path.glob('*/vis_data/scalars.json'):
        for record in map(json.loads, file.read_text().splitlines()):
            for name in record.keys() - {'step', 'epoch', 'iter'}:
                logged.setdefault(name, []).append((record['step'], record[name]))
    assert curves == logged
    tables = page_of(tmp_path).tables
    loss = dict(curves['raw_token'])
    shown = tables['Loss terms, unweighted: numbers'][1]
    assert shown[0] == 'token'
    expected = (loss[5], loss[40], loss[40], loss[5])
    assert [float(x) for x in shown[1:]] == pytest.approx(list(expected), rel=1e-3)
    # two processes of 16 images, half a second
    rate = tables['Throughput, images per second: numbers'][1]
    assert rate[1:] == ['64'] * 4
    for title in (
        'Loss, as trained on',
        'k-NN top-1 accuracy in %',
        'Learning rate',
        'Spread of the class tokens (1 isotropic, 0 collapsed)',
        'Effective number of teacher heads in use',
        "Mean cosine of the student's heads (1 alike)",
        'Norm of the gradient',
    ):
        assert f'{title}: numbers' in tables


def test_a_resumed_run_replaces_what_it_repeats(tmp_path: Path) -> None:
    WrittenRun(tmp_path).train(1, 3)
    second = WrittenRun(tmp_path, begin='20260103_000000')
    for step in (25, 30, 35):
        second.scalars(step, loss=9.0, iter=step)
    curve = read_run(tmp_path).curves['loss']
    assert [s for s, v in curve if v == 9.0] == [25, 30, 35]
    assert [s for s, _ in curve] == [5, 10, 15, 20, 25, 30, 35]


def test_knn_table(tmp_path: Path) -> None:
    finished_run(tmp_path)
    names = ('class token', 'mean patch')
    assert page_of(tmp_path).tables['k-NN over epochs'] == [
        ['epoch', *(f'{name}, top-1 (k\xa0=\xa020)' for name in names)],
        ['0 (start)', '10.00', '11.00'],
        ['4', '41.25', '38.50'],
    ]


def test_panels_newest_first_and_not_too_many(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    run.panel(2, (9, 8, 7))
    images = page_of(tmp_path).panels
    colours = []
    for image in images:
        data = base64.b64decode(image['src'].partition(',')[2])
        colours.append(Image.open(io.BytesIO(data)).getpixel((0, 0)))
    assert colours == [(1, 2, 3), (9, 8, 7)]
    assert 'after epoch 4:' in images[0]['alt']
    for epoch in range(5, 40):
        run.panel(epoch)
    page = page_of(tmp_path)
    assert len(page.panels) == MOST_PANELS
    assert 'after epoch 39:' in page.panels[0]['alt']
    assert 'after epoch 2:' in page.panels[-1]['alt']
    assert f'{MOST_PANELS} of 37 panels are shown.' in page.text


def test_changed_settings_are_those_of_the_config_of_that_name(tmp_path: Path) -> None:
    root, folder = tmp_path / 'root', tmp_path / 'run'
    WrittenRun(tmp_path / 'base', settings())
    (root / 'configs' / 'x').mkdir(parents=True)
    (tmp_path / 'base' / 'tiny.py').rename(root / 'configs' / 'x' / 'tiny.py')
    changed = settings(work_dir='somewhere', new=1)
    changed['model']['backbone']['img_size'] = 64
    WrittenRun(folder, changed)
    page = page_of(folder, root=root)
    rows = page.tables['Changed settings']
    assert 'The run changes 2 settings of' in page.text
    assert rows[0] == ['setting', 'base', 'this run']
    # the one that the tools fill in stands in a table of its own, the last
    assert rows[1:] == [['work_dir', '(absent)', "'somewhere'"]]
    assert '<code>model.backbone.img_size</code></th><td><code>32</code>' in page.text
    (root / 'configs' / 'y').mkdir()
    (root / 'configs' / 'y' / 'tiny.py').write_text('model = dict()')
    assert 'Changed settings' not in page_of(folder, root=root).tables
    named = page_of(folder, config=root / 'configs' / 'x' / 'tiny.py').text
    assert 'The run changes 2 settings of' in named


def test_environment_without_the_long_parts(tmp_path: Path) -> None:
    finished_run(tmp_path)
    assert page_of(tmp_path).tables['Environment'] == [
        ['what', 'value'],
        ['sys.platform', 'linux'],
        ['Python', '3.11.7 (main)'],
        ['PyTorch', '2.15.0'],
        ['MMEngine', '0.10.12'],
        ['seed', '7'],
        ['GPU number', '2'],
    ]


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    evil = '</code></pre><script>alert("1")</script><img src=x onerror=alert(1)>'
    folder = tmp_path / 'run & <b>run</b>'
    config = settings(evil=evil)
    config['train_dataloader']['dataset']['data_root'] = '<i>data</i>'
    run = WrittenRun(folder, config)
    run.say(evil, 'WARNING')
    run.say(f'1 of 2 training images were unreadable and skipped: {evil}', 'WARNING')
    run.scalars(1, **{evil: 1.0, f'loss_{evil}': 2.0, f'knn/{evil}': 3.0})
    row = dict(task=evil, data=evil, metric=evil, value=1.0, config=evil)
    found = dict(checkpoint=evil, rows=[row], left_out=[dict(title=evil, reason=evil)])
    (folder / 'evaluation.json').write_text(json.dumps(found))
    base = tmp_path / 'base.py'
    base.write_text(f'evil = {evil[:20]!r}')
    page = page_of(folder, config=base)
    assert {'script', 'i', 'b'} & page.names == set()
    assert all(image['src'].startswith('data:image/') for image in page.images)
    assert page.text.count('alert(&#34;1&#34;)') >= 8


def test_results_are_found(tmp_path: Path) -> None:
    run = tmp_path / 'root' / 'run'
    finished_run(run)
    row = dict(task='k-NN', data='CIFAR-10', metric='top-1', value=51.234, config='c')
    evaluation = dict(
        checkpoint=str(run / 'epoch_4.pth'),
        student='a ViT',
        rows=[{**row, 'seconds': 1.0, 'resumed': False}],
        left_out=[dict(title='segmentation', reason='no data')],
        failed=[],
    )
    own = run / 'evaluation' / 'evaluation.json'
    place = tmp_path / 'root' / 'work_dirs' / 'evaluation'
    other = {**evaluation, 'checkpoint': str(tmp_path / 'run' / 'epoch_4.pth')}
    sizes = dict(train_images=5000, test_images=2000, num_classes=10)
    knn = dict(
        checkpoint='epoch_4.pth',
        results=[dict(features='cls', k=20, top1=38.8, top5=87.45)],
        **sizes,
    )
    linear = dict(
        checkpoint='epoch_4.pth',
        linear=[dict(block=3, features='cls+mean', top1=44.444)],
        knn=[dict(features='mean', k=10, top1=33.3)],
        **sizes,
    )
    for path, content in {
        own: evaluation,
        place / 'run-epoch_4' / 'evaluation.json': evaluation,
        place / 'run-epoch_3' / 'evaluation.json': other,
        run / 'result.json': knn,
        run / 'probe' / 'linear.json': linear,
        # parts of an evaluation, and files of others
        run / 'evaluation' / 'features-cifar10' / 'knn.json': knn,
        run / 'other.json': [1, 2],
        run / 'strange.json': dict(linear=3, checkpoint=4),
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    (run / 'torn.json').write_text('{"linear": ')
    page = page_of(run, root=tmp_path / 'root')
    assert page.text.count('<h3>Evaluation of epoch_4.pth</h3>') == 2
    assert page.text.count('<h3>k-NN of epoch_4.pth</h3>') == 1
    assert page.tables['Evaluation of epoch_4.pth'][1] == [
        *('k-NN', 'CIFAR-10', 'top-1', '51.23', 'c')
    ]
    assert 'Left out: segmentation (no data).' in page.text
    assert page.tables['k-NN of epoch_4.pth'][1] == [
        *('class token', '20', '38.80', '87.45')
    ]
    assert page.tables['Linear probe of epoch_4.pth'][1:] == [
        ['linear probe, block 3', 'cls+mean', '44.44'],
        ['k-NN, k = 10', 'mean', '33.30'],
    ]
    assert '5,000 training and 2,000 test images, 10 classes.' in page.text


def test_warnings_stand_on_the_page(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    page = page_of(tmp_path)
    assert page.kinds == []
    assert 'No problems found.' in page.text
    run.say('training diverged: at iteration 3, loss=nan', 'ERROR')
    run.say('2 of 6 training images were unreadable and skipped: a', 'WARNING')
    page = page_of(tmp_path)
    assert page.kinds == ['nan', 'skipped']
    assert 'No problems found' not in page.text


def test_a_run_that_started_just_now(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    page = page_of(tmp_path)
    assert page.kinds == ['unfinished']
    assert 'No scalars were logged yet.' in page.text
    # before the config was written, and before the first line
    for path in [*tmp_path.glob('*.py'), *run.data.glob('*.py')]:
        path.unlink()
    run.log.write_text('')
    page = page_of(tmp_path)
    assert 'A run: 0 epochs in 0 s, not finished.' in page.text
    run.say('Config', wait=1)
    (tmp_path / 'tiny.py').write_text('model = dict(')
    assert 'A run: 0 epochs' in page_of(tmp_path).text


def test_a_run_that_was_killed_early(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path)
    run.log.write_text('')  # no environment block, and so no seed
    config = settings()
    del config['randomness']
    text = f'{Config(config).pretty_text}\n'
    (tmp_path / 'tiny.py').write_text(text)
    page = page_of(tmp_path)
    assert 'environment' in page.kinds
    assert '--work-dir NEW_FOLDER<' in page.text


def test_a_config_in_a_run_is_not_run(tmp_path: Path) -> None:
    run = finished_run(tmp_path)
    trap = f'open({str(tmp_path / "trap")!r}, "w")'
    for text in (f'import os\n{trap}\n', f'model = dict(type={trap})\n'):
        for path in (tmp_path / 'tiny.py', run.data / 'config.py'):
            path.write_text(text)
        page = page_of(tmp_path)
        assert not (tmp_path / 'trap').exists()
        assert ('config' in page.kinds) == text.startswith('import')


def test_one_start_of_a_run_has_a_page(tmp_path: Path) -> None:
    finished_run(tmp_path)
    page = page_of(tmp_path / '20260102_030405')
    assert '4 of 4 epochs in 90 s, finished.' in page.text


def test_another_backend_is_named(tmp_path: Path) -> None:
    config = settings()
    config['vis_backends'] = [dict(type='TensorboardVisBackend')]
    WrittenRun(tmp_path, config)
    assert 'the run has no LocalVisBackend' in page_of(tmp_path).text


def run_tool(monkeypatch: pytest.MonkeyPatch, root: Path, *words: object) -> None:
    monkeypatch.setattr(sys, 'argv', ['report.py', *map(str, words)])
    runpy.run_path(str(root / 'tools' / 'report.py'), run_name='__main__')


def test_the_tool_writes_the_page(
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    finished_run(tmp_path / 'run')
    run_tool(monkeypatch, root, tmp_path / 'run')
    page = tmp_path / 'run' / 'report.html'
    assert capsys.readouterr().out == f'wrote {page}\n'
    first = page.read_text()
    # a page in the folder changes no page
    run_tool(monkeypatch, root, tmp_path / 'run', '--out', tmp_path / 'a' / 'b.html')
    made = re.compile(r'Made \S+ \S+ by')
    again = (tmp_path / 'a' / 'b.html').read_text()
    assert made.sub('', again) == made.sub('', first)


def test_bad_input_gives_one_sentence(
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    run, empty = tmp_path / 'runs' / 'run', tmp_path / 'empty'
    finished_run(run)
    empty.mkdir()
    torn = tmp_path / 'torn.py'
    torn.write_text('model = dict(')
    cases = {
        (tmp_path / 'none',): f"folder '{tmp_path}/none' does not exist",
        (torn,): f"folder '{torn}' is a file",
        (empty,): f'{empty} holds no run: give the work folder of tools/train.py',
        (tmp_path / 'runs',): f'holds no run itself: give one of {run}',
        (run, '--out', empty): f'--out {empty} is a folder: give a file',
        (run, '--out', torn / 'a.html'): f'--out {torn}/a.html cannot be written',
        (run, '--config', 'none.py'): "--config: config 'none.py' does not exist",
        (run, '--config', torn): f'config {torn} cannot be read',
        (run, '--results', 'none.json'): "--results: file 'none.json' does not exist",
        (run, '--results', torn): f'--results: {torn} is no JSON of tools/evaluate.py',
    }
    for words, sentence in cases.items():
        with pytest.raises(SystemExit) as stop:
            run_tool(monkeypatch, root, *words)
        assert stop.value.code == 1
        error = capsys.readouterr().err
        assert error.startswith('error: ')
        assert sentence in error
        assert error.count('\n') == 1
    assert not (run / 'report.html').exists()
