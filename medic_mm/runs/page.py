"""The report of a run as one HTML page that needs no other file.

``page.html`` beside this file is its Jinja2 template; all text in it is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2
from markupsafe import Markup

from medic_mm.runs.charts import COLOURS, Chart, svg_address
from medic_mm.runs.curves import charts_of, knn_table
from medic_mm.runs.facts import describe_run, headline
from medic_mm.runs.findings import find_warnings, other_warnings
from medic_mm.runs.results import Result
from medic_mm.runs.run import Run
from medic_mm.runs.settings import Change
from medic_mm.version import __version__

#: More pictures would make the page too heavy to send; the rest stays in the folder.
MOST_PANELS = 12


@dataclass(frozen=True)
class Extras:
    """What stands in the report besides the run itself.

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
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('medic_mm', 'runs'),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    panels = _panels(run)
    knn = knn_table(run)
    shown = {
        'warnings': True,
        'panels': panels,
        'curves': True,
        'k-nn': knn[1],
        'evaluation': extras.results,
        'config': extras.base or extras.config_text,
        'environment': extras.command or run.environment or len(run.logs) > 1,
    }
    return environment.get_template('page.html').render(
        run=run,
        extras=extras,
        headline=headline(run),
        facts=describe_run(run),
        parts=[name for name, content in shown.items() if content],
        findings=find_warnings(run),
        others=other_warnings(run),
        panels=panels,
        charts=[_described(chart) for chart in charts_of(run)],
        nothing_logged=_nothing_logged(run),
        knn=knn,
        version=__version__,
    )


def number_text(value: float) -> str:
    """A number in a few digits."""
    if value == 0:
        return '0'
    if abs(value) >= 1e5 or abs(value) < 1e-3:
        return f'{value:.2e}'
    return f'{value:.4g}'


def _described(chart: Chart) -> dict[str, Any]:
    """A chart with its picture, its words, and the ends of its curves."""
    rows, words = [], []
    for number, (label, points) in enumerate(chart.curves.items()):
        values = [value for _, value in points]
        ends = (values[0], values[-1], min(values), max(values))
        kind = f'c{number % len(COLOURS)}' + ' dashed' * (number >= len(COLOURS))
        swatch = Markup('<span class="swatch {}" aria-hidden="true"></span>{}')
        rows.append([swatch.format(kind, label), *map(number_text, ends)])
        words.append(f'{label} from {rows[-1][1]} to {rows[-1][2]}')
    return dict(
        chart=chart,
        image=svg_address(chart),
        words=f'{chart.title} over {chart.across}: {"; ".join(words)}',
        rows=rows,
    )


def _nothing_logged(run: Run) -> str:
    backends = [x.get('type') for x in run.config.get('vis_backends') or []]
    if backends and 'LocalVisBackend' not in backends:
        return (
            'No scalars are in the folder, since the run has no LocalVisBackend in '
            'vis_backends.'
        )
    return 'No scalars were logged yet.'


def _panels(run: Run) -> list[tuple[int, str]]:
    """Epoch and picture in base64, newest first."""
    steps = _spread(sorted(run.panels, reverse=True), MOST_PANELS)
    return [
        (step, base64.b64encode(run.panels[step].read_bytes()).decode())
        for step in steps
    ]


def _spread(steps: Sequence[int], most: int) -> list[int]:
    """The first, the last, and others at even distances."""
    if len(steps) <= most:
        return list(steps)
    last = len(steps) - 1
    return [steps[round(index * last / (most - 1))] for index in range(most)]
