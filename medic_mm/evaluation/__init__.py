"""Measures of what features are worth: functions of tensors, torch alone.

What needs a host (extraction, hooks) is imported from its own module:
:mod:`medic_mm.evaluation.features`, :mod:`medic_mm.evaluation.knn_metrics`.
"""

from medic_mm.evaluation.knn import (
    knn_accuracy,
    knn_hits,
    knn_predict,
    knn_predict_many,
)
from medic_mm.evaluation.neighbours import nearest_neighbours
from medic_mm.evaluation.rankme import rankme

__all__ = [
    'knn_accuracy',
    'knn_hits',
    'knn_predict',
    'knn_predict_many',
    'nearest_neighbours',
    'rankme',
]
