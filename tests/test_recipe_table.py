# Copyright (c) mmseg_attn contributors.
"""What every config resolves to, against the table of recipes."""

import inspect
import re

import pytest
from all_configs import ALL, name, parsed
from mmseg.registry import DATASETS
from recipes import ROWS

# What a config may leave to its host.
NORM = dict(eps=1e-5, momentum=0.1)


def schedule_of(cfg) -> dict:
    """Optimizer, warm-up, decay, batch and length."""
    wrapper, optimizer = cfg.optim_wrapper, dict(cfg.optim_wrapper.optimizer)
    steps = [dict(step) for step in cfg.get('param_scheduler') or []]
    warmup = None
    if steps and steps[0]['type'] == 'LinearLR':
        first = steps.pop(0)
        assert first.get('begin', 0) == 0
        warmup = (first['start_factor'], first['end'])
    decay = steps.pop() if steps else {}
    assert not steps
    loop = cfg.train_cfg
    length = loop.get('max_iters') or loop.max_epochs
    if decay:  # to the end, in the unit of the loop
        assert decay.get('by_epoch', True) == ('max_epochs' in loop)
        assert decay.pop('end', length) == length
        start = warmup[1] if warmup and decay['type'] != 'MultiStepLR' else 0
        assert decay.pop('begin', 0) == start
        decay.pop('by_epoch', None)
    return dict(
        optimizer=optimizer,
        parameters=wrapper.get('paramwise_cfg'),
        clip=wrapper.get('clip_grad'),
        warmup=warmup,
        decay=decay or None,
        batch=cfg.train_dataloader.batch_size,
        length=length,
        drops_last=cfg.train_dataloader.get('drop_last', False),
    )


def steps_of(pipeline) -> list:
    """Steps of a pipeline, with those inside a step for clips."""
    steps = []
    for step in pipeline:
        inner = step.get('transforms') if 'Clip' in step.type else None
        steps += steps_of(inner) if inner else [step]
    return steps


def part_of(dataset) -> list | tuple:
    """Folder, pictures and labels, and the list of a part, of each dataset."""
    if 'datasets' in dataset:
        return [part_of(part) for part in dataset.datasets]
    prefix = dict(dataset.get('data_prefix', {}))
    keys = ('ann_file', 'indices', 'split')
    chosen = [dataset[key] for key in keys if dataset.get(key)]
    folders = [dataset.data_root, *prefix.values()]
    return *(folder.rstrip('/') for folder in folders if folder), *chosen


def scales_of(steps: list) -> tuple | list | None:
    """A range of factors, or a list of factors or of shorter sides."""
    for step in steps:
        if step.type == 'RandomResize':
            return step.ratio_range
        if step.type == 'RandomChoiceResize':
            return [min(scale) for scale in step.scales]
        if step.type == 'RandomChoice':
            return [inner[0].scale_factor for inner in step.transforms]
    return None


def ignores_zero(dataset) -> bool:
    """Whether the first label is no class, as the config or its class says."""
    said = [dataset.get('reduce_zero_label')]
    for step in steps_of(dataset.pipeline):
        if step.type == 'LoadAnnotations':
            said.append(step.get('reduce_zero_label'))
    said = {value for value in said if value is not None}
    if said:
        (value,) = said
        return value
    kind = DATASETS.get(dataset.type)
    if kind is None:  # of a detector
        return False
    default = inspect.signature(kind).parameters.get('reduce_zero_label')
    return bool(default and default.default)


def size_of_tests(cfg) -> tuple | None:
    """What pictures are resized to; labels are loaded at their own size."""
    sizes = []
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        steps = steps_of(loader.dataset.pipeline)
        kinds = [step.type for step in steps]
        sizes.append(None)
        if 'Resize' in kinds:
            place = kinds.index('Resize')
            sizes[-1] = steps[place].scale
            segments = 'decode_head' in cfg.model
            assert not segments or 'LoadAnnotations' not in kinds[:place]
    assert sizes[0] == sizes[1]
    return sizes[0]


def data_of(cfg) -> dict:
    """Parts, cuts and scales of the data, and what a network gets of it."""
    parts = {
        part: part_of(cfg[f'{part}_dataloader'].dataset)
        for part in ('train', 'val', 'test')
    }
    preprocessor = cfg.model.data_preprocessor
    if 'seg_pad_val' in preprocessor:  # a padded pixel has no label
        assert preprocessor.seg_pad_val == 255
    train = cfg.train_dataloader.dataset
    pipelines = {
        str(part.get('pipeline'))
        for part in [train.get('dataset', train)]
        for part in part.get('datasets', [part])
    }
    assert len(pipelines) == 1
    while 'pipeline' not in train:
        train = train.datasets[0]
    steps = steps_of(train.pipeline)
    (crop,) = [s.crop_size for s in steps if s.type == 'RandomCrop'] or [None]
    flips = [step for step in steps if step.type == 'RandomFlip']
    swapped = [step.get('swap_seg_labels') for step in flips] or [None]
    mirror = cfg.get('tta_model', {}).get('swap_labels')
    assert mirror == swapped[0], 'another swap in the test'
    tested = cfg.val_dataloader.dataset
    assert ignores_zero(tested) == ignores_zero(train)
    loaders = (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)
    shuffled = [loader.sampler.shuffle for loader in loaders]
    assert shuffled == [True, False, False]
    return dict(
        **parts,
        mean=list(preprocessor.mean),
        std=list(preprocessor.std),
        rgb=preprocessor.bgr_to_rgb,
        crop=crop,
        scales=scales_of(steps),
        tested=size_of_tests(cfg),
        flip=flips[0].prob if flips else None,
        swap=swapped[0],
        zero_is_ignored=ignores_zero(train),
        frames=train.get('frames'),
        frame_step=train.get('frame_step'),
    )


def hard_pixels(head) -> tuple | None:
    sampler = head.get('sampler') or {}
    if 'OHEM' not in sampler.get('type', ''):
        return None
    return sampler.thresh, sampler.min_kept


def norm_of(part) -> tuple | None:
    norm = part.get('norm_cfg')
    if not norm:
        return None
    values = {**NORM, **norm}
    return values['type'], values['eps'], values['momentum']


def network_of(cfg) -> dict:
    """What the recipe says of a segmentor."""
    model = cfg.model
    head, auxiliary = model.decode_head, model.get('auxiliary_head')
    attached = None
    if auxiliary:
        attached = dict(
            in_index=auxiliary.in_index,
            weight=auxiliary.loss_decode.loss_weight,
            dropout=auxiliary.get('dropout_ratio', 0.1),
            norm=norm_of(auxiliary),
            channels=auxiliary.channels,
            ohem=hard_pixels(auxiliary),
        )
    losses = {
        key.removeprefix('loss_'): value.get('loss_weight', 1.0)
        for key, value in head.items()
        if key.startswith('loss_')
    }
    body, tested = model.backbone, model.test_cfg
    if tested.mode == 'slide':
        windows = tested.crop_size, tested.stride
    else:
        windows = None
    return dict(
        losses=losses,
        auxiliary=attached,
        dropout=head.get('dropout_ratio', 0.1),
        norm=norm_of(head),
        body_norm=norm_of(body),
        ohem=hard_pixels(head),
        recurrence=head.get('recurrence'),
        align_corners=head.get('align_corners', False),
        dilations=body.get('dilations'),
        contracted=body.get('contract_dilation', False),
        grid=body.get('multi_grid'),
        stem=body.get('stem_channels', 64),
        windows=windows,
    )


def facts(cfg) -> dict:
    found = {**schedule_of(cfg), **data_of(cfg)}
    if 'decode_head' in cfg.model:
        found |= network_of(cfg)
    if 'loss_disparity' in cfg.model:
        found['losses'] = cfg.model.loss_disparity.weights
        found['validated'] = cfg.val_dataloader.batch_size
    return found


@pytest.mark.parametrize('path', ALL, ids=name)
def test_recipe(path):
    expected = {}
    for pattern, row in ROWS:
        if re.search(pattern, path.stem):
            expected |= row
    assert facts(parsed(path)) == expected


def test_each_row_is_of_a_config():
    """A pattern that finds none guards nothing."""
    for pattern, _ in ROWS:
        assert any(re.search(pattern, path.stem) for path in ALL), pattern
