# Copyright (c) mmseg_attn contributors.
"""Wrong calls of the Python interface, of layers and of operators."""

import inspect
from collections.abc import Iterator

import numpy as np
import torch
from answers import Case
from material import Material

import mmseg_attn
from mmseg_attn import layers
from mmseg_attn.ops.declare import OPERATORS

WRONG = (0, -1, 1.5, 'x', float('nan'), float('inf'), None, [], {})
# Of an argument that may be None, a number or a flag, these are right.
RIGHT = {
    'axis': (None, 0),
    'in_channels': (None,),
    'mid_channels': (None,),
    'key_channels': (None,),
    'value_channels': (None,),
    'out_channels': (None,),
    'divisor': (None,),
    'eps': (0, 1.5),
    'gamma_init': (0, -1, 1.5),
    'gate_ratio': (0, 1.5),
    'gate_act_cfg': (None,),
    'conv_cfg': (None,),
    'norm_cfg': (None,),
    'act_cfg': (None,),
    'backend': (None,),
}
# Flags are whatever is true; mmengine's own argument.
FREE = ('zero_init', 'output_norm', 'channel_attention', 'init_cfg')


def python_cases(material: Material) -> Iterator[Case]:
    """Of the interface, then of layers, then of operators."""
    yield from _interface(material)
    yield from _layers()
    yield from _operators()


def _interface(material: Material) -> Iterator[Case]:
    model, load = material.model, mmseg_attn.load_model

    def case(name, run, *given, **options):
        text = ', '.join(map(_short, [*given, *options.values()]))
        return Case(
            f'mmseg_attn.{name}',
            text,
            lambda: _all(run(*given, **options)),
            python=True,
        )

    for name, path in material.checkpoints().items():
        yield Case(
            'mmseg_attn.load_model',
            f'checkpoint {name}',
            lambda path=path: load(material.config, path, device='cpu'),
            python=True,
        )
        yield Case(
            'mmseg_attn.verify_checkpoint',
            name,
            lambda path=path: mmseg_attn.verify_checkpoint(
                path, str(material.config)
            ),
            python=True,
        )
    for name, path in material.configs().items():
        for function in (load, mmseg_attn.load_config):
            given = (path, None) if function is load else (path,)
            if function is not load and name in ('empty', 'without a model'):
                continue  # right for what only reads
            yield Case(
                f'mmseg_attn.{function.__name__}',
                f'config {name}',
                lambda function=function, given=given: function(*given),
                python=True,
            )
    for classes in (['a'], 'abc', [1, 2]):
        yield case('load_model', load, material.config, None, classes=classes)
    for device in ('cuda:99', 'x', 3.5):
        yield case('load_model', load, material.config, None, device=device)
    for slide in (-1, (0, 5), 'x', (1, 2, 3)):
        yield case('load_model', load, material.config, None, slide=slide)
    picture = np.zeros((32, 32, 3), np.uint8)
    for image in (
        *(None, 3, 'no_such.png', ('a.png', 'b.png'), {}, b'abc'),
        *(picture[0], picture[..., 0], picture[:0], picture[..., :2]),
        *(torch.zeros(3, 32, 32), [None], ['no_such.png', picture]),
    ):
        yield case('predict', mmseg_attn.predict, model, image)
    for size in (0, -1):
        yield case(
            'predict', mmseg_attn.predict, model, picture, batch_size=size
        )
    for pixels in ([(-1, 0)], [(99, 0)], [(0, 99)], [], [(1,)], 'x', None):
        yield case(
            'attention_maps',
            mmseg_attn.attention_maps,
            *(model, picture, pixels),
        )
    for split in ('all', '', 3):
        yield case('worst', mmseg_attn.worst, model, split)
    for number in (0, -1):
        yield case('worst', mmseg_attn.worst, model, number=number)
    yield case('worst', mmseg_attn.worst, model, by_class='no_such')
    for name in ('no_such', '', 3, None):
        yield case('find_config', mmseg_attn.find_config, name)
        yield case('download_checkpoint', mmseg_attn.download_checkpoint, name)
    yield case('check_labels', mmseg_attn.check_labels, 'no_such')
    yield case(
        'check_labels', mmseg_attn.check_labels, material.config, ['all']
    )
    yield case('list_checkpoints', mmseg_attn.list_checkpoints, 'no_such')
    for save in (['no_such'], 'no_such'):
        yield case(
            'predict_files',
            mmseg_attn.predict_files,
            *(material.config, material.weights, [material.picture], 'o9'),
            save=save,
        )


def _all(result: object) -> object:
    """A generator says what is wrong when it is gone through."""
    return list(result) if inspect.isgenerator(result) else result


def _short(value: object) -> str:
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return f'{type(value).__name__} {tuple(value.shape)} {value.dtype}'
    return type(value).__name__ if callable(value) else repr(value)[-40:]


def _layers() -> Iterator[Case]:
    for name in layers.__all__:
        layer = getattr(layers, name)
        for argument in inspect.signature(layer).parameters:
            if argument in FREE:
                continue
            for value in WRONG:
                if any(value is right for right in RIGHT.get(argument, ())):
                    continue
                if value in RIGHT.get(argument, ()):
                    continue
                options = {'in_channels': 16, argument: value}
                yield Case(
                    name,
                    f'{argument} {value!r}',
                    lambda layer=layer, options=options: layer(**options),
                    python=True,
                )
        if name == 'ChannelLinearAttention':
            continue  # it takes maps of any width and rank
        for shape in ((16, 8, 8), (1, 15, 8, 8), (1, 16, 0, 8), (16,)):
            yield Case(
                name,
                f'a map {shape}',
                lambda layer=layer, shape=shape: layer(16)(torch.zeros(shape)),
                python=True,
            )


def _operators() -> Iterator[Case]:
    for name, operator in OPERATORS.items():
        case = operator.cases[0]
        right = operator.inputs(case)

        def run(inputs, operator=operator, case=case, **options):
            return operator.function(*inputs, **{**case.options, **options})

        spoilt = {
            'one axis fewer': lambda x: x[0],
            'no position': lambda x: x[:, :0],
            'whole numbers': lambda x: x.long(),
            'an array': lambda x: x.numpy(),
            'None': lambda x: None,
            'another width': lambda x: x[..., :1],
            'another dtype': lambda x: x.double(),
            'another batch': lambda x: x.repeat(2, *[1] * (x.ndim - 1)),
        }
        for number in range(len(right)):
            for wrong, spoil in spoilt.items():
                last = number == len(right) - 1
                if wrong == 'another width' and last:
                    continue  # a value may have any
                alone = 'one axis fewer', 'another dtype', 'another batch'
                if len(right) == 1 and wrong in alone:
                    continue  # there is nothing to differ from
                inputs = list(right)
                inputs[number] = spoil(inputs[number])
                yield Case(
                    name,
                    f'input {number}: {wrong}',
                    lambda run=run, inputs=inputs: run(inputs),
                    python=True,
                )
        for backend in ('no_such', 3, 'triton'):
            yield Case(
                name,
                f'backend {backend}',
                lambda run=run, right=right, backend=backend: run(
                    right, backend=backend
                ),
                python=True,
            )
