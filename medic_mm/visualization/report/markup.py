"""HTML that cannot be broken by what stands in it: text is escaped, markup is not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

#: Elements that have no content and no end.
_VOID = frozenset({'br', 'hr', 'img', 'meta'})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """An element.

    Args:
        name: For example ``'td'``.
        children: Markup as it is; None is left out; anything else as escaped text.
        attributes: ``class_`` for ``class``, ``aria_label`` for ``aria-label``. True
            gives an attribute without value; None and False leave it out.
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        plain = key.rstrip('_').replace('_', '-')
        words.append(plain if value is True else f'{plain}="{escape(str(value))}"')
    opening = f'<{" ".join(words)}>'
    if name in _VOID:
        return Markup(opening)
    return Markup(f'{opening}{join(children)}</{name}>')


def join(children: Iterable[object]) -> Markup:
    """Children of an element, one after the other."""
    return Markup(
        ''.join(
            child if isinstance(child, Markup) else escape(str(child))
            for child in children
            if child is not None
        )
    )


def table(
    heads: Sequence[object],
    rows: Iterable[Sequence[object]],
    caption: str,
    numbers: Iterable[int] = (),
) -> Markup:
    """A table in a box that scrolls by itself where the page is narrow.

    Args:
        heads: Names of the columns.
        rows: Cells; the first of a row names it.
        caption: What the table is, for those who cannot see it and as label of the box.
        numbers: Columns that hold numbers, counted from 0.
    """
    right = dict.fromkeys(numbers, 'number')
    head = [
        tag('th', cell, scope='col', class_=right.get(i))
        for i, cell in enumerate(heads)
    ]
    body = [
        tag(
            'tr',
            tag('th', row[0], scope='row', class_=right.get(0)),
            *(
                tag('td', c, class_=right.get(i))
                for i, c in enumerate(row[1:], start=1)
            ),
        )
        for row in rows
    ]
    inner = tag(
        'table',
        tag('caption', caption, class_='hidden'),
        tag('thead', tag('tr', *head)),
        tag('tbody', *body),
    )
    return scrolling(inner, caption)


def scrolling(content: Markup, label: str) -> Markup:
    """A box that scrolls sideways, by the keyboard too."""
    return tag(
        'div', content, class_='scroll', role='region', aria_label=label, tabindex='0'
    )


def folded(summary: object, *children: object, open_: bool = False) -> Markup:
    """Content that is shown on demand, without JavaScript."""
    return tag('details', tag('summary', summary), *children, open=open_)


def section(title: str, *children: object) -> Markup:
    """A part of the page with a heading; nothing where it has no content."""
    shown = [child for child in children if child]
    if not shown:
        return Markup('')
    name = title.lower().replace(' ', '-').replace('/', '-')
    heading = tag('h2', title, id=name)
    return tag('section', heading, *shown, aria_labelledby=name)
