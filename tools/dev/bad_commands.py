# Copyright (c) mmseg_attn contributors.
"""Wrong arguments and files of the commands."""

from collections.abc import Iterator

import numpy as np
from answers import Case
from material import CLIPS, DETECTOR, STEREO, Material

from mmseg_attn.__main__ import main

# Arguments that have a right value everywhere else.
NO_COUNTS = ('0', '-1', 'x', '1.5')
NO_SHARES = ('-0.1', '1.5', 'x', 'nan')


def command_cases(material: Material) -> Iterator[Case]:
    """Cases of each command in turn."""
    makers = (
        _models,
        _numbers,
        _pictures,
        _other_tasks,
        _scenes,
        _trials,
        _zoo,
    )
    for maker in makers:
        yield from maker(material)


def _case(group: str, name: str, *arguments: object) -> Case:
    given = [str(argument) for argument in arguments]
    return Case(group, name, lambda: main([group, *given]))


def _calls(material: Material) -> dict[str, list]:
    """Right arguments behind config and checkpoint, of each command."""
    return {
        'predict': [material.picture, '--out', material.folder / 'out'],
        'worst': ['--out', material.folder / 'worst', '--overwrite'],
        'attention': [
            *(material.picture, '--pixel', 3, 4, '--overwrite'),
            *('--out', material.folder / 'attention.png'),
        ],
    }


def _models(material: Material) -> Iterator[Case]:
    for command, rest in _calls(material).items():
        for name, path in material.checkpoints().items():
            given = material.config, path, *rest
            yield _case(command, f'checkpoint {name}', *given)
        for name, path in material.configs().items():
            given = path, material.weights, *rest
            yield _case(command, f'config {name}', *given)
        for text in ('x', '=1', 'model=3', 'model.type=NoSuch'):
            options = '--cfg-options', text
            given = material.config, material.weights, *rest, *options
            yield _case(command, f'--cfg-options {text}', *given)
        for device in ('cuda:99', 'gpu', 'cpu:x', '-1'):
            given = material.config, material.weights, *rest
            given = *given, f'--device={device}'
            yield _case(command, f'--device {device}', *given)
    for name, path in material.configs().items():
        yield _case('labels', f'config {name}', path)
    for name, path in material.checkpoints().items():
        yield Case(
            'tools/test.py',
            f'checkpoint {name}',
            lambda path=path: material.tool(
                *('test.py', material.config, path),
                *('--work-dir', material.work_dir()),
            ),
        )
        for key in ('load_from', 'resume'):
            if key == 'load_from' and name == 'few of the weights':
                continue  # a start for another model, with a warning
            yield Case(
                'tools/train.py',
                f'{key} {name}',
                lambda path=path, key=key: material.tool(
                    *('train.py', material.config),
                    *('--work-dir', material.work_dir()),
                    *('--cfg-options', f'{key}={path}'),
                ),
            )


def _numbers(material: Material) -> Iterator[Case]:
    right = material.config, material.weights
    predict = [*right, *_calls(material)['predict']]
    for value in NO_COUNTS:
        yield _case(
            'predict',
            f'--batch-size {value}',
            *predict,
            f'--batch-size={value}',
        )
        yield _case(
            'worst',
            f'-n {value}',
            *right,
            f'--number={value}',
            '--out',
            material.folder / 'w',
        )
        for option in ('--seeds', '--jobs', '--iters'):
            yield _case(
                'compare',
                f'{option} {value}',
                f'{option}={value}',
                '--work-dir',
                material.folder / 'c',
            )
        yield _case(
            'demo',
            f'--iters {value}',
            f'--iters={value}',
            '--work-dir',
            material.folder / 'd',
        )
    for value in NO_SHARES:
        for option in ('--opacity', '--score'):
            yield _case(
                'predict', f'{option} {value}', *predict, f'{option}={value}'
            )
    for value in ('-5', 'x', '1.5'):
        yield _case(
            'predict', f'--slide {value}', *predict, f'--slide={value}'
        )
    attention = [*right, material.picture, '--out', 'a.png']
    for x, y in ((-1, 0), (96, 0), (0, 96), ('x', 0), (1.5, 2)):
        yield _case(
            'attention', f'--pixel {x} {y}', *attention, '--pixel', x, y
        )
    yield _case(
        'attention',
        '--layers',
        *attention,
        '--pixel',
        1,
        1,
        '--layers',
        'no_such',
    )
    for size in ('a', '0', '-3', '3x', '4x5x6'):
        for pair in ((size, '16'), ('32', size)):
            yield Case(
                'tools/test.py',
                f'--slide {" ".join(pair)}',
                lambda pair=pair: material.tool(
                    *('test.py', *right, '--work-dir', material.work_dir()),
                    *('--slide', *pair),
                ),
            )


def _pictures(material: Material) -> Iterator[Case]:
    right = material.config, material.weights
    for name, path in material.pictures().items():
        out = material.folder / f'pictures/{name}'
        yield _case('predict', f'picture {name}', *right, path, '--out', out)
        yield _case(
            'attention',
            f'picture {name}',
            *right,
            path,
            '--pixel',
            1,
            1,
            '--out',
            f'{out}.png',
        )
    empty = material.folder / 'no_pictures'
    empty.mkdir(exist_ok=True)
    file = material.write('file.txt', 'x')
    for name, given in {
        'an empty folder': [empty],
        'a glob of nothing': ['no_such_*.png'],
        'out is a file': [material.picture, '--out', file],
        'out is a picture': [material.picture, '--out', 'a.png'],
        'out is in the dataset': [
            *(material.picture, '--out'),
            material.folder / 'data/scenes/images/val',
        ],
        'kind of another task': [
            *(material.picture, '--save', 'depth', '--out', 'o1'),
        ],
        'no kind': [material.picture, '--save', 'nothing'],
        'too few classes': [material.picture, '--classes', 'a,b'],
        'a right picture': [material.picture, '--right', material.picture],
        'no video': [material.write('a.mp4', 'x'), '--out', 'o3'],
    }.items():
        yield _case('predict', name, *right, *given)
    for name in ('a.txt', 'b', 'c.gif'):
        yield _case(
            'attention',
            f'out {name}',
            *right,
            material.picture,
            '--pixel',
            1,
            1,
            '--out',
            name,
        )
    yield _case(
        'attention',
        'out is the picture',
        *right,
        material.picture,
        '--pixel',
        1,
        1,
        '--overwrite',
        '--out',
        material.picture,
    )
    yield _case('worst', 'class', *right, '--class', 'no_such', '--out', 'w2')
    yield _case(
        'worst',
        'out is in the dataset',
        *right,
        '--out',
        material.folder / 'data/scenes/images/val',
    )
    yield _case('worst', 'out is a file', *right, '--out', file)


def _other_tasks(material: Material) -> Iterator[Case]:
    """Models of other tasks, and their own."""
    calls = _calls(material)
    for config in (STEREO, CLIPS, DETECTOR):
        for command in ('worst', 'attention'):
            yield _case(
                command,
                f'config {config}',
                config,
                material.weights,
                *calls[command],
            )
        yield _case(
            'predict',
            f'weights of another, {config}',
            config,
            material.weights,
            *calls['predict'],
        )
    yield _case('labels', 'of pairs', STEREO)
    yield _case('labels', 'no such split', material.config, '--split', 'all')
    yield _case(
        'predict',
        'one picture for a pair',
        STEREO,
        material.weights,
        material.picture,
    )
    for name, text in {
        'missing': None,
        'empty': '',
        'text': 'focal=a\nbaseline=b\n',
        'negative': 'focal=-1\nbaseline=2\n',
    }.items():
        path = material.folder / f'calibration {name}'
        if text is not None:
            path.write_text(text)
        yield _case(
            'predict',
            f'calibration {name}',
            STEREO,
            material.weights,
            material.picture,
            '--right',
            material.write('r.png', material.picture.read_bytes()),
            '--calibration',
            path,
        )


def _scenes(material: Material) -> Iterator[Case]:
    for option in ('--train', '--val', '--size'):
        for value in ('0', '-4', '3', 'x', '1.5'):
            yield _case(
                'scenes', f'{option} {value}', 's', f'{option}={value}'
            )
    for value in ('0', '-1', '1', 'x'):
        yield _case('scenes', f'--clips {value}', 's2', f'--clips={value}')
    yield _case('scenes', 'a folder in use', material.folder / 'data/scenes')
    yield _case('scenes', 'a file', material.write('s.txt', 'x'))
    yield _case('scenes', 'below a file', material.write('t.txt', 'x') / 'a')
    yield _case('scenes', 'both kinds', 's3', '--clips', 2, '--stereo')


def _trials(material: Material) -> Iterator[Case]:
    rng = np.random.default_rng(0)
    pictures, masks = material.folder / 'own', material.folder / 'own_masks'
    for folder in (pictures, masks):
        folder.mkdir(exist_ok=True)
    for path in (pictures / 'a.png', masks / 'a.png'):
        path.write_bytes(rng.bytes(50))
    empty = material.folder / 'nothing'
    empty.mkdir(exist_ok=True)
    for command in ('demo', 'compare'):

        def case(name, *given, command=command):
            work = material.folder / f'{command} {name}'
            return _case(command, name, '--work-dir', work, *given)

        yield case('images alone', '--images', pictures)
        yield case('masks alone', '--masks', masks)
        yield case('missing', '--images', 'no', '--masks', 'no')
        yield case('empty', '--images', empty, '--masks', empty)
        yield case('noise', '--images', pictures, '--masks', masks)
        yield case('a file', '--images', pictures / 'a.png', '--masks', masks)
        yield case('device', '--device', 'cuda:99')
        yield case('device', '--device', 'gpu')
        yield _case(
            command,
            'work folder among the pictures',
            '--images',
            pictures,
            '--masks',
            masks,
            '--work-dir',
            pictures / 'w',
        )
        yield _case(
            command,
            'work folder is a file',
            '--work-dir',
            material.write('u.txt', 'x'),
        )
        yield _case(
            command,
            'work folder in use',
            '--work-dir',
            material.folder / 'data',
        )
    yield _case(
        'compare', 'no such method', '--methods', 'no_such', '--work-dir', 'c2'
    )


def _zoo(material: Material) -> Iterator[Case]:
    yield _case('zoo', 'no action')
    yield _case('zoo', 'no such action', 'upload')
    yield _case('zoo', 'no such method', 'list', '--method', 'no_such')
    yield _case('zoo', 'no such dataset', 'list', '--dataset', 'no_such')
    yield _case('zoo', 'no such name', 'download', 'no_such')
    yield _case('zoo', 'of no checkpoint', 'download', 'ccnet')
    yield _case('predict', 'near a name of the zoo', 'demo_cnet', 'a.png')
    yield _case('test', 'a config without weights', material.config)
    yield _case('reproduce', 'no such name', 'no_such')
    yield _case(
        'reproduce',
        'trained by others',
        'isanet_r50-d8_4xb4-20k_voc12aug-512x512',
    )
    name = 'isanet_r50-d8_4xb4-20k_voc12aug-512x512'
    for option, values in (
        ('--retries', ('x', '-1', '1.5')),
        ('--timeout', ('x', '-3', '0', 'nan', 'inf')),
    ):
        for value in values:
            given = 'download', name, f'{option}={value}'
            yield _case('zoo', f'{option} {value}', *given)
    for wrong, path in material.checkpoints().items():
        yield _case(
            'zoo',
            f'verify {wrong}',
            'verify',
            path,
            '--config',
            material.config,
        )
    yield _case('zoo', 'of no config', 'verify', material.weights)
