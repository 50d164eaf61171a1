"""A page of the report, taken apart."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

VOID = {'br', 'hr', 'img', 'meta'}


class Page(HTMLParser):
    """A page taken apart; elements must be closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images: list[dict] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.kinds: list[str] = []
        self.names: set[str] = set()
        self._rows: list[list[str]] = []
        self.text = path.read_text(encoding='utf-8')
        self.feed(self.text)
        self.close()
        assert self.open == [], 'elements were left open'

    @property
    def panels(self) -> list[dict]:
        """Images that are not charts."""
        return [x for x in self.images if x['src'].startswith('data:image/png')]

    def handle_starttag(self, name: str, attributes: list) -> None:
        found = dict(attributes)
        self.names.add(name)
        if name not in VOID:
            self.open.append(name)
        self.ids += [found['id']] if 'id' in found else []
        self.links += [found[key] for key in ('src', 'href') if key in found]
        self.images += [found] if name == 'img' else []
        self.kinds += [found['data-kind']] if 'data-kind' in found else []
        assert not any(key.startswith('on') for key in found), 'a script'
        if name == 'table':
            self._rows = []
        if name == 'tr':
            self._rows.append([])
        if name in ('th', 'td'):
            self._rows[-1].append('')

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name
        if name == 'table':
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if 'caption' in self.open:
            self._caption = data
        elif 'th' in self.open or 'td' in self.open:
            self._rows[-1][-1] += data
