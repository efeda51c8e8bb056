# Copyright (c) mmseg_attn contributors.
"""The parsing head learns on photographs (set MMSEG_ATTN_REAL_DATA)."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from PIL import Image

REAL = os.environ.get('MMSEG_ATTN_REAL_DATA')
SIZE = 97


@pytest.mark.skipif(not REAL, reason='MMSEG_ATTN_REAL_DATA is not set')
def test_horses_are_told_from_the_background():
    folder = Path(REAL) / 'horses'
    inputs, samples = [], []
    for path in sorted((folder / 'images' / 'train').glob('*.jpg'))[:8]:
        image = Image.open(path).convert('RGB').resize((SIZE, SIZE))
        mask = folder / 'masks' / 'train' / f'{path.stem}.png'
        mask = Image.open(mask).resize((SIZE, SIZE), Image.NEAREST)
        inputs.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
        label = torch.from_numpy(np.array(mask)).long()[None]
        sample = SegDataSample(gt_sem_seg=PixelData(data=label))
        sample.set_metainfo(
            {'ori_shape': (SIZE, SIZE), 'img_shape': (SIZE, SIZE)}
        )
        samples.append(sample)
    truth = torch.stack([s.gt_sem_seg.data[0] for s in samples])
    assert truth.unique().tolist() == [0, 1]

    init_default_scope('mmseg')
    torch.manual_seed(0)
    norm_cfg = {'type': 'BN'}
    model = MODELS.build(
        ConfigDict(
            type='EncoderDecoder',
            data_preprocessor={
                'type': 'SegDataPreProcessor',
                'mean': [127.0] * 3,
                'std': [60.0] * 3,
                'size_divisor': 1,
            },
            backbone={
                'type': 'mmseg_attn.DeepStemResNet',
                'depth': 50,
                'base_channels': 8,
                'stem_channels': 16,
                'dilations': (1, 1, 1, 2),
                'strides': (1, 2, 2, 1),
                'norm_cfg': norm_cfg,
            },
            decode_head={
                'type': 'mmseg_attn.CE2PHead',
                'in_channels': (32, 64, 128, 256),
                'channels': 32,
                'decoder_channels': 32,
                'skip_channels': 8,
                'num_classes': 2,
                'dropout_ratio': 0,
                'norm_cfg': norm_cfg,
                'align_corners': True,
                'loss_ccl': {'type': 'mmseg_attn.CategoryConsistentLoss'},
            },
            train_cfg={},
            test_cfg={'mode': 'whole'},
        )
    )
    model.init_weights()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    history = []
    for _ in range(60):
        data = model.data_preprocessor(
            {'inputs': inputs, 'data_samples': samples}, True
        )
        loss, parts = model.parse_losses(model(**data, mode='loss'))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append({k: float(v.detach()) for k, v in parts.items()})
    for name in ('loss_ce', 'loss_ce_seg1', 'loss_edge', 'loss_ccl'):
        first = np.mean([step[f'decode.{name}'] for step in history[:3]])
        last = np.mean([step[f'decode.{name}'] for step in history[-3:]])
        assert last < 0.7 * first, name

    # In training mode: batch statistics of few steps are not settled.
    with torch.no_grad():
        data = model.data_preprocessor({'inputs': inputs}, False)
        logits = model(data['inputs'])
    logits = torch.nn.functional.interpolate(
        logits, (SIZE, SIZE), mode='bilinear', align_corners=True
    )
    prediction = logits.argmax(1)
    both = ((prediction == 1) & (truth == 1)).sum()
    either = ((prediction == 1) | (truth == 1)).sum()
    accuracy = (prediction == truth).float().mean()
    majority = max(float((truth == c).float().mean()) for c in (0, 1))
    assert both / either > 0.6
    assert accuracy > majority + 0.5 * (1 - majority)
