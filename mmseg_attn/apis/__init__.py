# Copyright (c) mmseg_attn contributors.
"""The public Python interface.

Each name is imported when it is first asked for, so that finding a config
needs no host, and reading what is installed not even torch.
"""

import importlib

# Name -> the module that has it.
_PLACES = {
    'attention_maps': 'apis.tracing',
    'build_runner': 'engine.runner',
    'check_labels': 'apis.labels',
    'collect_info': 'apis.info',
    'count_flops': 'apis.complexity',
    'download_checkpoint': 'apis.zoo',
    'draw_attention': 'visualization.attention',
    'find_config': 'configs',
    'list_checkpoints': 'apis.zoo',
    'list_configs': 'configs',
    'load_config': 'configs',
    'load_model': 'apis.loading',
    'make_predictor': 'apis.tasks',
    'predict': 'apis.prediction',
    'predict_files': 'apis.prediction_files',
    'verify_checkpoint': 'apis.zoo',
    'worst': 'apis.ranking',
    'write_attention_page': 'apis.attention_page',
}

__all__ = list(_PLACES)


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from ..progress import quiet_imports

    with quiet_imports():
        module = importlib.import_module(f'mmseg_attn.{_PLACES[name]}')
    globals()[name] = found = getattr(module, name)
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
