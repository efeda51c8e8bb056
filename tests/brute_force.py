# Copyright (c) mmseg_attn contributors.
"""Attention matrices by the papers' equations, pair by pair."""

import torch


def criss_cross_matrix(layer, x):
    """(H W, H W) attention matrix of criss-cross attention, pixel by pixel."""
    height, width = x.shape[2:]
    query, key = layer.query_conv(x)[0], layer.key_conv(x)[0]
    matrix = torch.zeros(height, width, height, width, dtype=x.dtype)
    for i in range(height):
        for j in range(width):
            seen = [(r, j) for r in range(height) if r != i]
            seen += [(i, c) for c in range(width)]
            scores = torch.stack(
                [(query[:, i, j] * key[:, r, c]).sum() for r, c in seen]
            )
            for weight, (r, c) in zip(scores.softmax(0), seen, strict=True):
                matrix[i, j, r, c] = weight
    return matrix.reshape(height * width, height * width)


def axial_matrix(layer, x):
    """(H W, H W) of axial attention: the columns first, then the rows.

    Query and key of an axis are one projection; scores have no scale.
    """
    height, width = x.shape[2:]
    column, row = (
        getattr(layer, f'{axis}_querykey_convbnrelu')(x)[0] for axis in 'vh'
    )
    along_columns = torch.zeros(height, width, height, width, dtype=x.dtype)
    along_rows = torch.zeros_like(along_columns)
    for i in range(height):
        for j in range(width):
            scores = column[:, i, j] @ column[:, :, j]
            along_columns[i, j, :, j] = scores.softmax(0)
            scores = row[:, i, j] @ row[:, i]
            along_rows[i, j, i] = scores.softmax(0)
    both = (along_rows, along_columns)
    second, first = (m.reshape(height * width, -1) for m in both)
    return second @ first


def non_local_matrix(layer, x):
    """(H W, H W) of mmcv's block: the embedded Gaussian, scaled."""
    query, key = (conv(x)[0].flatten(1) for conv in (layer.theta, layer.phi))
    scores = query.T @ key / len(query) ** 0.5
    return torch.stack([row.exp() / row.exp().sum() for row in scores])
