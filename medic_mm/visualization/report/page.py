"""The report as one HTML page that needs nothing beside itself."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medic_mm.version import __version__
from medic_mm.visualization.report.facts import describe_run, headline
from medic_mm.visualization.report.findings import (
    Finding,
    find_warnings,
    other_warnings,
)
from medic_mm.visualization.report.graphs import draw_curves_of, knn_table
from medic_mm.visualization.report.markup import (
    Markup,
    folded,
    scrolling,
    section,
    table,
    tag,
)
from medic_mm.visualization.report.results import Result
from medic_mm.visualization.report.run import Run
from medic_mm.visualization.report.settings import Change
from medic_mm.visualization.report.style import STYLE

#: More pictures would make the page too heavy to send; the rest stays in the folder.
MOST_PANELS = 12
#: Longer values of the config are folded.
_LONG = 160


@dataclass(frozen=True)
class Extras:
    """What stands in the report beside the run itself.

    Attributes:
        base: Name of the config that the run's settings are compared with.
        changes: What they change in it.
        config_text: The whole config.
        results: Of evaluations.
        command: What repeats the run.
        made: When the page was made, in words.
    """

    base: str | None = None
    changes: Sequence[Change] = ()
    config_text: str = ''
    results: Sequence[Result] = field(default_factory=list)
    command: str = ''
    made: str = ''


def render_page(run: Run, extras: Extras) -> str:
    """The page."""
    parts = [
        section('Warnings', *_warnings(run)),
        section('Panels', *_panels(run)),
        section('Curves', draw_curves_of(run) or _nothing_logged(run)),
        section('k-NN', knn_table(run)),
        section('Evaluation', *map(_result, extras.results)),
        section('Config', *_config(extras)),
        section('Environment', *_environment(run, extras)),
    ]
    shown = [part for part in parts if part]
    title = f'{run.name} \N{MIDDLE DOT} run report'
    head = [
        tag('meta', charset='utf-8'),
        tag('meta', name='viewport', content='width=device-width, initial-scale=1'),
        tag('title', title),
        tag('style', Markup(STYLE)),
    ]
    body = [_header(run, shown), tag('main', *shown), _footer(run, extras)]
    page = tag('html', tag('head', *head), tag('body', *body), lang='en')
    return f'<!DOCTYPE html>\n{page}\n'


def _header(run: Run, parts: Sequence[Markup]) -> Markup:
    facts = [
        tag('div', tag('dt', name), tag('dd', words))
        for name, words in describe_run(run).items()
    ]
    names = [part.split(' aria-labelledby="')[1].partition('"')[0] for part in parts]
    titles = [part.split('</h2>')[0].rpartition('>')[2] for part in parts]
    links = [
        tag('a', Markup(title), href=f'#{name}')
        for name, title in zip(names, titles, strict=True)
    ]
    return tag(
        'header',
        tag('h1', run.name),
        tag('p', headline(run), class_='lead'),
        tag('dl', *facts, class_='facts'),
        tag('nav', *links, aria_label='Parts of this page'),
    )


def _footer(run: Run, extras: Extras) -> Markup:
    words = f'Made {extras.made} by tools/report.py of medic_mm {__version__}'
    return tag('footer', tag('p', f'{words} from {run.folder}.'))


def _warnings(run: Run) -> list[Markup]:
    found = [_finding(finding) for finding in find_warnings(run)]
    if not any(finding.serious for finding in find_warnings(run)):
        found.insert(0, tag('p', 'Nothing was found that spoils the results.'))
    others = other_warnings(run)
    if others:
        items = [
            tag('li', text, tag('span', f' ({count} times)') if count > 1 else None)
            for text, count in others
        ]
        number = len(others)
        words = f'{number} other warning{"s" * (number > 1)} in the log'
        found.append(folded(words, tag('ul', *items)))
    return found


def _finding(finding: Finding) -> Markup:
    word = 'Warning' if finding.serious else 'Note'
    return tag(
        'div',
        tag('p', tag('strong', f'{word}: '), finding.what),
        tag('p', finding.meaning, class_='soft'),
        class_='finding serious' if finding.serious else 'finding',
        data_kind=finding.kind,
    )


def _nothing_logged(run: Run) -> Markup:
    backends = [x.get('type') for x in run.config.get('vis_backends') or []]
    words = 'No scalars were logged yet.'
    if backends and 'LocalVisBackend' not in backends:
        words = (
            'No scalars are in the folder, since the run has no LocalVisBackend in '
            'vis_backends.'
        )
    return tag('p', words)


def _panels(run: Run) -> list[Markup]:
    steps = sorted(run.panels, reverse=True)
    chosen = _spread(steps, MOST_PANELS)
    shown = []
    for number, step in enumerate(chosen):
        data = base64.b64encode(run.panels[step].read_bytes()).decode()
        picture = tag(
            'img',
            src=f'data:image/png;base64,{data}',
            alt=f'Fixed validation images after epoch {step}: a column for each image; '
            'rows for the input, what is hidden, the reconstruction and the features '
            'of student and teacher, as far as the model has them.',
        )
        shown.append(
            folded(
                f'Epoch {step}',
                scrolling(picture, f'Panel of epoch {step}'),
                open_=number == 0,
            )
        )
    if len(steps) > len(chosen):
        words = f'{len(chosen)} of {len(steps)} panels are shown.'
        shown.append(tag('p', words, class_='soft'))
    return shown


def _spread(steps: Sequence[int], most: int) -> list[int]:
    """The first, the last, and others at even distances."""
    if len(steps) <= most:
        return list(steps)
    last = len(steps) - 1
    return [steps[round(index * last / (most - 1))] for index in range(most)]


def _result(result: Result) -> Markup:
    numbers = [
        column
        for column in range(1, len(result.heads))
        if all(_is_number(row[column]) for row in result.rows)
    ]
    return tag(
        'div',
        tag('h3', result.title),
        table(result.heads, result.rows, result.title, numbers),
        *(tag('p', note, class_='soft') for note in result.notes),
    )


def _is_number(text: str) -> bool:
    return text == '' or text.replace('.', '', 1).replace('-', '', 1).isdecimal()


def _config(extras: Extras) -> Iterable[Markup]:
    if extras.base is not None:
        own = [change for change in extras.changes if not change.filled_in]
        tools = [change for change in extras.changes if change.filled_in]
        base = tag('code', extras.base)
        if own:
            number = f'{len(own)} setting{"s" * (len(own) != 1)}'
            yield tag('p', f'The run changes {number} of ', base, ':')
            yield _changes(own)
        else:
            yield tag('p', 'The run changes no setting of ', base, '.')
        if tools:
            yield folded(
                f'{len(tools)} settings that the tools fill in', _changes(tools)
            )
    if extras.config_text:
        text = tag('pre', tag('code', extras.config_text))
        yield folded('The whole config', scrolling(text, 'The whole config'))


def _changes(changes: Sequence[Change]) -> Markup:
    rows = [[tag('code', x.key), _value(x.base), _value(x.run)] for x in changes]
    heads = ('setting', 'base', 'this run')
    return tag('div', table(heads, rows, 'Changed settings'), class_='settings')


def _value(text: str) -> Markup:
    code = tag('code', text)
    if len(text) <= _LONG:
        return code
    return folded(tag('code', f'{text[:60]}\N{HORIZONTAL ELLIPSIS}'), code)


def _environment(run: Run, extras: Extras) -> list[Markup]:
    shown = []
    if extras.command:
        shown += [
            tag('p', 'The log does not keep the command line. This repeats the run:'),
            tag('pre', tag('code', extras.command), class_='command'),
        ]
    found: Mapping[str, Any] = run.environment
    if found:
        rows = [[name, value] for name, value in found.items()]
        shown.append(table(('what', 'value'), rows, 'Environment'))
    if len(run.logs) > 1:
        shown.append(tag('p', f'These are of the last of {len(run.logs)} starts.'))
    return shown
