"""Differences of configs."""

from __future__ import annotations

from medic_mm.runs.settings import ABSENT, Change, compare_settings


def changes(base: dict, run: dict) -> list[Change]:
    return list(compare_settings(base, run))


def test_changed_new_and_removed_settings() -> None:
    base = dict(a=1, model=dict(type='X', width=3, gone=True), same=[1, 2])
    run = dict(a=1, model=dict(type='X', width=4, new='<b>'), same=(1, 2))
    assert changes(base, run) == [
        Change('model.width', '3', '4'),
        Change('model.new', ABSENT, "'<b>'"),
        Change('model.gone', 'True', ABSENT),
    ]


def test_one_more_hook_is_one_change() -> None:
    first, second = dict(type='A', k=1), dict(type='B', k=[1, 2])
    more = dict(type='C')
    found = changes(dict(hooks=[first, second]), dict(hooks=[more, first, second]))
    assert found == [Change('hooks[0]', ABSENT, "dict(type='C')")]
    found = changes(dict(hooks=[first, more, second]), dict(hooks=[first, second]))
    assert found == [Change('hooks[1]', "dict(type='C')", ABSENT)]


def test_settings_of_an_item_that_moved_are_compared() -> None:
    base = dict(hooks=[dict(type='A', k=1), dict(type='B', k=1)])
    run = dict(hooks=[dict(type='C'), dict(type='A', k=1), dict(type='B', k=2)])
    assert changes(base, run) == [
        Change('hooks[0]', ABSENT, "dict(type='C')"),
        Change('hooks[2].k', '1', '2'),
    ]


def test_lists_of_numbers_are_one_setting() -> None:
    found = changes(dict(k=[1, 2], n=None), dict(k=(1, 3), n=0.5))
    assert found == [Change('k', '[1, 2]', '(1, 3)'), Change('n', 'None', '0.5')]


def test_what_the_tools_fill_in() -> None:
    names = ('train_dataloader.pin_memory', 'work_dir', 'model.launchers')
    assert [Change(n, '', '').filled_in for n in names] == [True, True, False]
