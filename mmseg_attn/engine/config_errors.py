# Copyright (c) mmseg_attn contributors.
"""Words for mistakes in a config."""

import importlib
import inspect
import os
import textwrap
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, TRANSFORMS

from ..errors import UserError, near
from ..hosts import HostError, missing_for, missing_package
from ..progress import quiet_imports

MISTAKES = (
    *(TypeError, ValueError, AssertionError, KeyError, IndexError),
    *(AttributeError, RuntimeError),
)
# Files of numbers in which there is no code.
SAFE_ENDINGS = ('.json', '.npy')
# Characters of a host's message; some hold the whole config.
LONGEST = 400


def check_installed(cfg: Config) -> None:
    """Refuse a config whose host is not there, or not whole.

    Its host is imported here, without what it prints then.

    Args:
        cfg: The config.

    Raises:
        UserError: It says what to install.
    """
    scope = cfg.get('default_scope')
    problem = missing_for(scope)
    if problem:
        raise UserError(problem)
    if scope in ('mmseg', 'mmdet'):
        with quiet_imports():
            importlib.import_module(f'{scope}.datasets')
            importlib.import_module(f'{scope}.models')


def check_weight_files(config: object) -> None:
    """Refuse weights of classes in a file that could run code.

    mmseg reads ``class_weight='FILE'`` with mmengine, which unpickles, and
    builds whatever a YAML file names.

    Args:
        config: The config of a model, or a part of one.

    Raises:
        UserError: The file is neither .json nor .npy.
    """
    if isinstance(config, (list, tuple)):
        for item in config:
            check_weight_files(item)
    elif isinstance(config, dict):
        weights = config.get('class_weight')
        if isinstance(weights, str) and not weights.endswith(SAFE_ENDINGS):
            raise UserError(
                f'class_weight is {weights!r}, and reading such a file could '
                'run code in it: expected a list of numbers, or a .json or '
                '.npy file.'
            )
        for item in config.values():
            check_weight_files(item)


@contextmanager
def config_mistakes(what: str) -> Iterator[None]:
    """Say in one line what of a config cannot be built, and why.

    Building takes nothing but the config, so that what it raises is the
    config's.

    Args:
        what: What is built, such as ``'the model'``.

    Yields:
        Nothing, while it is built.

    Raises:
        UserError: Instead of what its parts or the registry raise.
    """
    try:
        with unknown_types():
            yield
    except UserError:
        raise
    except MISTAKES as error:
        reason = textwrap.shorten(str(error), LONGEST)
        if not reason:  # of an assertion; its line tells
            place = traceback.extract_tb(error.__traceback__)[-1]
            file = os.path.basename(place.filename)
            reason = f'"{place.line}" does not hold in {file}'
        unexpected = HostError.UNEXPECTED_ARGUMENT.found_in(error)
        if unexpected:
            asked = near(unexpected[1], _arguments_asked_for(error))
            reason += (
                f'.{asked} If it is meant for the type that stood there in a '
                'base (_base_), put _delete_=True beside the new type, and '
                'all that this needs'
            )
        raise UserError(f'{what} cannot be built: {reason}') from error


def _arguments_asked_for(error: Exception) -> set[str]:
    """Names of the arguments of what could not be built."""
    while isinstance(error.__context__, TypeError):
        error = error.__context__  # mmengine may raise it anew
    kinds = [
        frame.f_locals['obj_cls']  # of mmengine's build_from_cfg
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if 'obj_cls' in frame.f_locals
    ]
    return {
        name
        for kind in kinds[-1:]
        for parent in getattr(kind, '__mro__', ())
        if '__init__' in parent.__dict__
        for name in inspect.signature(parent.__init__).parameters
    }


@contextmanager
def unknown_types() -> Iterator[None]:
    """Say which registered names are near one that cannot be found.

    Yields:
        Nothing, while parts of a config are built.

    Raises:
        UserError: The config asks for a type that nothing provides, or whose
            module is broken.
    """
    try:
        yield
    except (KeyError, RuntimeError) as error:
        broken = HostError.BROKEN_MODULE.found_in(error)
        if broken:
            raise UserError(
                f'the config asks for type={broken[1]!r}, whose module cannot '
                f'be imported: {error.__context__!r}'
            ) from error
        found = HostError.UNKNOWN_TYPE.found_in(error)
        if not found:
            raise
        names = [
            (f'{scope}.' if scope == 'mmseg_attn' else '') + name
            for root in (MODELS, DATASETS, TRANSFORMS)
            for scope, registry in root.children.items()
            for name in registry.module_dict
        ]
        raise not_provided(found[1], names) from error


def not_provided(
    name: str, names: Iterable[str], place: str = ''
) -> UserError:
    """Say that a config asks for a type that there is not.

    Args:
        name: The type.
        names: Those that there are.
        place: Where in the config it stands, after a space.

    Returns:
        The error to be raised.
    """
    missing = missing_package(name)
    return UserError(
        f'the config asks for type={name!r}{place}, which nothing provides.'
        + (f' {missing}' if missing else near(name, names))
    )
