"""``--data-root``: one folder for all data sets of a config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from mmengine.config import Config

from medic_mm.errors import MissingFileError, UserError
from medic_mm.helpers import listed, type_name
from medic_mm.settings.options import read_places


def set_data_root(cfg: Config, folder: str) -> str:
    """Set ``data_root`` of each data set of a config, within others and in hooks too.

    Args:
        cfg: The config, changed in place.
        folder: The folder.

    Returns:
        What was set, for the log.

    Raises:
        MissingFileError: where there is no such folder.
        UserError: where no data set of the config has a ``data_root``.
    """
    if '://' not in folder and not Path(folder).is_dir():
        raise MissingFileError(f'--data-root: {folder!r} is not a folder')
    found = dict(_data_sets(cfg))
    places = [place for place, node in found.items() if 'data_root' in node]
    if not places:
        have = [f'{place} ({type_name(node)})' for place, node in found.items()]
        raise UserError(
            '--data-root: no data set of the config has a data_root to set; its data '
            f'sets are {listed(have)}'
        )
    for place in places:
        found[place]['data_root'] = folder
    return f'--data-root: {folder} is data_root of {listed(places, most=len(places))}.'


def _data_sets(cfg: Config) -> Iterator[tuple[str, dict]]:
    for place, node in read_places(cfg):
        above = [key for key in place[-2:] if not key.isdigit()]
        is_set = bool(above) and above[-1] in ('dataset', 'datasets')
        if is_set and isinstance(node, Mapping):
            yield '.'.join(place), node  # type: ignore[misc]
