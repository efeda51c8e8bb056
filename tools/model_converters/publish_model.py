# Copyright (c) mmseg_attn contributors.
"""Make a checkpoint fit to be published.

Keeps the weights (of a training with EMAHook the averaged ones) and a few
plain facts; leaves out the optimizer, the log and all else of the training.
The name of what is written ends in the first 8 digits of its own sha256.

With --zoo it becomes a model of this project's zoo: .pth and .safetensors
with float16 filters in resources/zoo/, and a row of the metafile there, once
both have the val mIoU that the training printed.
"""

import argparse
from pathlib import Path

from mmseg_attn.commands.checkpoints import best_weights
from mmseg_attn.configs import find_config
from mmseg_attn.errors import UserError, run_command
from mmseg_attn.progress import quiet_imports

with quiet_imports():
    from mmseg_attn.apis.publishing import Facts, add_to_zoo, publish, slim
    from mmseg_attn.apis.zoo import sha256sum
    from mmseg_attn.engine.checkpoint import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]


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


def seed(text: str) -> tuple[int, float]:
    """Read ``0=61.2``."""
    number, _, miou = text.partition('=')
    return int(number), float(miou)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        'source',
        help='checkpoint of a training, or its folder: the best one there',
    )
    add(
        'prefix',
        type=Path,
        help='what to write, without -XXXXXXXX.pth; with --zoo the short name',
    )
    add(
        '--strict-with',
        metavar='CONFIG',
        help='a config, or its name, whose model must have the same weights',
    )
    add('--half', action='store_true', help='filters in float16')
    add(
        '--safetensors',
        dest='suffix',
        action='store_const',
        const='.safetensors',
        default='.pth',
        help='write this format',
    )
    zoo = parser.add_argument_group('the zoo of this project')
    add = zoo.add_argument
    add('--zoo', action='store_true', help='write files and row, see above')
    add('--data', help='what it was trained on, such as CamVid')
    add('--backbone', help='such as R-18')
    add(
        '--seeds',
        nargs='+',
        type=seed,
        metavar='SEED=MIOU',
        help='val mIoU of each training, that of the source first',
    )
    add('--resources', help='such as "2 CPU cores, 38 minutes"')
    add('--data-root', help="folder of the data (default: the config's)")
    return parser.parse_args()


def main() -> None:
    args = parse()
    config = args.strict_with and find_config(args.strict_with)
    source = best_weights(args.source)
    content = slim(load_checkpoint(source), source, args.half or args.zoo)
    if not args.zoo:
        path = publish(content, args.prefix, config, args.suffix)
        print(f'{path}: {len(content["state_dict"])} tensors')
        print(f'For metafile.yaml:\n{row(path, config)}')
        return
    needed = ('strict_with', 'data', 'backbone', 'seeds', 'resources')
    for name in needed:
        if not getattr(args, name):
            raise UserError(f'--zoo needs --{name.replace("_", "-")}.')
    facts = Facts(args.data, args.backbone, dict(args.seeds), args.resources)
    short = str(args.prefix)
    found = add_to_zoo(ROOT, content, short, config, facts, args.data_root)
    for name in ('Weights', 'Safetensors'):
        path = ROOT / found[name]
        print(f'{path}: {path.stat().st_size / 1e6:.2f} MB')
    print('Now: python docs/generate.py, and a line in CHANGELOG.md.')


if __name__ == '__main__':
    run_command(main)
