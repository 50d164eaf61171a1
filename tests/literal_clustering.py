"""Clusterings of one image as plain loops, written from their definitions."""

import math

import numpy as np


def unit_rows(attention):
    rows = np.asarray(attention, dtype=np.float64)
    norms = np.sqrt((rows**2).sum(1, keepdims=True))
    return rows / np.where(norms == 0, 1, norms)


def merge_loop(attention, linkage, bias=0.0, grid=None, tie=1e-10):
    """Start from single patches; merge the most similar pair, the lowest among equals.

    Every similarity is computed anew from the members of both clusters. Returns the ids
    at every number of clusters.
    """
    unit, count = unit_rows(attention), len(attention)
    rows, columns = grid or (1, count)
    places = np.array([(i // columns, i % columns) for i in range(count)], dtype=float)
    diagonal = math.hypot(rows - 1, columns - 1)

    def distance(p, q):
        return math.hypot(*(p - q)) / diagonal

    def similarity(a, b):
        if linkage == 'average':
            pairs = [
                unit[i] @ unit[j] - (bias and bias * distance(places[i], places[j]))
                for i in a
                for j in b
            ]
            return sum(pairs) / len(pairs)
        one, other = unit[a].mean(0), unit[b].mean(0)
        cosine = one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
        return cosine - (bias and bias * distance(places[a].mean(0), places[b].mean(0)))

    clusters = [[i] for i in range(count)]
    found = {count: numbered(clusters, count)}
    while len(clusters) > 1:
        pairs = [
            (similarity(clusters[i], clusters[j]), i, j)
            for i in range(len(clusters))
            for j in range(i + 1, len(clusters))
        ]
        top = max(value for value, _, _ in pairs)
        _, i, j = next(pair for pair in pairs if pair[0] >= top - tie)
        clusters[i] = sorted(clusters[i] + clusters.pop(j))
        found[len(clusters)] = numbered(clusters, count)
    return found


def numbered(clusters, count):
    """Ids in the order of each cluster's lowest patch."""
    ids = [0] * count
    for number, members in enumerate(sorted(clusters, key=min)):
        for patch in members:
            ids[patch] = number
    return ids


def em_loop(attention, centres, kappa, iterations, unit_length=True):
    """Spherical EM with given first centres ``(K, L)``."""
    unit = unit_rows(attention) if unit_length else np.asarray(attention, np.float64)
    centres = [np.asarray(c, dtype=np.float64) for c in centres]

    def shares():
        table = []
        for patch in unit:
            scores = [math.exp(kappa * (patch @ c - 1)) for c in centres]
            table.append([s / sum(scores) for s in scores])
        totals = [1e-6 + sum(row[k] for row in table) for k in range(len(centres))]
        return [[s / t for s, t in zip(row, totals, strict=True)] for row in table]

    for _ in range(iterations):
        table = shares()
        for k in range(len(centres)):
            mean = sum(row[k] * patch for row, patch in zip(table, unit, strict=True))
            centres[k] = mean / np.linalg.norm(mean)
    return [row.index(max(row)) for row in shares()]
