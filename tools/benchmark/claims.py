# Copyright (c) mmseg_attn contributors.
"""The papers' efficiency claims beside our own counts and measurements.

    python tools/benchmark/claims.py --out tools/benchmark/results

writes claims.md. Counts are exact; memory is what torch's profiler sees
allocated on a CPU in fp32, and needs 3 GiB and half a minute.
"""

from __future__ import annotations

import argparse
from functools import partial
from itertools import pairwise, repeat

import peers
import torch
from measure import Contestant, as_it_is, peak_bytes, to_nchw
from options import folder
from report import markdown, write
from torch.utils.flop_counter import FlopCounterMode

from mmseg_attn import ops
from mmseg_attn.errors import run_command
from mmseg_attn.ops.declare import OPERATORS, Case

NOTE = """\
FLOP are 2 per multiply-add. Ours are the declared products of our operators,
which agree with torch's FlopCounterMode on the peers' formulas, plus what the
definition names.

Sources: *author*, the author's formula in the official repository,
evaluated; *repository*, a figure printed there; *summary*, the paper as
others summarize it; *code*, arithmetic on what the official code does, by
us; *memory*, remembered and not verified, which is no evidence.

Match: the printed digits, rounded or cut off. *better*: ours keeps the claim
with a margin.
"""
# paper | claim | source | printed figures, unit
PRINTED = """
CCNet | one loop | author | 8.29 GFLOP
CCNet | one loop, products alone | - | GFLOP
CCNet | two loops | author | 16.58 GFLOP
CCNet | two loops | summary | 16.5 GFLOP
CCNet | three loops | memory | 24.7 GFLOP
CCNet | non-local | author | 108.16 GFLOP
CCNet | non-local | summary | 108 GFLOP
CCNet | two non-local | summary | 216 GFLOP
CCNet | FLOP that two loops save of non-local | summary | 85 %
CCNet | affinity: non-local, one loop | code | 337.7 6.9 MiB
CCNet | memory of non-local / two loops | summary | 11.1 fold
ISSA | attention, 97x97, P = 4, 8, 16 | code | 9.85 3.87 5.88 GFLOP
ISSA | attention, 64x128, P = 4, 8, 16 | code | 6.64 2.42 3.62 GFLOP
ISSA | attention, 128x128, P = 4, 8, 16 | code | 26.2 8.05 8.05 GFLOP
ISSA | attention, 128x256, P = 4, 8, 16 | code | 104 29.0 19.3 GFLOP
ISSA | affinity, 97x97, P = 4, 8, 16, dense | code | 6.4 2.5 3.8 88.5 M
ISSA | affinity, 64x128, P = 4, 8, 16, dense | code | 4.3 1.6 2.4 67.1 M
ISSA | affinity, 128x128, P = 4, 8, 16, dense | code | 17.0 5.2 5.2 268 M
ISSA | affinity, 128x256, P = 4, 8, 16, dense | code | 67.6 18.9 12.6 1074 M
ISSA | its head | memory | 386 GFLOP
ISSA | its head as released | code | 394.60 GFLOP
ISSA | dense attention head | code | 618.5 GFLOP
ISSA | dense attention head | memory | 619 GFLOP
ISSA | head of two criss-cross loops | code | 804.2 GFLOP
ISSA | head of two criss-cross loops | memory | 804 GFLOP
CAA | attention, 65x65, 97x97, 128x128 | code | 0.63 2.10 4.83 GFLOP
CAA | 5-D products, side 33, 65, 97, 128 | code | 35 268 891 2048 MiB
CAA | weights of a gate | code | 196608 weights
LAM | dot products, side 64, 128, 256 | repository | 3.2 51.8 828.9 GFLOP
LAM | dot products, side 512, 1024 | repository | 13.3 212.2 TFLOP
LAM | dot products' memory, side 64 | repository | 69 MB
LAM | dot products' memory, side 128, 256, 512 | repository | 1.1 17.2 275 GB
LAM | dot products' memory, side 1024 | repository | 4.4 TB
LAM | linear, side 64, 128, 256 | repository | 45 179 717 MFLOP
LAM | linear, side 512, 1024 | repository | 2.9 11.5 GFLOP
LAM | kernel attention, side 64, 128, 256 | repository | 37 146 585 MFLOP
LAM | linear, memory, side 256 | repository | 101 MB
LAM | kernel attention, memory, side 256 | repository | 51 MB
EA | context 4 d_k d_v, affinity 4 n^2, side 256 | - | MiB
EA | measured extra memory, side 256 | - | MiB
"""
UNITS = {
    '%': 0.01,
    'M': 1e6,
    'MB': 1e6,
    'MFLOP': 1e6,
    'GB': 1e9,
    'GFLOP': 1e9,
    'TB': 1e12,
    'TFLOP': 1e12,
    'MiB': 2**20,
}
# Where more, or less, than printed keeps the claim.
MORE = {'memory of non-local / two loops'}
LESS = {'linear, memory, side 256', 'kernel attention, memory, side 256'}


def conv_flops(pixels, into, out, kernel=1, bias=False):
    """Of a convolution; a bias counts as one more input channel."""
    return 2 * pixels * (kernel**2 * into + bias) * out


def counted_flops(formula, *shapes):
    """Of a peer's formula, by torch's counter, without computing it."""
    inputs = [torch.empty(s, device='meta') for s in shapes]
    with FlopCounterMode(display=False) as counter:
        formula(*inputs)
    return counter.get_total_flops()


def agreed_flops(name, formula, spatial, width, channels, beyond=0, **options):
    """The declared FLOP, which must be those counted in a peer's formula.

    Args:
        name: Operator.
        formula: On (B, C, H, W).
        spatial: (H, W).
        width: Of query and key.
        channels: Of the value.
        beyond: FLOP that the formula wastes.
        options: Of the operator.
    """
    case = Case(spatial, 1, width, channels, 1, options=options)
    declared = OPERATORS[name].flops(case)
    shapes = [(1, c, *spatial) for c in (width, width, channels)]
    counted = counted_flops(formula, *shapes)
    if counted != declared + beyond:
        raise AssertionError(f'{name}: {counted} counted, {declared} declared')
    return declared


def criss_cross_flops(n, *sizes):
    return agreed_flops(
        'criss_cross_attention',
        peers.einsum_criss_cross,
        *sizes,
        beyond=2 * n * sum(sizes[1:]),  # a masked entry of each position
    )


def dense_flops(*sizes):
    return agreed_flops('non_local_attention', peers.plain_non_local, *sizes)


def interlaced_flops(spatial, side, width=256, channels=512):
    """Of both halves, equal to those of the host's formula."""
    case = partial(Case, spatial, 1, width, channels, 1)
    declared = sum(
        OPERATORS['interlaced_sparse_attention'].flops(
            case(options=dict(partition=(side, side), span=span))
        )
        for span in ('long', 'short')
    )
    shapes = [(1, c, *spatial) for c in (width, width, channels)]
    host = partial(peers.host_interlaced, partition=side)
    counted = counted_flops(host, *shapes, *shapes[:2])
    if counted != declared:
        raise AssertionError(f'{counted} counted, {declared} declared')
    return declared


def ccnet_counts(side=97, width=64, channels=512):
    """Claim -> (values, definition), for 1x512x97x97 with keys of 64."""
    n = side**2
    sizes = (side, side), width, channels
    sparse, dense = criss_cross_flops(n, *sizes), dense_flops(*sizes)
    layers = conv_flops(n, channels, 2 * width + channels)
    biased = conv_flops(n, channels, 2 * width + channels, bias=True)
    # The author counts H + W + 1 keys, two more than there are.
    loop = biased + sparse + 2 * 2 * n * (width + channels)
    block = biased + dense
    how = '3 projections, bias as one more input channel, '
    row, all_keys = how + 'H + W + 1 keys', how + 'H W keys'
    return {
        'one loop': ([loop], row),
        'one loop, products alone': (
            [layers + sparse],
            'no bias, H + W - 1 keys',
        ),
        'two loops': ([2 * loop], row),
        'three loops': ([3 * loop], row),
        'non-local': ([block], all_keys),
        'two non-local': ([2 * block], all_keys),
        'FLOP that two loops save of non-local': (
            [1 - 2 * loop / block],
            'of the rows above',
        ),
        'affinity: non-local, one loop': (
            [4 * n**2, 4 * n * (2 * side - 1)],
            'fp32, n^2 and n (H + W - 1) entries',
        ),
    }


def issa_counts():
    """Claim -> (values, definition), for keys of 256 and values of 512."""
    rows = {}
    for height, width in ((97, 97), (64, 128), (128, 128), (128, 256)):
        flops = [interlaced_flops((height, width), p) for p in (4, 8, 16)]
        at = f'{height}x{width}, P = 4, 8, 16'
        rows[f'attention, {at}'] = flops, 'both halves, padded'
        # Each entry is in one product of width 256 and one of 512.
        entries = [f / (2 * (256 + 512)) for f in flops]
        rows[f'affinity, {at}, dense'] = (
            [*entries, (height * width) ** 2],
            'entries of both halves, padded; n^2',
        )
    return rows


def head_counts(side=128):
    """Claim -> (values, definition), for heads on 1x2048x128x128."""
    n = side**2
    entry = conv_flops(n, 2048, 512, 3)
    last = conv_flops(n, 1024, 512)
    key, value = conv_flops(n, 512, 256), conv_flops(n, 512, 512)
    sparse = interlaced_flops((side, side), 8)
    single = entry + 2 * (2 * key + 2 * value) + sparse + last
    double = single + 2 * 2 * conv_flops(n, 256, 256)
    dense = entry + 3 * key + conv_flops(n, 256, 512) + last
    dense += dense_flops((side, side), 256, 256)
    loop = conv_flops(n, 512, 2 * 64 + 512)
    loop += criss_cross_flops(n, (side, side), 64, 512)
    rcca = entry + conv_flops(n, 512, 512, 3) + conv_flops(n, 2560, 512, 3)
    ends = ', 3x3 and last 1x1 convolution, 2048x128x128'
    return {
        'its head': ([single], 'one-layer query and key' + ends),
        'its head as released': ([double], 'two-layer query and key' + ends),
        'dense attention head': ([dense], 'widths of 256, output' + ends),
        'head of two criss-cross loops': (
            [rcca + 2 * loop],
            'three 3x3 convolutions, 2048x128x128',
        ),
    }


def caa_counts():
    """Claim -> (values, definition), for keys of 64 and values of 512."""
    column = partial(
        agreed_flops, 'axial_attention', peers.einsum_axial, axis=0
    )
    flops = [2 * column((s, s), 64, 512) for s in (65, 97, 128)]
    groups = [
        peers.bytes_of_groups((1, s, s, 512), 2) for s in (33, 65, 97, 128)
    ]
    gate = peers.channel_gate(512)
    return {
        'attention, 65x65, 97x97, 128x128': (flops, 'column pass, twice'),
        '5-D products, side 33, 65, 97, 128': (
            groups,
            'L H W C in fp16, a pass; none once the gate is factored out',
        ),
        'weights of a gate': (
            [sum(p.numel() for p in gate.parameters())],
            'of the gate in the benchmark',
        ),
    }


def linear_counts(width=32, channels=64):
    """Claim -> (values, definition), at d = d_v = 2 d_k = 64."""
    linear = partial(agreed_flops, 'linear_attention')
    softplus = partial(peers.einsum_linear, softplus=True)
    dots, memory, taylor, kernel = {}, {}, {}, {}
    for side in (64, 128, 256, 512, 1024):
        sizes, n = ((side, side), width, channels), side**2
        norm = 2 * n * width  # products of the normalizer
        dots[side] = dense_flops(*sizes) + n**2
        memory[side] = 4 * n * (2 * width + channels) + 4 * n**2
        taylor[side] = linear(peers.einsum_linear, *sizes, beyond=norm)
        if side <= 256:  # as far as the table goes
            kernel[side] = linear(
                softplus, *sizes, beyond=norm, feature_map='softplus'
            )
    how = '192 n^2 in products, one exponential per entry'
    maps = 'query, key, value and affinity, fp32'
    less = '4 n d_k d_v in products; what else theirs counts is not known'
    rows = {}
    for claim, values, split, definition in (
        ('dot products', dots, (3,), how),
        ("dot products' memory", memory, (1, 4), maps),
        ('linear', taylor, (3,), less),
        ('kernel attention', kernel, (), less),
    ):
        sides = list(values)
        for chosen in (sides[a:b] for a, b in pairwise((0, *split, 5))):
            key = f'{claim}, side {", ".join(map(str, chosen))}'
            rows[key] = [values[s] for s in chosen], definition
    return rows


def exact():
    """Claim -> (values, definition), of all that needs no measurement."""
    return (
        ccnet_counts()
        | issa_counts()
        | head_counts()
        | caa_counts()
        | linear_counts()
    )


def memory_of(function, shapes, backward=False):
    """Bytes of the inputs, and the most allocated beyond them."""
    torch.manual_seed(0)
    contestant = Contestant(
        'claim',
        function,
        [torch.randn(s) for s in shapes],
        as_it_is if len(shapes[0]) == 4 else to_nchw,
    )
    inputs = sum(x.nbytes for x in contestant.inputs)
    if backward:
        contestant.results()  # makes the gradient of the output
        return inputs, contestant.memory()[0]
    with torch.no_grad():
        return inputs, peak_bytes(contestant.forward, torch.device('cpu'))


def two_loops(query, key, value):
    """Criss-cross attention of criss-cross attention."""
    once = ops.criss_cross_attention(query, key, value)
    return ops.criss_cross_attention(query, key, once)


def measured(side=97, wide=256):
    """Claim -> (values, definition), of memory.

    Args:
        side: Of CCNet's map.
        wide: Of the map of the linear operators.
    """
    maps = [(1, c, side, side) for c in (64, 64, 512)]
    ours = [(1, side, side, 1, c) for c in (64, 64, 512)]
    dense = memory_of(peers.plain_non_local, maps, backward=True)[1]
    cross = memory_of(two_loops, ours, backward=True)[1]
    n = wide**2
    shapes = [(1, wide, wide, 1, c) for c in (32, 32, 64)]
    official = [(1, c, wide, wide) for c in (32, 32, 64)]
    rows = {}
    for claim, feature_map in (
        ('linear', 'taylor'),
        ('kernel attention', 'softplus'),
    ):
        function = partial(ops.linear_attention, feature_map=feature_map)
        formula = partial(
            peers.einsum_linear, softplus=feature_map == 'softplus'
        )
        theirs = sum(memory_of(formula, official)) / 1e6
        rows[f'{claim}, memory, side 256'] = (
            [sum(memory_of(function, shapes))],
            'measured: forward with its inputs, fp32; the official formula '
            f'{theirs:.0f} MB',
        )
    extra = memory_of(ops.efficient_attention, shapes)[1] - 4 * n * 64
    return rows | {
        'memory of non-local / two loops': (
            [dense / cross],
            'measured: forward and backward beyond the inputs, fp32, '
            f'{dense / 2**20:.0f} MiB / {cross / 2**20:.0f} MiB',
        ),
        'context 4 d_k d_v, affinity 4 n^2, side 256': (
            [4 * 32 * 64, 4 * n**2],
            'the formulas',
        ),
        'measured extra memory, side 256': (
            [extra],
            'forward beyond inputs and output, fp32',
        ),
    }


def match(claim, printed, value):
    """How a value compares with a printed figure."""
    digits = len(printed.partition('.')[2])
    if f'{value:.{digits}f}' == printed:
        return 'yes'
    scale = 10**digits
    if int(value * scale) == round(float(printed) * scale):
        return 'cut off'
    beyond = value / float(printed) - 1
    kept = claim in (MORE if beyond > 0 else LESS)
    return f'{"better" if kept else "no"} ({beyond:+.1%})'


def table(ours):
    """Rows of cells: what PRINTED says beside ours."""
    rows = []
    for line in PRINTED.strip().splitlines():
        paper, claim, source, figures = line.split(' | ')
        *printed, unit = figures.split()
        values, how = ours[claim]
        values = [v / UNITS.get(unit, 1) for v in values]
        found = ' '.join(f'{v:.6g}' if v > 1e4 else f'{v:.4g}' for v in values)
        verdict = '-'
        if printed:
            verdicts = map(match, repeat(claim), printed, values)
            verdict = ', '.join(dict.fromkeys(verdicts))
        printed = figures if printed else '-'
        found = f'{found} {unit}'
        rows.append([paper, claim, source, printed, found, how, verdict])
    return rows


HEADER = ['paper', 'claim', 'source', 'printed', 'ours', 'definition', 'match']


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('--out', type=folder, help='folder for claims.md')
    args = parser.parse_args(arguments)
    rows = markdown(HEADER, table(exact() | measured()))
    print(rows)
    if args.out:
        text = f'torch {torch.__version__}. {NOTE}\n{rows}'
        write(args.out / 'claims.md', text)


if __name__ == '__main__':
    run_command(main)
