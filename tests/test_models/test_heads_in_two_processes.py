# Copyright (c) mmseg_attn contributors.
"""Each head trains in two CPU processes, one of which has no labels."""

import torch
from mmengine.registry import init_default_scope
from test_every_head import HEADS, batch, build, losses_of
from torch import distributed
from torch.nn.parallel import DistributedDataParallel


def parts():
    """The batches of the two processes: labels, and nothing but ignored."""
    return batch(), batch(label=255)


def gradients(model, losses):
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    return [p.grad for p in model.parameters()]


def work(rank, folder):
    init_default_scope('mmseg')
    torch.set_num_threads(1)
    store = f'file://{folder}/store'
    distributed.init_process_group('gloo', store, rank=rank, world_size=2)
    grads = {}
    for name in HEADS:
        model = build(name, dropout_ratio=0).train()
        # Waits for the gradient of each parameter, used or not.
        parallel = DistributedDataParallel(model)
        losses = parallel(**parts()[rank], mode='loss')
        grads[name] = gradients(model, losses)
    torch.save(grads, f'{folder}/grads-{rank}.pth')
    distributed.destroy_process_group()


def test_gradients_are_the_mean_of_both_processes(tmp_path):
    torch.multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    first, second = (
        torch.load(tmp_path / f'grads-{rank}.pth') for rank in range(2)
    )
    for name in HEADS:
        separate = []
        for data in parts():
            model = build(name, dropout_ratio=0).train()
            separate.append(gradients(model, losses_of(model, data)))
        for a, b, x, y in zip(
            first[name], second[name], *separate, strict=True
        ):
            assert torch.equal(a, b)
            torch.testing.assert_close(a, (x + y) / 2, atol=1e-6, rtol=1e-4)
