# Copyright (c) mmseg_attn contributors.
"""A short training on real pictures, the same for whoever is trained."""

from __future__ import annotations

import time
from contextlib import nullcontext

import cv2
import numpy as np
import torch

MOST = 64  # pictures: they are held in memory
TENTHS = 10


def load(folder, height, width):
    """Pictures (N, 3, H, W) in fp32 and masks (N, 1, H, W) of a folder.

    Args:
        folder: With images/train and, of the same names, masks/train (PNG).

    Raises:
        SystemExit: The folder has no pictures.
    """
    paths = sorted((folder / 'images' / 'train').glob('*'))[:MOST]
    if not paths:
        raise SystemExit(f'no pictures in {folder}/images/train')
    size = width, height
    pictures = [cv2.resize(cv2.imread(str(path)), size) for path in paths]
    masks = [
        cv2.resize(
            cv2.imread(
                str(folder / 'masks' / 'train' / f'{path.stem}.png'),
                cv2.IMREAD_UNCHANGED,
            ),
            size,
            interpolation=cv2.INTER_NEAREST,
        )
        for path in paths
    ]
    x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()
    y = torch.from_numpy(np.stack(masks)).long()[:, None]
    return (x - 115) / 60, y


def train(losses, pictures, masks, batch, steps, amp=None):
    """SGD on the mean loss of batches drawn from a seed.

    Args:
        losses: A module of pictures, with the attribute ``labels``.
        pictures, masks: As :func:`load` returns them.
        batch, steps: Sizes.
        amp: Dtype of autocast. Under float16 the loss is scaled.

    Returns:
        Mean losses of the tenths of the steps, seconds, and the last scale of
        the loss.
    """
    device = next(losses.parameters()).device
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(
        losses.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4
    )
    scaler = torch.amp.GradScaler(device.type, enabled=amp == torch.float16)
    found = []
    start = time.perf_counter()
    for _ in range(steps):
        some = torch.randint(len(pictures), (batch,), generator=generator)
        losses.labels = masks[some].to(device)
        with _autocast(device, amp):
            loss = losses(pictures[some].to(device))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        found.append(loss.detach())
    found = torch.stack(found).float().cpu()  # waits for the device
    seconds = time.perf_counter() - start
    tenths = found.tensor_split(min(TENTHS, steps))
    return dict(
        losses=[part.mean().item() for part in tenths],
        seconds=seconds,
        scale=scaler.get_scale(),
    )


def _autocast(device, amp):
    return torch.autocast(device.type, amp) if amp else nullcontext()
