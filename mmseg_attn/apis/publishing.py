# Copyright (c) mmseg_attn contributors.
"""Make checkpoints fit to be published, and give them a row of the zoo."""

import hashlib
import io
import re
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import Tensor

from .. import __version__
from ..configs import load_config
from ..engine.checkpoint import load_checkpoint
from ..engine.safetensors_files import safetensors_of
from ..errors import UserError
from ..files import gathered, whole
from ..metafiles import ZOO, method_titles
from .loading import load_model
from .reproduction import TOLERANCE, use_data_root, validate
from .zoo import check_structure, sha256sum

HEADER = """\
# Trained here: `python tools/model_converters/publish_model.py --zoo` writes
# the rows, `python -m mmseg_attn reproduce NAME` trains one again. Short Name,
# Command (what trained it), Seeds (each with the mIoU that its training
# printed, that of the weights first) and the safetensors are not of mim.
"""


@dataclass(frozen=True)
class Facts:
    """What a row of the zoo says besides what its config and files tell.

    Attributes:
        data: What it was trained and validated on, such as ``CamVid``.
        backbone: Such as ``R-18``.
        seeds: Seeds that it was trained with, that of the published weights
            first, and the mIoU that each training printed.
        resources: What it was trained on, and how long.
    """

    data: str
    backbone: str
    seeds: dict[int, float]
    resources: str


def slim(checkpoint: dict, name: str, half: bool = False) -> dict:
    """Keep what a published checkpoint needs.

    Of a training with mmengine's ``EMAHook`` the weights are the averaged
    ones: that hook saves them in the place of the others.

    Args:
        checkpoint: As mmengine saves it, from ``load_checkpoint``.
        name: Its name in messages.
        half: Whether matrices and filters are to be float16. Biases, and
            scales and statistics of norms stay as they are.

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
        if half and value.is_floating_point() and value.ndim > 1:
            value = value.half()
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


def publish(
    content: dict, prefix: Path, config: str | None, suffix: str = '.pth'
) -> Path:
    """Write a checkpoint under a name that holds its hash.

    Args:
        content: From :func:`slim`.
        prefix: Folder and name, to which ``-XXXXXXXX`` and the suffix are
            added.
        config: A config whose model it must fit fully.
        suffix: ``.pth`` or ``.safetensors``.

    Returns:
        The file.

    Raises:
        UserError: The file exists, or the checkpoint does not fit.
    """
    if suffix == '.safetensors':
        written = safetensors_of(content)
    else:
        stream = io.BytesIO()
        torch.save(content, stream)
        written = stream.getvalue()
    name = prefix.name.removesuffix(suffix)
    digest = hashlib.sha256(written).hexdigest()
    path = prefix.with_name(f'{name}-{digest[:8]}{suffix}')
    if path.exists():
        raise UserError(f'{path} exists already.')
    with whole(path) as partial:
        partial.write_bytes(written)
        if config:
            check_structure(partial, Path(config))
        else:
            load_checkpoint(partial)
    return path


def add_to_zoo(
    root: Path,
    content: dict,
    short: str,
    config: str,
    facts: Facts,
    data_root: str | Path | None = None,
) -> dict:
    """Put weights that were trained here into the project's zoo.

    A row of the same config is replaced, with its files.

    Args:
        root: The checkout.
        content: From :func:`slim`.
        short: What the model is to be called.
        config: Path of its config, one of the package.
        facts: What else the row says.
        data_root: Folder of the data that it is validated on; by default that
            of the config.

    Returns:
        The row.

    Raises:
        UserError: The weights do not fit, or the files have another mIoU
            than the training printed.
    """
    folder = root / ZOO
    metafile = folder / 'metafile.yaml'
    zoo = yaml.safe_load(metafile.read_text('utf-8'))
    stated = next(iter(facts.seeds.values()))
    cfg = load_config(config)
    # That of the training names folders of the machine that it ran on.
    meta = {**content['meta'], 'cfg': cfg.pretty_text}
    content = {**content, 'meta': meta}
    use_data_root(cfg, data_root)
    with gathered(folder) as partial:
        files = [
            publish(content, partial / short, config, suffix)
            for suffix in ('.pth', '.safetensors')
        ]
        for file in files:
            miou = validate(cfg, file)['mIoU']
            if abs(miou - stated) > TOLERANCE:
                raise UserError(
                    f'{file.name} has a val mIoU of {miou:.2f}, expected '
                    f'{stated:.2f} as --seeds says, within {TOLERANCE}.'
                )
        row = _row(files, short, Path(config), facts)
    old = [model for model in zoo['Models'] if model['Name'] == row['Name']]
    models = [row if model in old else model for model in zoo['Models']]
    zoo['Models'] = models if old else [*models, row]
    with whole(metafile) as partial:
        text = yaml.safe_dump(zoo, sort_keys=False, width=1000)
        partial.write_text(HEADER + text, 'utf-8')
    for model in old:
        for key in ('Weights', 'Safetensors'):
            if model[key] != row[key]:
                (root / model[key]).unlink()
    return row


def _row(files: list[Path], short: str, config: Path, facts: Facts) -> dict:
    """What the metafile says; its first keys are those that mim reads."""
    model = load_model(config, files[0], device='cpu')
    stem = re.split('[-_]', config.stem)[0]
    method = method_titles().get(stem, stem.upper())  # FCN has no folder
    seed, miou = next(iter(facts.seeds.items()))
    return {
        'Name': config.stem,
        'Short Name': short,
        'In Collection': method,
        'Results': {
            'Task': 'Semantic Segmentation',
            'Dataset': facts.data,
            'Metrics': {'mIoU': miou},
        },
        'Config': f'configs/{config.parent.name}/{config.name}',
        'Metadata': {
            'Training Data': facts.data,
            'Architecture': [facts.backbone, method],
            'Training Resources': facts.resources,
            'Parameters': sum(p.numel() for p in model.parameters()),
        },
        'Command': f'python -m mmseg_attn train {config.stem} --cfg-options '
        f'randomness.seed={seed}',
        'Seeds': facts.seeds,
        'Weights': f'{ZOO}/{files[0].name}',
        'SHA256': sha256sum(files[0]),
        'Safetensors': f'{ZOO}/{files[1].name}',
        'Safetensors SHA256': sha256sum(files[1]),
    }
