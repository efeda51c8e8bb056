# Copyright (c) mmseg_attn contributors.
"""Find out before a run whether the pictures of a test fit into batches."""

import os

from mmseg.models import SegDataPreProcessor
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..errors import UserError
from ..pictures import picture_size
from .samples import load_sample, named_files

# Of so many sizes of files one picture each goes through the pipeline.
SIZES = 8


def check_batches(name: str, loader: DataLoader, model: nn.Module) -> None:
    """Refuse batches of pictures that differ in size where none is padded.

    A segmentor pads in training alone, and the host stops at the first batch
    of two sizes: in the middle of a training. So the heads of all files are
    read where a batch holds more than one picture.

    Args:
        name: Name of the loader in the config, such as ``'val_dataloader'``.
        loader: The loader of a validation or test.
        model: A model; one that pads its batches is passed over.

    Raises:
        UserError: It names two pictures and what to set.
    """
    preprocessor = getattr(model, 'data_preprocessor', None)
    pads = not isinstance(preprocessor, SegDataPreProcessor)
    if pads or (loader.batch_size or 1) < 2:
        return
    found = {}
    for path, index in _one_of_each_size(loader.dataset).items():
        inputs = load_sample(loader.dataset, index)['inputs']
        views = [inputs] if isinstance(inputs, Tensor) else inputs
        sizes = [f'{view.shape[-1]} x {view.shape[-2]}' for view in views]
        found.setdefault(', '.join(sizes), path)
        if len(found) > 1:
            both = ' and '.join(f'{p} ({size})' for size, p in found.items())
            raise UserError(
                f'{name}.batch_size is {loader.batch_size}, but behind the '
                f'pipeline {both} differ in size, and a batch holds pictures '
                f'of one size. Set {name}.batch_size=1'
            )


def _one_of_each_size(dataset: object) -> dict[str, int]:
    """The first picture of some sizes, path -> its number."""
    chosen, sizes = {}, set()
    if not hasattr(dataset, 'get_data_info'):
        return chosen
    for index in range(len(dataset)):
        path = dataset.get_data_info(index).get('img_path')
        if not os.path.isfile(str(path)):
            continue  # it is said when it is read
        with named_files(dataset, index):
            size = picture_size(path)
        if size not in sizes:
            sizes.add(size)
            chosen[path] = index
        if len(sizes) == SIZES:
            break
    return chosen
