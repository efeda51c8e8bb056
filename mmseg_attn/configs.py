# Copyright (c) mmseg_attn contributors.
"""Find the configs that come with the package."""

from __future__ import annotations

import functools
import json
import re
import textwrap
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from . import metafiles
from .errors import UserError, near
from .files import whole
from .hosts import HostError, missing_host
from .markdown import markdown_table

if TYPE_CHECKING:  # `info` finds configs where no host is installed
    from mmengine.config import Config

# Each split has its dataloader in a config.
SPLITS = ('train', 'val', 'test')
# As the names of configs have them -> as tables call them.
BENCHMARKS = {
    'cityscapes': 'Cityscapes',
    'ade20k': 'ADE20K',
    'voc12aug': 'Pascal VOC 2012 + Aug',
    'pascal-context': 'PASCAL Context, 60 classes',
    'pascal-context-59': 'PASCAL Context, 59 classes',
    'coco-stuff10k': 'COCO-Stuff 10k',
    'coco-stuff164k': 'COCO-Stuff 164k',
    'lip': 'LIP',
    'camvid': 'CamVid',
    'gid15': 'GID-15',
    'gid5': 'GID-5',
    'vaihingen': 'Vaihingen',
    'potsdam': 'Potsdam',
}
BACKBONES = {
    'r18': 'R-18',
    'r34': 'R-34',
    'r50': 'R-50',
    'r101': 'R-101',
    'hr48': 'HRNet-W48',
    'effb5': 'EfficientNet-B5',
    'effb7': 'EfficientNet-B7',
    'swin-tiny': 'Swin-T',
    'convnext-tiny': 'ConvNeXt-T',
}
# What `train --images` calls a method -> how its configs begin.
OWN_METHODS = {
    'ccnet': 'ccnet',
    'caa': 'caanet',
    'sanet': 'sanet',
    'isa': 'isanet',
    'ea': 'eanet',
    'la': 'lanet',
}
# Of those, what detectors have -> what their configs call it.
OWN_DETECTORS = {'ccnet': 'rcca', 'isa': 'isa', 'ea': 'ea5'}
# The same for a backbone -> that of the config from which it is made.
OWN_BACKBONES = {
    'r18': 'r50-d8',
    'r50': 'r50-d8',
    'r101': 'r101-d8',
    'swin-t': 'swin-tiny',
    'convnext-t': 'convnext-tiny',
}
# Folders of configs of many methods on one backbone.
FAMILIES = ('demo', 'camvid')
# Method, backbone, recipe and benchmark in the name of a segmentor's config.
SEGMENTOR = re.compile(
    r'([a-z0-9-]+)_([a-z0-9-]+?)(?:-d\d+)?_\d+xb\d+[a-z-]*-\d+k_'
    r'([a-z0-9-]+)-\d+x\d+'
)


def find_config(name_or_path: str) -> str:
    """Find a config by its path or by the name of a packaged config.

    Args:
        name_or_path: Path of a config file, or the file name of a config of
            this project with or without ``.py``, optionally with its folders
            (``ccnet/NAME.py``), or the short name of a model of the zoo.

    Returns:
        Path of the config file.

    Raises:
        UserError: There is neither such a file nor such a config.
    """
    path = Path(name_or_path)
    if path.is_file():
        return str(path)
    configs, short = list_configs(), {}
    if path.name:
        wanted = path.with_name(path.name.removesuffix('.py') + '.py')
        for config in configs:
            if config.parts[-len(wanted.parts) :] == wanted.parts:
                return str(config)
        short = metafiles.short_names()
        if name_or_path in short:
            return str(short[name_or_path].config)
    if path.is_dir():
        raise UserError(
            f'{name_or_path or "the current folder"} is a folder, expected a '
            'config file.'
        )
    raise UserError(
        f'No config file {name_or_path}, and none of the {len(configs)} '
        f'packaged configs and {len(short)} models of the zoo has this name.'
        + near(
            path.name.removesuffix('.py'),
            [*short, *(config.stem for config in configs)],
        )
    )


def load_config(
    config: str | Path | Config, options: dict | None = None
) -> Config:
    """Read a config.

    Args:
        config: Path or name as of :func:`find_config`, or a config that is
            read already.
        options: Entries to change, by their dotted names.

    Returns:
        The config; with options one that was read already is changed.

    Raises:
        UserError: There is no such config, it or a base cannot be read, or it
            has no place for an entry.
    """
    from mmengine.config import Config

    if not isinstance(config, (str, Path, Config)):
        raise UserError(
            f'got a {type(config).__name__}, expected the path or name of a '
            'config, or a loaded one.'
        )
    if not isinstance(config, Config):
        path = find_config(str(config))
        _read_yaml_as_data()
        try:
            config = Config.fromfile(path)
        except Exception as error:  # a config is a program
            if isinstance(error, ModuleNotFoundError) and missing_host(error):
                raise
            raise UserError(explain_reading(path, error)) from error
    if options:
        try:
            config.merge_from_dict(options)
        except (KeyError, TypeError) as error:
            raise UserError(
                f'the entries {", ".join(options)} cannot all be set '
                f'(--cfg-options): {error.args[0]}'
            ) from error
    return config


def training_crop(config: Config) -> tuple[int, int] | None:
    """Read the size of the pictures that a training sees.

    Args:
        config: Config of a segmentor.

    Returns:
        Height and width, in pixels; None where it does not say.
    """
    model = config.get('model') or {}
    size = (model.get('data_preprocessor') or {}).get('size')
    size = size or config.get('crop_size')
    return (size, size) if isinstance(size, int) else size and tuple(size)


def write_config(
    config: str | Path, folder: Path, options: dict | None = None
) -> Path:
    """Write a config without bases, so that it works alone.

    Args:
        config: Path or name as of :func:`find_config`.
        folder: Where to, made where it is not there.
        options: Entries to change, by their dotted names.

    Returns:
        The file, of the config's name.

    Raises:
        UserError: The config cannot be read, or a file with another content
            has its name, which is left as it is.
    """
    text = load_config(config, options).pretty_text
    path = folder / f'{Path(find_config(str(config))).stem}.py'
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with whole(path) as partial:
            partial.write_text(text, 'utf-8')
    elif path.read_text('utf-8') != text:
        raise UserError(
            f'{path} is there already with another content and is left as '
            'it is: remove it or choose another --dest.'
        )
    return path


def explain_reading(path: str | Path, error: Exception) -> str:
    """Say where and why a config could not be read.

    Args:
        path: The config.
        error: What mmengine raised of it or of one of its bases.

    Returns:
        A line with the file, the line where there is one, and the reason.
    """
    places, line = [str(path)], None
    for frame, number in traceback.walk_tb(error.__traceback__):
        # mmengine goes from file to file by calling these.
        if frame.f_code.co_name in ('_file2dict', '_get_base_files'):
            places.append(str(frame.f_locals.get('filename', path)))
        elif frame.f_code.co_filename == places[-1]:
            line = number
    # Neither a base that is missing nor mmengine's temporary copies.
    place = [name for name in places if Path(name).is_file()][-1]
    kind = type(error).__name__
    reason = textwrap.shorten(str(error), 300).rstrip('.!')
    mark = getattr(error, 'problem_mark', None)  # of YAML
    if mark:
        line, reason = mark.line + 1, getattr(error, 'problem', reason)
    elif isinstance(error, (SyntaxError, json.JSONDecodeError)):
        line, reason = error.lineno, error.msg
    elif isinstance(error, RecursionError):
        reason = 'its bases (_base_) lead back to it'
    elif HostError.OUR_BASE.found_in(error):
        reason = (
            'mmengine finds no base mmseg_attn::FOLDER/NAME; instead: '
            "_base_ = __import__('mmseg_attn').find_config('NAME')"
        )
    elif isinstance(error, FileNotFoundError):
        reason = f'its base {error.filename} does not exist'
    elif not isinstance(error, (ImportError, OSError)):
        reason = f'{kind}: {reason}'
    return f'config {place}{f", line {line}" if line else ""}: {reason}.'


@functools.cache
def _read_yaml_as_data() -> None:
    """Let mmengine read YAML without running what is in it.

    Its own loader makes any Python object that a file names. This one makes
    plain values, and tuples, which mmengine writes itself. It stays in place
    for this process: bases, lists of classes and annotation files are read by
    it too, and whoever needs objects can name yaml.Loader.
    """
    import yaml
    from mmengine.fileio import register_handler
    from mmengine.fileio.handlers import YamlHandler

    class Loader(yaml.SafeLoader):
        """Plain values and tuples."""

        def tuple_of(self, node: yaml.Node) -> tuple:
            return tuple(self.construct_sequence(node, deep=True))

        def refuse(self, node: yaml.Node) -> None:
            tag = node.tag.replace('tag:yaml.org,2002:', '!!')
            raise yaml.constructor.ConstructorError(
                problem=f'{tag} could run code; expected plain values (text, '
                'numbers, lists, mappings). A .py config can hold programs',
                problem_mark=node.start_mark,
            )

    Loader.add_constructor('tag:yaml.org,2002:python/tuple', Loader.tuple_of)
    Loader.add_constructor(None, Loader.refuse)

    @register_handler(['yaml', 'yml'])
    class Handler(YamlHandler):
        """mmengine's, with that loader."""

        def load_from_fileobj(self, file: TextIO, **kwargs) -> object:
            kwargs.setdefault('Loader', Loader)
            return super().load_from_fileobj(file, **kwargs)


def list_configs() -> list[Path]:
    """Find all configs that come with the package, without their bases.

    Returns:
        Their files.
    """
    return [
        path
        for root in metafiles.package_roots()
        for path in sorted((root / 'configs').rglob('*.py'))
        if '_base_' not in path.relative_to(root).parts
    ]


def benchmark_table() -> str:
    """List the backbones of each method on each benchmark, in Markdown.

    Returns:
        From the names of the segmentors' configs; those of the demo are left
        out.

    Raises:
        UserError: A config of a benchmark or backbone without a title here, or
            of a folder that is not in ``model-index.yml``.
    """
    titles = metafiles.method_titles()
    found, methods = {}, set()
    for path in list_configs():
        name, method = SEGMENTOR.fullmatch(path.stem), path.parent.name
        if not name or method in FAMILIES:
            continue
        _, backbone, data = name.groups()
        for kind, value, table in (
            ('backbone', backbone, BACKBONES),
            ('benchmark', data, BENCHMARKS),
        ):
            if value not in table:
                raise UserError(
                    f'{path.name} names the {kind} {value}, which has no '
                    f'title: add it to {kind.upper()}S in '
                    'mmseg_attn/configs.py'
                )
        if method not in titles:
            raise UserError(
                f'configs/{method} has no title: add '
                f'configs/{method}/metafile.yaml to model-index.yml'
            )
        methods.add(method)
        found.setdefault((method, data), set()).add(backbone)
    methods = [method for method in titles if method in methods]
    links = [f'[{titles[m]}](configs/{m}/README.md)' for m in methods]
    rows = []
    order = list(BACKBONES)
    for data, title in BENCHMARKS.items():
        cells = [
            ', '.join(
                BACKBONES[backbone]
                for backbone in sorted(
                    found.get((method, data), ()), key=order.index
                )
            )
            for method in methods
        ]
        rows.append([title, *cells])
    return markdown_table(['benchmark', *links], rows)
