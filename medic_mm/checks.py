"""Checks of arguments, for constructors: one sentence with name, value and remedy.

Importing this module needs neither torch nor OpenMMLab.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from medic_mm.errors import UserError


def require(condition: Any, sentence: str) -> None:
    """Raise ``UserError(sentence)`` unless the condition holds."""
    if not condition:
        raise UserError(sentence)


def require_number(
    owner: Any,
    name: str,
    value: Any,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
    integer: bool = False,
    infinite: bool = False,
) -> None:
    """Refuse what is not a number in a range: NaN, infinity, bool, text, None.

    Args:
        owner: Whose argument it is: its name, or the component itself; ``''`` for
            an argument that says so by itself.
        name: Name of the argument, as it is written in a config.
        value: The value. Numbers of NumPy count, whole floats are not integers.
        low: Least value allowed.
        above: Bound that the value must exceed.
        high: Largest value allowed.
        below: Bound that the value must stay under.
        integer: Take whole numbers only.
        infinite: Also take infinity, which no check of a range refuses then.

    Raises:
        UserError: ``'tau=0 of ClsAlignmentLoss must be a number above 0'``.
    """
    fits = (
        isinstance(value, Integral if integer else Real)
        and not isinstance(value, bool)
        and not math.isnan(value)
        and (infinite or not math.isinf(value))
        and (low is None or value >= low)
        and (above is None or value > above)
        and (high is None or value <= high)
        and (below is None or value < below)
    )
    if fits:
        return
    whose = owner if isinstance(owner, str) else type(owner).__name__
    whose = f' of {whose}' if whose else ''
    bounds = [
        f'{word} {bound}'
        for word, bound in (
            ('at least', low),
            ('above', above),
            ('at most', high),
            ('below', below),
        )
        if bound is not None
    ]
    kind = 'whole number' if integer else 'number'
    if not infinite and isinstance(value, Real) and math.isinf(value):
        kind = f'finite {kind}'
    raise UserError(
        f'{name}={value!r}{whose} must be '
        + ' '.join([f'a {kind}', ' and '.join(bounds)]).rstrip()
    )


def require_numbers(owner: Any, name: str, values: Any, **limits: Any) -> None:
    """As :func:`require_number`, for one number or a sequence of them."""
    many = isinstance(values, Sequence) and not isinstance(values, str)
    for value in values if many else [values]:
        require_number(owner, name, value, **limits)
