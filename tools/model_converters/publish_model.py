# Copyright (c) mmseg_attn contributors.
"""Make a checkpoint fit to be published.

Keeps the weights and a few plain facts; leaves out the optimizer, the log and
all else of the training. The name of what is written ends in the first 8
digits of its own sha256.
"""

import argparse
import hashlib
import io
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

from mmseg_attn import __version__
from mmseg_attn.configs import find_config
from mmseg_attn.errors import UserError, run_command
from mmseg_attn.files import whole
from mmseg_attn.progress import quiet_imports

with quiet_imports():
    from mmseg_attn.apis.zoo import check_structure, sha256sum
    from mmseg_attn.engine.checkpoint import load_checkpoint


def slim(checkpoint: dict, name: str) -> dict:
    """Keep what a published checkpoint needs.

    Args:
        checkpoint: As mmengine saves it, from ``load_checkpoint``.
        name: Its name in messages.

    Returns:
        ``state_dict``, tensors on the CPU, and ``meta``: the version of this
        package, and where the checkpoint has them the config's text (``cfg``)
        and the names and colours of the classes (``dataset_meta``), all of
        plain types.

    Raises:
        UserError: There is no state dict, or a weight that is no tensor.
    """
    weights = checkpoint.get('state_dict')
    if not isinstance(weights, dict):
        raise UserError(f'{name} has no "state_dict": expected a training\'s.')
    kept = OrderedDict()
    for key, value in weights.items():
        if not isinstance(value, Tensor):
            raise UserError(f'{key} of {name} is a {type(value).__name__}.')
        # A view would be saved with all of what it is a view of.
        kept[key] = value.detach().cpu().clone()
    # The versions of modules, which some read when they load.
    kept._metadata = getattr(weights, '_metadata', {})
    meta = checkpoint.get('meta', {})
    plain = {'mmseg_attn_version': __version__}
    if isinstance(meta.get('cfg'), str):
        plain['cfg'] = meta['cfg']
    dataset = meta.get('dataset_meta') or {}
    facts = {}
    if dataset.get('classes') is not None:
        facts['classes'] = [str(label) for label in dataset['classes']]
    if dataset.get('palette') is not None:
        facts['palette'] = [[int(v) for v in c] for c in dataset['palette']]
    if facts:
        plain['dataset_meta'] = facts
    return {'state_dict': kept, 'meta': plain}


def publish(content: dict, prefix: Path, config: str | None) -> Path:
    """Write a checkpoint under a name that holds its hash.

    Args:
        content: From :func:`slim`.
        prefix: Folder and name, to which ``-XXXXXXXX.pth`` is added.
        config: A config whose model it must fit fully.

    Returns:
        The file.

    Raises:
        UserError: The file exists, or the checkpoint does not fit.
    """
    stream = io.BytesIO()
    torch.save(content, stream)
    digest = hashlib.sha256(stream.getbuffer()).hexdigest()
    name = prefix.name.removesuffix('.pth')
    path = prefix.with_name(f'{name}-{digest[:8]}.pth')
    if path.exists():
        raise UserError(f'{path} exists already.')
    with whole(path) as partial:
        partial.write_bytes(stream.getbuffer())
        torch.load(partial, weights_only=True)
        if config:
            check_structure(partial, Path(config))
    return path


def row(path: Path, config: str | None) -> str:
    """Write what a metafile says of a published file.

    Args:
        path: The file.
        config: Its config.

    Returns:
        Lines of YAML. The address is to be completed, and results and where
        they are from are to be added.
    """
    file = Path(config or 'METHOD/CONFIG.py').resolve()
    return (
        f'- Name: {file.stem}\n'
        f'  Config: configs/{file.parent.name}/{file.name}\n'
        f'  Weights: https://HOST/{path.name}\n'
        f'  SHA256: {sha256sum(path)}'
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('source', type=Path, help='checkpoint of a training')
    parser.add_argument(
        'prefix', type=Path, help='what to write, without -XXXXXXXX.pth'
    )
    parser.add_argument(
        '--strict-with',
        metavar='CONFIG',
        help='a config, or its name, whose model must have the same weights',
    )
    args = parser.parse_args()
    config = args.strict_with and find_config(args.strict_with)
    content = slim(load_checkpoint(args.source), str(args.source))
    path = publish(content, args.prefix, config)
    print(f'{path}: {len(content["state_dict"])} tensors')
    print(f'For metafile.yaml:\n{row(path, config)}')


if __name__ == '__main__':
    run_command(main)
