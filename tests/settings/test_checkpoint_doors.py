"""Every way by which a file reaches OpenMMLab's Runner: no code, nothing half."""

from __future__ import annotations

import copy
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from carrying_code import NOT_RUN, REFUSED
from mmengine.config import Config
from mmengine.runner import Runner
from tiny_runs import classifier_config, write_config, write_images

from medic_mm.cli.test import run_testing
from medic_mm.cli.train import run_training
from medic_mm.errors import FileError, UserError

NAME = 'head.layers.head.bias'


@pytest.fixture(scope='module')
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``images``, and ``run`` with a checkpoint of one of two epochs."""
    place = tmp_path_factory.mktemp('doors')
    write_images(place / 'images')
    run_training(write(config(place), place / 'first.py'), work_dir=str(place / 'run'))
    return place


@pytest.fixture
def content(place: Path) -> dict:
    return torch.load(place / 'run' / 'epoch_1.pth', weights_only=False)


def config(place: Path, epochs: int = 1, **init: Any) -> Config:
    cfg = classifier_config(place / 'images', epochs)
    cfg.param_scheduler[0].T_max = 2
    for part, steps in init.items():
        (cfg.model if part == 'model' else cfg.model[part]).init_cfg = steps
    return cfg


_number = iter(range(10**6))


def write(cfg: Config, path: Path) -> Path:
    """A config of a name of its own: the Runner keeps one logger a name and second."""
    return write_config(cfg, path.with_stem(f'{path.stem}_{next(_number)}'))


def resume_path(place: Path, file: Path, tmp: Path, **options: Any) -> Any:
    cfg = write(config(place, 2), tmp / 'config.py')
    return run_training(cfg, work_dir=str(tmp / 'out'), resume=str(file), **options)


def resume_auto(place: Path, file: Path, tmp: Path, **options: Any) -> Any:
    (tmp / 'out').mkdir(exist_ok=True)
    shutil.copy(file, tmp / 'out' / 'epoch_1.pth')
    cfg = write(config(place, 2), tmp / 'config.py')
    return run_training(cfg, work_dir=str(tmp / 'out'), resume='auto', **options)


def load_from(place: Path, file: Path, tmp: Path, **options: Any) -> Any:
    cfg = config(place)
    cfg.load_from = str(file)
    path = write(cfg, tmp / 'config.py')
    return run_training(path, work_dir=str(tmp / 'out'), **options)


def test_tool(place: Path, file: Path, tmp: Path) -> Any:
    cfg = write(config(place), tmp / 'config.py')
    return run_testing(cfg, file, work_dir=str(tmp / 'out'))


test_tool.__test__ = False  # type: ignore[attr-defined]


def init_cfg(part: str, prefix: str | None, wrap: Callable = lambda x: x) -> Callable:
    def door(place: Path, file: Path, tmp: Path, **options: Any) -> Any:
        step = dict(type='Pretrained', checkpoint=str(file))
        if prefix is not None:
            step['prefix'] = prefix
        cfg = write(config(place, **{part: wrap(step)}), tmp / 'config.py')
        return run_training(cfg, work_dir=str(tmp / 'out'), **options)

    return door


def host_tool(place: Path, file: Path, tmp: Path) -> Any:
    """OpenMMLab's own tool, with a config that names our hook."""
    cfg = config(place)
    cfg.load_from = str(file)
    cfg.default_hooks.weights = dict(type='medic_mm.StrictWeightsHook')
    cfg.work_dir = str(tmp / 'out')
    cfg.experiment_name = f'host_{next(_number)}'
    Runner.from_cfg(cfg).train()


#: The ways in, by name: the whole model, and parts of it.
WHOLE = {
    '--resume PATH': resume_path,
    '--resume': resume_auto,
    'load_from': load_from,
    'tools/test.py': test_tool,
    "host's tool": host_tool,
    'init_cfg of the model': init_cfg('model', None),
}
PARTS = {
    'init_cfg of the backbone': init_cfg('backbone', 'backbone.'),
    'init_cfg of the head': init_cfg('head', 'head'),
    'init_cfg as a list': init_cfg(
        'head', 'head.', lambda x: [dict(type='Constant', layer='Linear', val=1), x]
    ),
}


def crossed(kinds: Iterable[str], doors: Iterable[str]) -> Any:
    """Each door with one kind, each kind once if there are doors; the rest are long."""
    kinds, doors = list(kinds), list(doors)
    pairs = [
        pytest.param(
            door,
            kind,
            marks=() if kind == kinds[place % len(kinds)] else pytest.mark.faults,
        )
        for place, door in enumerate(doors)
        for kind in kinds
    ]
    return pytest.mark.parametrize(('door', 'kind'), pairs)


@crossed(REFUSED, {**WHOLE, **PARTS})
def test_code_is_refused(
    place: Path, content: dict, tmp_path: Path, door: str, kind: str
) -> None:
    file, sentinel = tmp_path / 'bad.pth', tmp_path / 'ran'
    REFUSED[kind](content, file, sentinel)
    with pytest.raises(UserError, match=r'bad\.pth|epoch_1\.pth'):
        {**WHOLE, **PARTS}[door](place, file, tmp_path)
    assert not sentinel.exists()
    assert not list((tmp_path / 'out').glob('epoch_2.pth'))


@pytest.mark.parametrize(
    'door',
    [
        '--resume PATH',
        *(
            pytest.param(door, marks=pytest.mark.faults)
            for door in {**WHOLE, **PARTS}
            if door != '--resume PATH'
        ),
    ],
)
def test_text_of_a_config_is_not_run(
    place: Path, content: dict, tmp_path: Path, door: str
) -> None:
    file, sentinel = tmp_path / 'good.pth', tmp_path / 'ran'
    NOT_RUN['config text'](content, file, sentinel)
    {**WHOLE, **PARTS}[door](place, file, tmp_path)
    assert not sentinel.exists()


def renamed(state: dict) -> None:
    state['head.layers.head.biass'] = state.pop(NAME)


def changed(change: Callable[[torch.Tensor], Any]) -> Callable[[dict], None]:
    def apply(state: dict) -> None:
        state[NAME] = change(state[NAME])

    return apply


#: Kind to a change of the weights, and the words that say so.
MISFITS: dict[str, tuple[Callable[[dict], Any], str]] = {
    'renamed': (renamed, 'missing .*bias; unexpected .*biass'),
    'missing': (lambda x: x.pop(NAME), 'missing .*bias'),
    'extra': (lambda x: x.update({'head.more': torch.ones(2)}), 'unexpected .*more'),
    'reshaped': (changed(lambda x: torch.ones(3)), 'bias'),
    'NaN': (changed(lambda x: x * torch.nan), 'NaN.*bias'),
    'infinite': (changed(lambda x: x + torch.inf), 'infinity.*bias'),
    'integers': (changed(lambda x: x.long()), 'int64.*bias'),
    'a number': (changed(lambda x: 3), 'bias'),
}


@crossed(MISFITS, {**WHOLE, 'head': PARTS['init_cfg of the head']})
def test_what_does_not_fit_is_refused_by_name(
    place: Path, content: dict, tmp_path: Path, door: str, kind: str
) -> None:
    change, words = MISFITS[kind]
    change(content['state_dict'])
    torch.save(content, tmp_path / 'bad.pth')
    doors = {**WHOLE, 'head': PARTS['init_cfg of the head']}
    with pytest.raises(FileError, match=words) as error:
        doors[door](place, tmp_path / 'bad.pth', tmp_path)
    assert str(error.value).count('\n') == 0
    assert not list((tmp_path / 'out').glob('epoch_2.pth'))


@crossed(
    ['reshaped', 'renamed', 'extra', 'NaN', 'integers'],
    ['--resume PATH', 'load_from'],
)
def test_the_advice_works(
    place: Path, content: dict, tmp_path: Path, door: str, kind: str
) -> None:
    MISFITS[kind][0](content['state_dict'])
    torch.save(content, tmp_path / 'bad.pth')
    with pytest.raises(FileError) as error:
        WHOLE[door](place, tmp_path / 'bad.pth', tmp_path)
    advised = str(error.value).partition('--resume-partial ')[2].split()
    runner = WHOLE[door](place, tmp_path / 'bad.pth', tmp_path, resume_partial=advised)
    log = Path(runner.log_dir, f'{runner.timestamp}.log').read_text()
    assert 'is loaded in part, as --resume-partial says' in log
    assert advised[-1] in log
    for value in runner.model.state_dict().values():
        assert torch.isfinite(value).all()


def test_the_advice_for_a_part_works(
    place: Path, content: dict, tmp_path: Path
) -> None:
    renamed(content['state_dict'])
    torch.save(content, tmp_path / 'bad.pth')
    door = PARTS['init_cfg of the head']
    with pytest.raises(FileError) as error:
        door(place, tmp_path / 'bad.pth', tmp_path)
    advised = str(error.value).partition('--resume-partial ')[2].split()
    assert advised == ['head.layers.head.bias', 'head.layers.head.biass']
    runner = door(place, tmp_path / 'bad.pth', tmp_path, resume_partial=advised)
    log = Path(runner.log_dir, f'{runner.timestamp}.log').read_text()
    assert '1 weights loaded; new in the network: layers.head.bias; left' in log


def test_all_other_weights_are_those_of_the_file(
    place: Path, content: dict, tmp_path: Path
) -> None:
    renamed(content['state_dict'])
    torch.save(content, tmp_path / 'a.pth')
    cfg = config(place)
    cfg.load_from = str(tmp_path / 'a.pth')
    cfg.optim_wrapper.optimizer.update(lr=0.0, weight_decay=0.0)
    path = write(cfg, tmp_path / 'config.py')
    runner = run_training(path, str(tmp_path / 'out'), resume_partial=['head.layers'])
    assert runner is not None
    for name, value in runner.model.state_dict().items():
        if name != NAME:
            assert torch.equal(value, content['state_dict'][name]), name


@pytest.mark.parametrize('door', PARTS)
def test_parts_get_the_file_and_nothing_draws_over_it(
    place: Path, content: dict, tmp_path: Path, door: str
) -> None:
    runner = PARTS[door](
        place,
        place / 'run' / 'epoch_1.pth',
        tmp_path,
        options={
            'optim_wrapper.optimizer.lr': 0.0,
            'optim_wrapper.optimizer.weight_decay': 0.0,
        },
    )
    part = 'backbone.' if 'backbone' in door else 'head.'
    state = runner.model.state_dict()
    for name, value in content['state_dict'].items():
        if name.startswith(part):
            assert torch.equal(state[name], value), name


def fewer_groups(saved: dict) -> None:
    saved['optimizer']['param_groups'].append(
        {**saved['optimizer']['param_groups'][0], 'params': []}
    )


def fewer_parameters(saved: dict) -> None:
    saved['optimizer']['param_groups'][0]['params'].pop()


def other_optimizer(saved: dict) -> None:
    for group in saved['optimizer']['param_groups']:
        group.pop('betas')


def moment(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict], None]:
    def apply(saved: dict) -> None:
        state = saved['optimizer']['state'][1]
        state['exp_avg'] = change(state['exp_avg'])

    return apply


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (fewer_groups, '2 groups of parameters in the file, 1 in the model'),
        (fewer_parameters, 'parameters of group 0 in the file'),
        (other_optimizer, 'another optimizer, without betas'),
        (moment(lambda x: x[..., :3]), 'exp_avg of parameter 1 has the shape'),
        (moment(lambda x: x * torch.nan), 'exp_avg of parameter 1 has NaN'),
        (lambda x: x.pop('optimizer'), 'no state of an optimizer'),
        (lambda x: x['param_schedulers'].append({}), '2 of them in the file, 1 in'),
        (lambda x: x['param_schedulers'][0].pop('T_max'), 'scheduler 0 is not'),
        (lambda x: x.pop('message_hub'), 'lacks message_hub'),
        (lambda x: x['meta'].pop('iter'), r"lacks meta\['iter'\]"),
    ],
)
def test_state_that_does_not_fit(
    place: Path, content: dict, tmp_path: Path, change: Callable, words: str
) -> None:
    change(content)
    torch.save(content, tmp_path / 'bad.pth')
    with pytest.raises(FileError, match=words) as error:
        resume_path(place, tmp_path / 'bad.pth', tmp_path)
    # what the sentence advises in place of resuming
    advised = str(error.value).partition('--cfg-options ')[2]
    assert advised == f'load_from={tmp_path / "bad.pth"}'
    if change is fewer_groups:
        load_from(place, tmp_path / 'bad.pth', tmp_path)


def test_partial_resume_with_another_head_starts_the_moments_anew(
    place: Path, content: dict, tmp_path: Path
) -> None:
    cfg = config(place, 2)
    cfg.model.head.hidden_dim = 8
    path = write(cfg, tmp_path / 'config.py')
    given = dict(work_dir=str(tmp_path / 'out'), resume=str(place / 'run/epoch_1.pth'))
    with pytest.raises(FileError, match=r'head\.weight \(2, 32\) in place of \(2, 8\)'):
        run_training(path, **given)
    runner = run_training(path, resume_partial=['head.'], **given)
    assert (runner.epoch, runner.iter) == (2, 8)
    log = Path(runner.log_dir, f'{runner.timestamp}.log').read_text()
    assert "optimizer's moments start anew" in log
    # the learning rate goes on as if nothing had happened
    whole = resume_path(place, place / 'run' / 'epoch_1.pth', tmp_path / 'whole')
    rates = [x.optim_wrapper.optimizer.param_groups[0]['lr'] for x in (runner, whole)]
    assert rates[0] == rates[1]


def test_settings_that_a_resumed_run_keeps_are_said(
    place: Path, tmp_path: Path
) -> None:
    runner = resume_path(
        place,
        place / 'run' / 'epoch_1.pth',
        tmp_path,
        options={'optim_wrapper.optimizer.lr': 0.5},
    )
    log = Path(runner.log_dir, f'{runner.timestamp}.log').read_text()
    assert 'initial_lr=0.001 (config: 0.5)' in log


def test_nothing_is_left_to_do(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = write(config(place), tmp_path / 'config.py')
    capsys.readouterr()
    assert run_training(path, work_dir=str(place / 'run'), resume='auto') is None
    said = capsys.readouterr().out.strip()
    assert said.startswith('Nothing is left to do: ')
    assert said.endswith('epoch_1.pth has 1 of 1 epochs (train_cfg.max_epochs).')
    assert '\n' not in said


def test_what_cannot_be_resumed_from(place: Path, tmp_path: Path) -> None:
    (tmp_path / 'empty.pth').touch()
    for given, words in {
        str(place / 'run'): r'run is a folder: give a file, such as .*epoch_1\.pth',
        str(tmp_path): 'is a folder: give a file$',
        'https://a.org/b.pth': 'is an address: fetch the file',
        str(tmp_path / 'empty.pth'): r'empty\.pth is empty',
        str(tmp_path / 'absent.pth'): r"absent\.pth' does not exist",
    }.items():
        with pytest.raises(UserError, match=words):
            resume_path(place, given, tmp_path)  # type: ignore[arg-type]


def test_load_from_is_looked_at_first(place: Path, tmp_path: Path) -> None:
    for given, words in {
        str(place / 'run'): 'load_from: .*run is a folder',
        'absent.pth': r"load_from: checkpoint 'absent\.pth' does not exist",
    }.items():
        with pytest.raises(UserError, match=words):
            load_from(place, given, tmp_path)  # type: ignore[arg-type]


def test_a_name_of_no_weight_is_refused(place: Path, tmp_path: Path) -> None:
    file = place / 'run' / 'epoch_1.pth'
    with pytest.raises(UserError, match=r'--resume-partial haed\.: no weight'):
        resume_path(place, file, tmp_path, resume_partial=['head.', 'haed.'])


def test_a_moving_average_is_checked_and_resumed(place: Path, tmp_path: Path) -> None:
    cfg = config(place, 2)
    cfg.custom_hooks = [dict(type='mmengine.EMAHook', momentum=0.1)]
    whole, again = tmp_path / 'whole', tmp_path / 'again'
    run_training(write(cfg, tmp_path / 'config.py'), work_dir=str(whole))
    file = whole / 'epoch_1.pth'
    given = dict(work_dir=str(again), resume=str(file))
    run_training(write(cfg, tmp_path / 'config.py'), **given)
    first, second = (
        torch.load(folder / 'epoch_2.pth', weights_only=False)
        for folder in (whole, again)
    )
    for key in ('state_dict', 'ema_state_dict'):
        assert first[key].keys() == second[key].keys()
        for name, value in first[key].items():
            assert torch.equal(value, second[key][name]), name
    saved = torch.load(file, weights_only=False)
    saved['ema_state_dict'][f'module.{NAME}'] *= torch.nan
    torch.save(saved, file)
    with pytest.raises(FileError, match=r'moving average .*NaN or infinity in head'):
        run_training(write(cfg, tmp_path / 'config.py'), **given)


def test_weights_alone_are_said_to_be_so(
    place: Path, content: dict, tmp_path: Path
) -> None:
    torch.save(copy.copy(content['state_dict']), tmp_path / 'a.pth')
    with pytest.raises(FileError, match=r"cannot be resumed from, it lacks meta\['ep"):
        resume_path(place, tmp_path / 'a.pth', tmp_path)
    load_from(place, tmp_path / 'a.pth', tmp_path)


@pytest.mark.parametrize('key', ['model', 'module'])
def test_weights_are_found_where_the_reader_finds_them(
    place: Path, content: dict, tmp_path: Path, key: str
) -> None:
    torch.save({key: content['state_dict'], 'args': None}, tmp_path / 'a.pth')
    runner = load_from(
        place,
        tmp_path / 'a.pth',
        tmp_path,
        options={
            'optim_wrapper.optimizer.lr': 0.0,
            'optim_wrapper.optimizer.weight_decay': 0.0,
        },
    )
    torch.testing.assert_close(
        runner.model.state_dict(), dict(content['state_dict']), rtol=0, atol=0
    )


def nodes(content: Any, depth: int) -> Iterator[tuple]:
    """Keys of all that lies so deep in dictionaries and lists."""
    if depth and isinstance(content, (dict, list)):
        inner = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in inner:
            yield (key,)
            yield from ((key, *rest) for rest in nodes(value, depth - 1))


@pytest.mark.faults
@pytest.mark.parametrize('seed', range(60))
def test_a_mutated_checkpoint_ends_in_a_sentence_or_does_no_harm(
    place: Path, content: dict, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    places = [
        keys
        for keys in nodes(content, 4)
        if keys[0] != 'state_dict' or chance.random() < 0.3
    ]
    keys = chance.choice(places)
    owner = content
    for key in keys[:-1]:
        owner = owner[key]
    bad = chance.choice(['drop', None, 'text', [], {}, -1, torch.tensor(torch.nan)])
    if isinstance(bad, str) and bad == 'drop' and isinstance(owner, dict):
        del owner[keys[-1]]
    else:
        owner[keys[-1]] = bad
    torch.save(content, tmp_path / 'bad.pth')
    try:
        runner = resume_path(place, tmp_path / 'bad.pth', tmp_path)
    except UserError as error:
        assert '\n' not in str(error)
        return
    assert keys[0] != 'state_dict', f'{keys} = {bad} was taken'
    for value in runner.model.state_dict().values():
        assert torch.isfinite(value).all()
