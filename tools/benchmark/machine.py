# Copyright (c) mmseg_attn contributors.
"""The machine: what it is, what the options set, what it reaches at best."""

from __future__ import annotations

import platform
import subprocess
import time
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from clock import lapses


def setup(args):
    """Apply the options of all tools, and measure the machine.

    Returns:
        The dtype of the maps, the measured peaks in the dtype of the products,
        and a description of the machine.
    """
    info = prepare(args)
    peaks = machine_peaks(args.device, getattr(torch, args.amp or args.dtype))
    info['channels'] = args.channels
    info['peak GFLOP/s'] = round(peaks[0] / 1e9)
    info['peak GB/s'] = round(peaks[1] / 1e9, 1)
    return getattr(torch, args.dtype), peaks, info


def prepare(args):
    """Apply the options of all tools; a description of the machine."""
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.backends.cuda.matmul.allow_tf32 = args.tf32
    torch.backends.cudnn.allow_tf32 = args.tf32
    info = describe(args.device)
    info['dtype'] = args.dtype
    if args.amp:
        info['autocast'] = args.amp
    if args.tf32:
        info['TF32'] = 'allowed'
    return info


def describe(device):
    """Name -> value: the device and what computes on it."""
    if torch.device(device).type != 'cuda':
        device = (
            f'{platform.processor() or platform.machine()}, '
            f'{torch.get_num_threads()} threads, '
            f'{torch.backends.cpu.get_cpu_capability()}'
        )
        return {'device': device, 'torch': torch.__version__}
    return {
        'device': torch.cuda.get_device_name(device),
        'driver': _driver(),
        'torch': torch.__version__,
        'triton': _triton(),
    }


def _driver():
    try:
        found = subprocess.run(
            [
                'nvidia-smi',
                '--query-gpu=driver_version',
                '--format=csv,noheader',
            ],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'
    return found.stdout.split()[0]


def _triton():
    try:
        import triton
    except ImportError:
        return 'none'
    return triton.__version__


def autocast(args):
    """The context that ``--amp`` asks for."""
    if not args.amp:
        return nullcontext()
    device = torch.device(args.device).type
    return torch.autocast(device, getattr(torch, args.amp))


def machine_peaks(device, dtype):
    """FLOP/s and bytes/s that this machine reaches at its best.

    FLOP/s: of a large matrix product or a 3x3 convolution of 512 channels,
    the better one, in ``dtype``. Bytes/s: read and written by a large copy.
    """
    cuda = torch.device(device).type == 'cuda'
    kwargs = dict(device=device, dtype=dtype)
    n, pixels = (8192, 128) if cuda else (2048, 64)
    if not cuda and dtype == torch.float16:
        n, pixels = 256, 8  # a CPU has no products of these
    matrix = torch.randn(n, n, **kwargs)
    image = torch.randn(1, 512, pixels, pixels, **kwargs)
    kernel = torch.randn(512, 512, 3, 3, **kwargs)
    source = torch.zeros(2**30 if cuda else 2**28, dtype=torch.uint8).to(
        device
    )
    target = torch.empty_like(source)

    def timed(function):
        if cuda:
            return lapses(function)[0]
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    def best(function):
        with torch.no_grad():
            return min(timed(function) for _ in range(6))

    product = 2 * n**3 / best(lambda: matrix @ matrix)
    convolution = (2 * 9 * 512**2 * pixels**2) / best(
        lambda: F.conv2d(image, kernel, padding=1)
    )
    moved = 2 * source.nbytes / best(lambda: target.copy_(source))
    return max(product, convolution), moved


def roofline_seconds(work, peaks):
    """The least time for (flops, bytes) at the (FLOP/s, bytes/s) of peaks."""
    return max(w / peak for w, peak in zip(work, peaks, strict=True))
