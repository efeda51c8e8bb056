# Copyright (c) mmseg_attn contributors.
"""Efficient attention for MMSegmentation and MMDetection.

Importing the package imports nothing else: ``mmseg_attn.ops`` and
``mmseg_attn.layers`` need torch alone, and OpenMMLab finds the models by the
scope in their type (``type='mmseg_attn.CCHead'``). The public names of
:mod:`mmseg_attn.ops`, :mod:`mmseg_attn.layers`, :mod:`mmseg_attn.apis` and
:mod:`mmseg_attn.models` are reached from here, too, and imported when they are
first asked for.
"""

import importlib
import importlib.util

__version__ = '0.2.0'

# Where a name is looked for, what needs least first.
_ROOMS = ('ops', 'layers', 'apis', 'models')


def __getattr__(name: str) -> object:
    if not name.startswith('_'):
        if importlib.util.find_spec(f'{__name__}.{name}'):
            return importlib.import_module(f'{__name__}.{name}')
        from .errors import UserError, near
        from .hosts import missing_host
        from .progress import quiet_imports

        known = set()
        for room in _ROOMS:
            try:
                with quiet_imports():
                    module = importlib.import_module(f'{__name__}.{room}')
            except ModuleNotFoundError as error:
                if line := missing_host(error):
                    raise UserError(line) from error
                raise
            found = getattr(module, name, None)
            if str(getattr(found, '__module__', None)).startswith(__name__):
                globals()[name] = found  # the next time it is there
                return found
            known.update(dir(module))
        meant = near(name, known)
    else:
        meant = ''
    raise AttributeError(
        f'module {__name__!r} has no attribute {name!r}.{meant}'
    )


def __dir__() -> list[str]:
    from .apis import __all__ as names

    return sorted([*globals(), *names])
