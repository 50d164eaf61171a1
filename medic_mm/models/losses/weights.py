"""Weights of the terms of a loss, as a config gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from medic_mm.checks import require, require_number


def term_weights(
    owner: str, weights: Mapping[str, Any], terms: Iterable[str]
) -> dict[str, float]:
    """The weight of every term, 0 where none is given.

    Args:
        owner: Whose terms they are, for the sentence.
        weights: Weights by term.
        terms: All terms there are.

    Raises:
        UserError: for an unknown term, what is not a number of 0 or more, and where no
            weight is above 0.
    """
    terms = tuple(terms)
    require(
        isinstance(weights, Mapping),
        f'weights={weights!r} of {owner} must be a dict with {", ".join(terms)}',
    )
    unknown = sorted(set(weights) - set(terms))
    require(
        not unknown,
        f'weights has unknown terms {unknown}: the terms of {owner} are '
        f'{", ".join(terms)}',
    )
    for term, weight in weights.items():
        require_number(owner, f'weights.{term}', weight)
    full = {term: float(weights.get(term, 0)) for term in terms}
    require(
        min(full.values()) >= 0 and any(full.values()),
        f'weights={full} of {owner}: none may be negative and one must be above 0',
    )
    return full
