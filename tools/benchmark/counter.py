# Copyright (c) mmseg_attn contributors.
"""What a forward and a backward cost on a GPU, counted on the meta device.

An aten call that is no view is a launch that reads its tensors and writes its
results once; what is broadcast (stride 0) is read once. Known calls that are
more than that on CUDA are taken apart: see ``_RULES``. Our Triton kernels cost
what their launches declare. Nothing is known of caches, of cuDNN's own
copies or of how far a kernel is from its roofline.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmseg_attn.ops.core import device
from mmseg_attn.ops.kernels import launch

HALVES = (torch.float16, torch.bfloat16)


class Call(NamedTuple):
    """One launch.

    Args:
        name: Of the aten call or the kernel.
        read, written: Bytes.
        flops: Of its products, 2 per multiply-add.
        kind: Of the products: 'product', 'attention' (torch's fused ones; in
            16 bits 'wide attention' and 'wide attention backward' of values
            that the mem-efficient kernel does not hold on the chip) or
            'kernel' (ours), with the dtype behind; 'kernel tf32x3' for fp32 by
            three products in TF32.
    """

    name: str
    read: int
    written: int
    flops: int = 0
    kind: str = ''


@dataclass
class Costs:
    """What was launched, and the memory that it took.

    Args:
        calls: The launches, in order.
        peak: Most bytes allocated at once beyond what existed before.
        alive: Storage -> reference and bytes of what was allocated.
    """

    calls: list[Call] = field(default_factory=list)
    peak: int = 0
    alive: dict = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Read and written."""
        return sum(c.read + c.written for c in self.calls)

    @property
    def flops(self) -> Counter:
        """Kind -> operations."""
        result = Counter()
        for call in self.calls:
            if call.flops:
                result[call.kind] += call.flops
        return result


@contextmanager
def counted(costs: Costs | None = None) -> Iterator[Costs]:
    """Count what is done to meta tensors as if they were CUDA's.

    Args:
        costs: To be gone on with.
    """
    costs = costs or Costs()
    with (
        device.counting(),
        launch.recorded() as launched,
        mock.patch.object(torch, 'autocast', _autocast),
        _AsOnCuda(),
        _Counting(costs),
    ):
        yield costs
    for name, read, written, flops, dtype, precision in launched:
        kind = 'kernel' if precision == 'ieee' else f'kernel {precision}'
        kind = f'{kind} {str(dtype)[6:]}'
        costs.calls.append(Call(name, read, written, flops, kind))


def _tensors(x) -> list[Tensor]:
    return [t for t in tree_leaves(x) if isinstance(t, Tensor)]


def _storage(x):
    return x.untyped_storage()._cdata


def footprint(x: Tensor) -> int:
    """Bytes of a tensor's elements; those that it repeats count once."""
    size = x.element_size()
    for length, stride in zip(x.shape, x.stride(), strict=True):
        size *= length if stride or not length else 1
    return size


def _total(tensors: Iterable[Tensor]) -> int:
    """Footprint of several; one that comes twice is counted once."""
    different = {
        (_storage(x), x.storage_offset(), x.shape, x.stride()): x
        for x in tensors
    }
    return sum(map(footprint, different.values()))


class _Counting(TorchDispatchMode):
    def __init__(self, costs):
        super().__init__()
        self.costs = costs

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = _as_cudnn(function, args, function(*args, **kwargs))
        results = _tensors(out)
        given = _tensors((args, kwargs))
        if any(x.is_meta for x in results):
            calls = list(_calls(function, args, kwargs, out))
            self.costs.calls += calls
            copied = sum(c.written for c in calls if c.name == COPY)
            self._allocate(given, results, copied)
        return out

    def _allocate(self, given, results, copied):
        """Note new storages, and the peak with an operand's copies."""
        alive = {
            key: (reference, size)
            for key, (reference, size) in self.costs.alive.items()
            if not reference.expired()
        }
        before = set(map(_storage, given))
        for x in results:
            key = _storage(x)
            if key not in before and key not in alive:
                storage = x.untyped_storage()
                alive[key] = StorageWeakRef(storage), storage.nbytes()
        now = copied + sum(size for _, size in alive.values())
        self.costs.alive = alive
        self.costs.peak = max(self.costs.peak, now)


# Operands that a library wants in another layout.
COPY = 'copy of an operand'


def _copy(x) -> Call:
    return Call(COPY, footprint(x), x.numel() * x.element_size())


def _calls(function, args, kwargs, out) -> Iterator[Call]:
    """Launches of an aten call."""
    name = function.overloadpacket.__name__
    reads, writes = _touched(function, name, args, kwargs, out)
    if not _total(writes):
        return
    if rule := _RULES.get(name):
        yield from rule(args, kwargs, out, reads, writes)
    else:
        yield Call(name, _total(reads), _total(writes))


def _touched(function, name, args, kwargs, out):
    """Tensors that a call reads and writes; none for a view."""
    if name.startswith(('empty', 'new_empty')):
        return [], []
    reads, writes = [], []
    for position, argument in enumerate(function._schema.arguments):
        value = kwargs.get(argument.name)
        if position < len(args):
            value = args[position]
        alias = argument.alias_info
        written = alias is not None and alias.is_write
        if written:
            writes += _tensors(value)
        if not written or not (argument.is_out or name in _OVERWRITE):
            reads += _tensors(value)
    if name.startswith('new_') or name.endswith('_like'):
        reads = []
    old = set(map(_storage, _tensors((args, kwargs))))
    return reads, writes + [x for x in _tensors(out) if _storage(x) not in old]


_OVERWRITE = ('copy_', 'fill_', 'zero_')


def _dtype(x):
    return str(x.dtype)[6:]


def _is_matrix(x):
    """Whether cuBLAS takes the last two axes as they lie."""
    rows, columns = x.shape[-2:]
    down, across = x.stride()[-2:]
    return (
        x.is_contiguous()
        or (across == 1 and down >= max(1, columns))
        or (down == 1 and across >= max(1, rows))
    )


def _product(name, a, b, reads, writes):
    """A matrix product; cuBLAS copies what are no matrices to it."""
    yield from (_copy(x) for x in (a, b) if not _is_matrix(x))
    flops = 2 * a.numel() * b.shape[-1]
    kind = f'product {_dtype(a)}'
    yield Call(name, _total(reads), _total(writes), flops, kind)
    for x in writes:
        if not _is_matrix(x):  # computed beside, then copied
            yield Call(COPY, footprint(x), footprint(x))


def _mm(args, kwargs, out, reads, writes):
    yield from _product('product', *args[:2], reads, writes)


def _addmm(args, kwargs, out, reads, writes):
    """A sum with a product, which adds to what its output holds.

    So a summand is first copied there, unless it is there already or a
    vector, which cuBLASLt adds at the end.
    """
    summand, a, b = args[:3]
    into = writes[0]
    there = _storage(summand) == _storage(into)
    if not kwargs.get('beta', 1):
        reads = [a, b]
    elif not there and summand.ndim > 1:
        yield Call('copy of the summand', footprint(summand), _total(writes))
        reads = [into, a, b]
    yield from _product('sum of products', a, b, reads, writes)


# What mem-efficient attention holds on the chip: values of so many channels,
# in the backward of 16 bits alone, while blocks of so many keys (in the
# backward: queries) pass by. Else, from the second block on, the sums lie in
# memory in fp32. Source: kernel_forward.h, kernel_backward.h (kOutputInRF,
# kKernelComputesDelta) and kernels/ of torch 2.13's mem_eff_attention.
_ON_CHIP = 128
_BLOCK = 128


def _sums(*tensors):
    """Sums in memory: written and read again, like what ours adds to.

    Once, however many blocks add to them: a program's own part is small
    enough for the cache, as are the keys that ours loads again and again.
    """
    size = sum(4 * x.numel() for x in tensors)
    return Call('sums kept in memory', size, size)


def _kind_of_attention(kind, wide, query):
    """In 16 bits wide values have a rate of their own, in fp32 not."""
    if query.dtype not in HALVES:
        kind, wide = 'attention', False
    return f'{"wide " if wide else ""}{kind} {_dtype(query)}'


def _attention(backend, args, kwargs, out, reads, writes):
    query, key, value = args[:3]
    if backend != 'efficient' and query.dtype not in HALVES:  # as on CUDA
        raise RuntimeError(f'{backend} attention takes no {_dtype(query)}')
    pairs = query.shape[:-1].numel() * key.shape[-2]
    flops = 2 * pairs * (query.shape[-1] + value.shape[-1])
    wide = backend == 'efficient' and value.shape[-1] > _ON_CHIP
    kind = _kind_of_attention('attention', wide, query)
    yield Call('attention', _total(reads), _total(writes), flops, kind)
    if wide and key.shape[-2] > _BLOCK:
        yield _sums(out[0])


def _attention_backward(backend, args, kwargs, out, reads, writes):
    """Five products: the scores again, dq and dk; the value's two."""
    grad, query, key, value = args[:4]
    pairs = query.shape[:-1].numel() * key.shape[-2]
    flops = 2 * pairs * (3 * query.shape[-1] + 2 * value.shape[-1])
    wide = backend == 'efficient' and value.shape[-1] > _ON_CHIP
    kind = 'attention backward' if wide else 'attention'
    kind = _kind_of_attention(kind, wide, query)
    full = backend == 'efficient' and query.dtype not in HALVES
    if full:  # <gradient, output>, which kernels of 16 bits do themselves
        size = footprint(grad)
        yield Call('gradient times output', 2 * size, size)
        yield Call('sum', size, size // grad.shape[-1])
    name = 'attention backward'
    yield Call(name, _total(reads), _total(writes), flops, kind)
    if (wide or full) and query.shape[-2] > _BLOCK:
        yield _sums(key, value)


def _convolution_of(x, weight, y):
    """Operations between a convolution's input and its output."""
    return 2 * y.numel() * weight[0].numel()


def _format(x):
    """The memory format that cuDNN goes by."""
    last = not x.is_contiguous() and x.is_contiguous(
        memory_format=torch.channels_last
    )
    return torch.channels_last if last else torch.contiguous_format


def _unlike(format_of, *tensors):
    """Those that cuDNN copies to the memory format of the input."""
    wanted = _format(format_of)
    return [x for x in tensors if not x.is_contiguous(memory_format=wanted)]


def _as_cudnn(function, args, out):
    """Maps in the memory format of the input; meta's are all contiguous."""
    name = function.overloadpacket.__name__
    if name == 'convolution':
        return out.contiguous(memory_format=_format(args[0]))
    if name == 'convolution_backward' and out[0] is not None:
        dx = out[0].contiguous(memory_format=_format(args[1]))
        return dx, *out[1:]
    return out


def _convolution(args, kwargs, out, reads, writes):
    """The bias is added in a launch of its own."""
    x, weight, bias = args[:3]
    yield from map(_copy, _unlike(x, x))
    kind = f'product {_dtype(x)}'
    flops = _convolution_of(x, weight, out)
    size = footprint(out)
    yield Call('convolution', _total([x, weight]), size, flops, kind)
    if bias is not None:
        yield Call('bias', size + footprint(bias), size)


def _convolution_backward(args, kwargs, out, reads, writes):
    grad, x, weight = args[:3]
    yield from map(_copy, _unlike(x, x, grad))
    kind = f'product {_dtype(x)}'
    flops = _convolution_of(x, weight, grad)
    dx, dweight, dbias = out
    for name, result, other in (
        ("convolution's input gradient", dx, weight),
        ("convolution's weight gradient", dweight, x),
    ):
        if result is not None:
            read = _total([grad, other])
            yield Call(name, read, footprint(result), flops, kind)
    if dbias is not None:
        yield Call("bias's gradient", footprint(grad), footprint(dbias))


def _batch_norm(args, kwargs, out, reads, writes):
    """The statistics first, then the map."""
    yield Call("norm's statistics", footprint(args[0]), _total(out[1:]))
    yield Call('norm', _total(reads), footprint(out[0]))


def _batch_norm_backward(args, kwargs, out, reads, writes):
    yield Call("norm's sums", _total(args[:2]), _total(_tensors(out[1:])))
    yield Call('norm backward', _total(reads), footprint(out[0]))


def _filled_copy(args, kwargs, out, reads, writes):
    """masked_fill: a copy that is then filled."""
    size = footprint(out)
    yield Call('clone', footprint(args[0]), size)
    yield Call('masked_fill_', size + _total(reads[1:]), size)


def _within_constant(args, kwargs, out, reads, writes):
    """A constant, over a part of which the input is copied."""
    size = min(footprint(args[0]), footprint(out))
    if out.numel() > args[0].numel():
        yield Call('fill_', 0, footprint(out))
    yield Call('copy_', size, size)


_RULES = {
    'mm': _mm,
    'bmm': _mm,
    'addmm': _addmm,
    'addmm_': _addmm,
    'baddbmm': _addmm,
    'baddbmm_': _addmm,
    'convolution': _convolution,
    'convolution_backward': _convolution_backward,
    'native_batch_norm': _batch_norm,
    'native_batch_norm_backward': _batch_norm_backward,
    'masked_fill': _filled_copy,
    'constant_pad_nd': _within_constant,
    'slice_backward': _within_constant,
    'select_backward': _within_constant,
    'diagonal_backward': _within_constant,
}
for _backend in ('flash', 'efficient', 'cudnn'):
    _name = f'_scaled_dot_product_{_backend}_attention'
    _RULES[_name] = partial(_attention, _backend)
    _RULES[f'{_name}_backward'] = partial(_attention_backward, _backend)


class _AsOnCuda(TorchFunctionMode):
    """Chooses torch's fused attention as on CUDA; meta would take none."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.scaled_dot_product_attention:
            return _fused_attention(*args, **kwargs or {})
        return function(*args, **kwargs or {})


def _fused_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, **more
):
    """By flash where it can, else mem-efficient, else plain steps."""
    aten = torch.ops.aten
    cuda = torch.backends.cuda
    qkv = query, key, value
    widths = query.shape[-1], value.shape[-1]
    half = query.dtype in HALVES
    scale = more.pop('scale', None)
    if attn_mask is not None or query.ndim != 4 or any(more.values()):
        return F.scaled_dot_product_attention(
            *qkv, attn_mask, dropout_p, is_causal, scale=scale, **more
        )
    if half and cuda.flash_sdp_enabled() and widths[0] == widths[1] <= 256:
        return aten._scaled_dot_product_flash_attention(
            *qkv, dropout_p, is_causal, scale=scale
        )[0]
    rows = 8 if half else 4  # of 16 bytes
    aligned = not any(width % rows for width in widths)
    if aligned and cuda.mem_efficient_sdp_enabled():
        return aten._scaled_dot_product_efficient_attention(
            *qkv, None, True, dropout_p, is_causal, scale=scale
        )[0]
    if not cuda.math_sdp_enabled():
        raise RuntimeError('none of the backends that are on takes these')
    return aten._scaled_dot_product_attention_math(
        *qkv, None, dropout_p, is_causal, scale=scale
    )[0]


def _autocast(device_type, *args, autocast=torch.autocast, **kwargs):
    """torch.autocast, which does not know the meta device."""
    made = _Autocast if device_type == 'meta' else autocast
    return made(device_type, *args, **kwargs)


_NARROWED = {
    F.conv2d, F.linear, torch.einsum, torch.matmul, torch.bmm, torch.mm,
    Tensor.matmul, Tensor.__matmul__,
}  # fmt: skip
_WIDENED = {F.softmax, torch.softmax, Tensor.softmax}


class _Autocast(TorchFunctionMode):
    """Stands for torch.autocast on the meta device.

    Products narrow their operands, a softmax is in fp32; the rest is left
    to type promotion, as there. An einsum narrows before it permutes, where
    CUDA's would after: that moves less, in favour of who uses it.
    """

    def __init__(self, device_type, dtype):
        super().__init__()
        self.dtype = dtype
        self.narrow = {}  # parameters are cast once

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in _NARROWED:
            args = [self._cast(x) for x in args]
        elif function in _WIDENED:
            kwargs = {**kwargs, 'dtype': torch.float32}
        return function(*args, **kwargs)

    def _cast(self, x):
        if not isinstance(x, torch.nn.Parameter):
            return x.to(self.dtype) if isinstance(x, Tensor) else x
        if id(x) not in self.narrow:
            self.narrow[id(x)] = x.to(self.dtype)
        return self.narrow[id(x)]
