import math

import numpy as np
import pytest

from medic_mm.checks import require, require_number
from medic_mm.errors import UserError


class Owner:
    pass


@pytest.mark.parametrize(
    ('value', 'limits'),
    [
        (1, dict(low=1, integer=True)),
        (np.int64(3), dict(low=1, integer=True)),
        (np.float32(0.5), dict(above=0, below=1)),
        (0, dict(low=0, high=1)),
        (1.0, dict(low=0, high=1)),
        (-3.5, {}),
        (math.inf, dict(above=0, infinite=True)),
    ],
)
def test_numbers_within_their_range_pass(value, limits):
    require_number('Owner', 'value', value, **limits)


@pytest.mark.parametrize(
    ('value', 'limits', 'rest'),
    [
        (math.nan, {}, 'a number'),
        (math.nan, dict(infinite=True), 'a number'),
        (math.inf, dict(above=0), 'a finite number above 0'),
        (-math.inf, dict(low=0, infinite=True), 'a number at least 0'),
        (True, dict(low=0), 'a number at least 0'),
        ('3', dict(integer=True), 'a whole number'),
        (None, dict(integer=True), 'a whole number'),
        (2.0, dict(integer=True, low=1), 'a whole number at least 1'),
        (0, dict(integer=True, low=1), 'a whole number at least 1'),
        (0, dict(above=0, below=1), 'a number above 0 and below 1'),
        (1, dict(above=0, below=1), 'a number above 0 and below 1'),
        (1.5, dict(low=0, high=1), 'a number at least 0 and at most 1'),
    ],
)
def test_other_values_are_refused_in_one_sentence(value, limits, rest):
    with pytest.raises(UserError) as error:
        require_number(Owner(), 'value', value, **limits)
    assert str(error.value) == f'value={value!r} of Owner must be {rest}'


def test_a_condition_that_does_not_hold_is_the_sentence():
    require(1, 'not raised')
    with pytest.raises(UserError, match='set this to that'):
        require([], 'set this to that')
