# Copyright (c) mmseg_attn contributors.
"""A comparison with a whole backbone, by the recipe of ``train --images``."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from mmengine.config import Config

from ..apis.own_config import own_config
from ..apis.own_data import OwnData, write_own_data
from ..apis.own_recipe import Recipe
from ..configs import OWN_METHODS

# The baseline, then beginnings of the configs' names.
METHODS = ('fcn', *OWN_METHODS.values())


@dataclass(frozen=True)
class FullTraining:
    """What all trainings of such a comparison share.

    Attributes:
        data: The pictures, which stay where they are, and their classes.
        recipe: How each method is trained on them.
    """

    data: OwnData
    recipe: Recipe

    def config(
        self, method: str, folder: Path, seed: int, iters: int | None
    ) -> Config:
        """Make the config of one training, which is tested at its end alone.

        Args:
            method: One of :data:`METHODS`.
            folder: Where :meth:`write` wrote.
            seed: Seed of the training.
            iters: Iterations, if not those of the recipe.
        """
        own = {stem: name for name, stem in OWN_METHODS.items()}
        recipe = replace(
            self.recipe,
            method=own.get(method, 'ccnet'),
            seed=seed,
            iters=iters or self.recipe.iters,
        )
        cfg = own_config(self.data, folder, recipe)
        if method == 'fcn':  # CCNet without its attention
            cfg.model.decode_head.type = 'FCNHead'
            cfg.model.decode_head.pop('recurrence', None)
        cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
        cfg.test_evaluator = dict(
            type='mmseg_attn.GroupIoUMetric', iou_metrics=['mIoU']
        )
        # Sheets are of validations.
        cfg.custom_hooks = [
            hook for hook in cfg.custom_hooks if hook.type == 'EMAHook'
        ]
        cfg.default_hooks.checkpoint.pop('save_best')
        cfg.default_hooks.checkpoint.interval = recipe.iters
        return cfg

    def write(self, folder: Path) -> None:
        """Write masks, lists and classes, and by what pictures are known.

        Args:
            folder: Where to.
        """
        write_own_data(self.data, folder)
        path = folder / 'dataset.json'
        about = json.loads(path.read_text(encoding='utf-8'))
        about['groups'] = {name: [name] for name in about['classes']}
        path.write_text(json.dumps(about, indent=1) + '\n', encoding='utf-8')
        lines = []
        for pairs in self.data.splits.values():
            for pair in pairs:
                digest = hashlib.sha256(pair.picture.read_bytes()).hexdigest()
                lines.append(f'{digest} {pair.name}\n')
        (folder / 'pictures.sha256').write_text(''.join(lines))

    def validation_files(self, folder: Path) -> list[tuple[Path, Path]]:
        """Name each validation picture and its mask, in order.

        Args:
            folder: Where :meth:`write` wrote.
        """
        names = (folder / 'val.txt').read_text(encoding='utf-8').splitlines()
        return [
            (self.data.images / name, folder / 'masks' / f'{name}.png')
            for name in names
        ]
