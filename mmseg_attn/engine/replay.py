# Copyright (c) mmseg_attn contributors.
"""Random numbers that depend on the seed and the iteration alone.

mmengine resumes the order of the samples, but not the random state: the
augmentations of a resumed training, and its dropout, are others than those of
an uninterrupted one. Instead of saving the state of every process, nothing is
left to depend on it: each sample is augmented from a seed of its own, made of
the training's seed and the sample's position in the training, and each
iteration starts from one too. So a resumed training repeats the uninterrupted
one, whatever was validated in between, and the augmentations do not change
with the number of loader workers or of training processes.
"""

import random
from collections.abc import Iterator, Sequence, Sized

import numpy as np
import torch
from mmengine.dist import get_dist_info
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import Sampler

from ..registry import DATA_SAMPLERS, HOOKS
from .samples import load_sample


class Position(int):
    """A sample's index that carries the sample's position in the training."""

    position: int


@DATA_SAMPLERS.register_module()
class ReplaySampler(Sampler):
    """Give every sample drawn by another sampler its own random numbers.

    Args:
        dataset: The dataset.
        sampler: Config of the sampler that chooses the samples.
        seed: The training's seed; without one, that of the sampler.
    """

    def __init__(
        self, dataset: Sized, sampler: dict, seed: int | None = None
    ) -> None:
        self.dataset = dataset
        self.sampler = DATA_SAMPLERS.build(
            sampler, default_args=dict(dataset=dataset, seed=seed)
        )
        if seed is None:
            seed = getattr(self.sampler, 'seed', None) or 0
        self.start = 0
        # Where a dataset has this method, a DataLoader fetches a batch with
        # it, in the worker process.
        dataset.__getitems__ = _SeededItems(dataset, seed)
        # mmengine looks whether a sampler can skip when it resumes.
        if hasattr(self.sampler, 'skip'):
            self.skip = self._skip

    def __iter__(self) -> Iterator[Position]:
        rank, world_size = get_dist_info()
        for number, index in enumerate(self.sampler, self.start):
            item = Position(index)
            item.position = number * world_size + rank
            yield item

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch.

        Args:
            epoch: Its number, from 0.
        """
        self.start = epoch * len(self.sampler)
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def _skip(self, num_samples: int) -> None:
        self.sampler.skip(num_samples)
        self.start = num_samples


@HOOKS.register_module()
class ReplayHook(Hook):
    """Start every training iteration from a random state of its own."""

    # Before any hook that draws random numbers itself.
    priority = 'VERY_HIGH'

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None
    ) -> None:
        """Seed dropout and the like for one iteration.

        Args:
            runner: The runner.
            batch_idx: Number of the batch in its epoch.
            data_batch: The batch.
        """
        seed = _seed(runner.seed, runner.iter, runner.rank + 1)
        _seed_all(seed)
        torch.cuda.manual_seed_all(seed)


class _SeededItems:
    """Fetches the samples of a batch, each from its own random state."""

    def __init__(self, dataset: Sized, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __call__(self, indices: Sequence[Position]) -> list:
        # Without workers this is the training's own process.
        states = random.getstate(), np.random.get_state()
        torch_state = torch.get_rng_state()
        items = []
        for index in indices:
            _seed_all(_seed(self.seed, getattr(index, 'position', index)))
            items.append(load_sample(self.dataset, int(index)))
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(torch_state)
        return items


def _seed(*numbers: int) -> int:
    """Mix numbers to a seed of 32 bits."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
