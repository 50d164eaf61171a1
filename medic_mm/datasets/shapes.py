"""Outlines of the ten shapes of the built-in data set."""

from __future__ import annotations

import cv2
import numpy as np

_FRACTION_BITS = 6  # cv2 takes sub-pixel points as integers of 1 / 64 pixel
# shapes are drawn so many times larger and averaged: cv2's own anti-aliasing widens
# what it fills by about half a pixel
_OVERSAMPLING = 4


def _arc(first: float, last: float, points: int = 40) -> np.ndarray:
    """Points on the unit circle between two angles in turns, ``(points, 2)``."""
    angles = 2 * np.pi * np.linspace(first, last, points)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _regular(corners: int, first: float = -0.25) -> np.ndarray:
    """Corners on the unit circle, the first at an angle in turns (-0.25 is up)."""
    return _arc(first, first + 1 - 1 / corners, corners)


def _star() -> np.ndarray:
    radius = np.where(np.arange(10) % 2, 0.42, 1.0)
    return _regular(10) * radius[:, None]


def _cross(arm: float = 0.3, reach: float = 0.95) -> np.ndarray:
    quarter = np.array([[arm, -reach], [arm, -arm], [reach, -arm]])
    turn = np.array([[0, 1], [-1, 0]])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, n) for n in range(4)])


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, -y - 2], axis=1) / 18


def _crescent() -> np.ndarray:
    # the outer arc, and back along a smaller circle through the same two tips
    outer = _arc(0.1, 0.9)
    centre, tip = 0.45, outer[0]
    radius = np.hypot(tip[0] - centre, tip[1])
    start = np.arctan2(tip[1], tip[0] - centre) / (2 * np.pi)
    inner = _arc(1 - start, start) * radius + [centre, 0]
    return np.concatenate([outer, inner])


def _arrow() -> np.ndarray:
    half = [(0, -1), (0.72, -0.15), (0.26, -0.15), (0.26, 0.95)]
    return np.array(half + [(-x, y) for x, y in reversed(half[1:])])


def _bar() -> np.ndarray:
    return np.array([[-0.28, -0.95], [0.28, -0.95], [0.28, 0.95], [-0.28, 0.95]])


#: Closed outlines inside the unit circle, y down; a second outline is a hole.
SHAPES: dict[str, tuple[np.ndarray, ...]] = {
    'circle': (_arc(0, 1) * 0.9,),
    'triangle': (_regular(3),),
    'square': (_regular(4, first=-0.125),),
    'star': (_star(),),
    'cross': (_cross(),),
    'ring': (_arc(0, 1) * 0.95, _arc(0, 1) * 0.5),
    'heart': (_heart(),),
    'crescent': (_crescent(),),
    'arrow': (_arrow(),),
    'bar': (_bar(),),
}

_OUTLINES = tuple(SHAPES.values())


def draw_shape(
    label: int, size: int, centre: np.ndarray, radius: float, angle: float
) -> np.ndarray:
    """Coverage of every pixel by a shape, with smooth edges.

    Args:
        label: Index of the shape in :data:`SHAPES`.
        size: Side of the image in pixels.
        centre: ``(x, y)`` of the shape's centre in pixels.
        radius: Radius of the circle around the shape in pixels.
        angle: Rotation in radians.

    Returns:
        uint8 ``(size, size)``: 0 outside, 255 inside.
    """
    cos, sin = radius * np.cos(angle), radius * np.sin(angle)
    turn = np.array([[cos, sin], [-sin, cos]])
    scale = _OVERSAMPLING << _FRACTION_BITS
    # centres of the fine pixels are integers too
    shift = (_OVERSAMPLING - 1) / 2 * (1 << _FRACTION_BITS)
    outlines = [
        np.round((outline @ turn + centre) * scale + shift).astype(np.int32)
        for outline in _OUTLINES[label]
    ]
    fine = np.zeros((_OVERSAMPLING * size, _OVERSAMPLING * size), np.uint8)
    cv2.fillPoly(fine, outlines, 255, cv2.LINE_8, _FRACTION_BITS)
    return cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA)
