# Copyright (c) mmseg_attn contributors.
"""The papers' efficiency claims beside our own counts and measurements.

    python tools/benchmark/claims.py --out tools/benchmark/results

writes claims.md. Counts are exact; memory is what torch's profiler sees
allocated on a CPU in fp32, and needs 3 GiB and a minute.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import NamedTuple

import peers
import torch
from measure import Contestant, as_it_is, peak_bytes, to_nchw
from report import markdown, replace_file
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from mmseg_attn import ops
from mmseg_attn.ops._operators import OPERATORS, Case

CCNET = 'CCNet'
ISSA = 'Interlaced sparse'
CAA = 'Channelized axial'
EA = 'Efficient'
LAM = 'Linear'

FORMULA = "the author's formula (official repository), evaluated"
SECOND_HAND = 'paper, read in a summary of it'
ARITHMETIC = "arithmetic on the official code's operator"
REMEMBERED = 'remembered, not verified'
TABLE = 'cost table of the official repository'


class Claim(NamedTuple):
    """A row; ``printed`` and ``ours`` share ``unit``.

    ``better``: 1 or -1 where more or less than printed keeps the claim.
    """

    paper: str
    claim: str
    source: str
    printed: str
    ours: float
    unit: str
    how: str
    better: int = 0

    @property
    def match(self):
        """Whether ours has the printed digits, rounded or cut off."""
        if not self.printed:
            return '-'
        digits = len(self.printed.partition('.')[2])
        if f'{self.ours:.{digits}f}' == self.printed:
            return 'yes'
        scale = 10**digits
        if int(self.ours * scale) == round(float(self.printed) * scale):
            return 'yes, cut off'
        beyond = self.ours / float(self.printed) - 1
        return (
            f'{"better" if beyond * self.better > 0 else "no"} ({beyond:+.1%})'
        )

    def cells(self):
        printed = f'{self.printed} {self.unit}' if self.printed else '-'
        ours = f'{self.ours:.4g} {self.unit}'
        return [
            self.paper,
            self.claim,
            self.source,
            printed,
            ours,
            self.how,
            self.match,
        ]


def conv_flops(pixels, into, out, kernel=1, bias=False):
    """Of a convolution; a bias counts as one more input channel."""
    return 2 * pixels * (kernel**2 * into + bias) * out


def counted_flops(formula, *shapes):
    """Of a peer's formula, by torch's counter, without computing it."""
    inputs = [torch.empty(s, device='meta') for s in shapes]
    with FlopCounterMode(display=False) as counter:
        formula(*inputs)
    return counter.get_total_flops()


def declared_flops(name, *args, **kwargs):
    """Of our operator, by its declaration, for one picture."""
    return OPERATORS[name].flops(Case(*args, batch=1, **kwargs))


def agreed_flops(name, formula, case, beyond=0):
    """The declared FLOP, which must be those counted in a peer's formula.

    Args:
        name: Operator.
        formula: On (B, C, H, W).
        case: Of one head.
        beyond: FLOP that the formula wastes.
    """
    declared = OPERATORS[name].flops(case)
    shapes = [
        (case.batch, width, *case.spatial)
        for width in (case.dim, case.dim, case.value_dim)
    ]
    counted = counted_flops(formula, *shapes)
    if counted != declared + beyond:
        raise AssertionError(f'{name}: {counted} counted, {declared} declared')
    return declared


def ccnet_counts(side=97, width=64, channels=512):
    """Of 1x512x97x97 with keys of 64."""
    n = side**2
    case = Case((side, side), 1, width, channels, 1)
    wide = width + channels
    sparse = agreed_flops(
        'criss_cross_attention',
        peers.einsum_criss_cross,
        case,
        beyond=2 * n * wide,  # its masked score and weight of each position
    )
    dense = agreed_flops('non_local_attention', peers.plain_non_local, case)
    layers = conv_flops(n, channels, 2 * width + channels)
    biased = conv_flops(n, channels, 2 * width + channels, bias=True)
    # The author counts H + W + 1 keys, two more than there are.
    loop = biased + sparse + 2 * 2 * n * wide
    block = biased + dense
    how = '3 projections, bias as an input channel, H+W+1 keys'
    dense_how = '3 projections, bias as an input channel, HW keys'
    row = partial(Claim, CCNET)
    giga = 1e9, 'GFLOP'
    rows = [
        ('one loop', FORMULA, '8.29', loop, giga, how),
        ('two loops', FORMULA, '16.58', 2 * loop, giga, how),
        ('two loops', SECOND_HAND, '16.5', 2 * loop, giga, how),
        ('three loops', REMEMBERED, '24.7', 3 * loop, giga, how),
        ('non-local', FORMULA, '108.16', block, giga, dense_how),
        ('non-local', SECOND_HAND, '108', block, giga, dense_how),
        ('two non-local', SECOND_HAND, '216', 2 * block, giga, dense_how),
        (
            'two loops need fewer FLOP than non-local by',
            SECOND_HAND,
            '85',
            100 * (1 - 2 * loop / block),
            (1, '%'),
            'of the two rows above',
        ),
        (
            'one loop, its products alone',
            '',
            '',
            layers + sparse,
            giga,
            'no bias, H+W-1 keys: the declared FLOP, equal to those counted '
            'in the einsum formula less its masked entries',
        ),
        (
            'affinity, non-local',
            ARITHMETIC,
            '337.7',
            4 * n**2,
            (2**20, 'MiB'),
            'fp32, n^2 entries',
        ),
        (
            'affinity, criss-cross',
            ARITHMETIC,
            '6.9',
            4 * n * (2 * side - 1),
            (2**20, 'MiB'),
            'fp32, n (H+W-1) entries',
        ),
    ]
    return [
        row(claim, source, printed, value / unit[0], unit[1], how)
        for claim, source, printed, value, unit, how in rows
    ]


# Height, width -> P -> attention GFLOP, million affinity entries; dense ones.
ISSA_TABLE = {
    (97, 97): (
        {4: ('9.85', '6.4'), 8: ('3.87', '2.5'), 16: ('5.88', '3.8')},
        '88.5',
    ),
    (64, 128): (
        {4: ('6.64', '4.3'), 8: ('2.42', '1.6'), 16: ('3.62', '2.4')},
        '67.1',
    ),
    (128, 128): (
        {4: ('26.2', '17.0'), 8: ('8.05', '5.2'), 16: ('8.05', '5.2')},
        '268',
    ),
    (128, 256): (
        {4: ('104', '67.6'), 8: ('29.0', '18.9'), 16: ('19.3', '12.6')},
        '1074',
    ),
}


def interlaced_flops(spatial, side, width, channels):
    """Declared FLOP of both halves, equal to those of the host's formula."""
    declared = sum(
        declared_flops(
            'interlaced_sparse_attention',
            spatial,
            dim=width,
            value_dim=channels,
            options=dict(partition=(side, side), span=span),
        )
        for span in ('long', 'short')
    )
    shapes = [(1, c, *spatial) for c in (width, width, channels)]
    counted = counted_flops(
        partial(peers.host_interlaced, partition=side), *shapes, *shapes[:2]
    )
    if counted != declared:
        raise AssertionError(f'{counted} counted, {declared} declared')
    return declared


def issa_counts():
    """Attention at key width 256, value width 512; whole heads."""
    row = partial(Claim, ISSA)
    rows = []
    for spatial, (table, dense) in ISSA_TABLE.items():
        at = f'{spatial[0]}x{spatial[1]}'
        for side, (giga, mega) in table.items():
            flops = interlaced_flops(spatial, side, 256, 512)
            # Two products of width 256 and 512: 2 * 768 FLOP per entry.
            entries = flops / (2 * (256 + 512))
            where = f'{at}, P = {side}'
            how = 'declared and counted FLOP of both halves, padded'
            rows += [
                row(
                    f'attention, {where}',
                    ARITHMETIC,
                    giga,
                    flops / 1e9,
                    'GFLOP',
                    how,
                ),
                row(
                    f'affinity, {where}',
                    ARITHMETIC,
                    mega,
                    entries / 1e6,
                    'M entries',
                    'the same divided by the FLOP per entry',
                ),
            ]
        n = spatial[0] * spatial[1]
        rows.append(
            row(
                f'affinity, {at}, dense',
                ARITHMETIC,
                dense,
                n**2 / 1e6,
                'M entries',
                'n^2',
            )
        )
    return rows + head_counts()


def head_counts(side=128):
    """Heads on 1x2048x128x128: 3x3 to 512, attention, projections."""
    n = side**2
    entry = conv_flops(n, 2048, 512, 3)
    last = conv_flops(n, 1024, 512)
    sparse = interlaced_flops((side, side), 8, 256, 512)
    key = conv_flops(n, 512, 256)
    value = conv_flops(n, 512, 512)
    single = entry + 2 * (2 * key + 2 * value) + sparse + last
    double = single + 2 * 2 * conv_flops(n, 256, 256)
    plain = declared_flops(
        'non_local_attention', (side, side), dim=256, value_dim=256
    )
    dense = entry + 3 * key + plain + conv_flops(n, 256, 512) + last
    loop = conv_flops(n, 512, 2 * 64 + 512) + declared_flops(
        'criss_cross_attention', (side, side), dim=64, value_dim=512
    )
    rcca = entry + 2 * loop
    rcca += conv_flops(n, 512, 512, 3) + conv_flops(n, 2560, 512, 3)
    sibling = f'sibling paper (OCR), {REMEMBERED}'
    rows = [
        (
            'its head',
            REMEMBERED,
            '386',
            single,
            'one-layer query and key, 3x3 and last 1x1 convolution',
        ),
        (
            'its head, as released',
            ARITHMETIC,
            '394.60',
            double,
            'the same with two-layer query and key',
        ),
        (
            'dense attention head',
            ARITHMETIC,
            '618.5',
            dense,
            'query, key, value of 256, output, 3x3 and last 1x1',
        ),
        ('dense attention head', sibling, '619', dense, 'the same'),
        (
            'criss-cross head, two loops',
            ARITHMETIC,
            '804.2',
            rcca,
            'with its three 3x3 convolutions',
        ),
        ('criss-cross head, two loops', sibling, '804', rcca, 'the same'),
    ]
    return [
        Claim(ISSA, f'{claim}, 128x128', source, printed, f / 1e9, 'GFLOP', h)
        for claim, source, printed, f, h in rows
    ]


def caa_counts():
    """Keys of 64, values of 512, on square maps."""
    row = partial(Claim, CAA)
    rows = []
    for side, giga in ((65, '0.63'), (97, '2.10'), (128, '4.83')):
        case = Case((side, side), 1, 64, 512, 1, options=dict(axis=0))
        one = agreed_flops('axial_attention', peers.einsum_axial, case)
        how = 'declared and counted FLOP of the column pass, twice'
        rows.append(
            row(
                f'attention, both passes, {side}x{side}',
                ARITHMETIC,
                giga,
                2 * one / 1e9,
                'GFLOP',
                how,
            )
        )
    for side, mebi in ((33, '35'), (65, '268'), (97, '891'), (128, '2048')):
        rows.append(
            row(
                f'5-D products of a pass, {side}x{side}, fp16',
                ARITHMETIC,
                mebi,
                peers.bytes_of_groups((1, side, side, 512), 2) / 2**20,
                'MiB',
                'L H W C; none with the gate factored out',
            )
        )
    weights = sum(p.numel() for p in peers.channel_gate(512).parameters())
    rows.append(
        row(
            'weights of a gate',
            ARITHMETIC,
            '196608',
            weights,
            'weights',
            "of the benchmark's gate",
        )
    )
    return rows


def linear_counts(width=32, channels=64):
    """Cost of square maps at d = d_v = 2 d_k = 64, as the figures print."""
    row = partial(Claim, LAM)
    rows = []
    tables = dict(
        flops=(
            ('3.2', '51.8', '828.9', '13.3', '212.2'),
            ('G', 'G', 'G', 'T', 'T'),
        ),
        bytes=(('69', '1.1', '17.2', '275', '4.4'), ('M', 'G', 'G', 'G', 'T')),
    )
    prefix = dict(M=1e6, G=1e9, T=1e12)
    for index, side in enumerate((64, 128, 256, 512, 1024)):
        n = side**2
        case = Case((side, side), 1, width, channels, 1)
        flops = OPERATORS['non_local_attention'].flops(case) + n**2
        inputs = 4 * n * (2 * width + channels)
        for what, value, unit, how in (
            (
                'flops',
                flops,
                'FLOP',
                'declared FLOP (192 n^2) and one exponential per entry',
            ),
            (
                'bytes',
                inputs + 4 * n**2,
                'B',
                'query, key, value and affinity, fp32',
            ),
        ):
            printed, scales = (column[index] for column in tables[what])
            rows.append(
                row(
                    f'dot product, {side}x{side}',
                    TABLE,
                    printed,
                    value / prefix[scales],
                    f'{scales}{unit}',
                    how,
                )
            )
        agreed_flops(
            'efficient_attention', partial(peers.loop_efficient, heads=1), case
        )
        flops = agreed_flops(
            'linear_attention',
            peers.einsum_linear,
            case,
            beyond=2 * n * width,  # the normalizer's products
        )
        printed = ('45', '179', '717', '2900', '11500')[index]
        rows.append(
            row(
                f'linear, {side}x{side}',
                TABLE,
                printed,
                flops / 1e6,
                'MFLOP',
                'declared FLOP (4 n d_k d_v); what else theirs counts is '
                'not known',
            )
        )
    return rows


def memory_of(function, shapes, backward=False):
    """Bytes of the inputs, and the most allocated beyond them."""
    torch.manual_seed(0)
    nchw = len(shapes[0]) == 4
    contestant = Contestant(
        'claim',
        function,
        [torch.randn(s) for s in shapes],
        as_it_is if nchw else to_nchw,
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
    """Memory of ours and of the dense formula.

    Args:
        side: Of CCNet's map.
        wide: Of the map of the linear operators.
    """
    maps = [(1, c, side, side) for c in (64, 64, 512)]
    ours = [(1, side, side, 1, c) for c in (64, 64, 512)]
    dense = memory_of(peers.plain_non_local, maps, backward=True)[1]
    cross = memory_of(two_loops, ours, backward=True)[1]
    rows = [
        Claim(
            CCNET,
            f'non-local needs more memory than two loops, {side}x{side}',
            SECOND_HAND + ' (1411 MB against 127 MB)',
            '11.1',
            dense / cross,
            'fold',
            f'measured, forward and backward beyond the inputs: '
            f'{dense / 2**20:.0f} MiB against {cross / 2**20:.0f} MiB',
            better=1,
        )
    ]
    n = wide**2
    shapes = [(1, wide, wide, 1, c) for c in (32, 32, 64)]
    official = [(1, c, wide, wide) for c in (32, 32, 64)]
    softplus = partial(ops.linear_attention, feature_map='softplus')
    for claim, function, formula, printed in (
        ('linear', ops.linear_attention, peers.einsum_linear, '101'),
        (
            'kernel attention',
            softplus,
            partial(peers.einsum_linear, softplus=True),
            '51',
        ),
    ):
        theirs = sum(memory_of(formula, official)) / 1e6
        rows.append(
            Claim(
                LAM,
                f'{claim}, {wide}x{wide}',
                TABLE,
                printed,
                sum(memory_of(function, shapes)) / 1e6,
                'MB',
                'measured, forward with its inputs; the official formula '
                f'{theirs:.0f} MB',
                better=-1,
            )
        )
    extra = memory_of(ops.efficient_attention, shapes)[1] - 4 * n * 64
    rows.append(
        Claim(
            EA,
            f'extra memory, {wide}x{wide}: 4 d_k d_v bytes for the context, '
            f'4 n^2 = {4 * n**2 / 2**20:.0f} MiB for dot products',
            ARITHMETIC,
            '',
            extra / 2**20,
            'MiB',
            'measured, forward beyond inputs and output; '
            f'the context is {4 * 32 * 64 / 2**20:.3f} MiB of it',
        )
    )
    return rows


def exact():
    """All claims that need no measurement."""
    return ccnet_counts() + issa_counts() + caa_counts() + linear_counts()


HEADER = ['paper', 'claim', 'source', 'printed', 'ours', 'how', 'match']
NOTE = (
    'FLOP are 2 per multiply-add. Counts are of the declared products of our '
    "operators, which agree with torch's FlopCounterMode on the peers' "
    'formulas. "Arithmetic" figures are not printed in the papers as far as '
    'we know; a remembered figure is no evidence.'
)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('--out', type=Path, help='folder for claims.md')
    args = parser.parse_args(arguments)
    table = markdown(HEADER, [c.cells() for c in exact() + measured()])
    Console().print(table, soft_wrap=True, highlight=False, markup=False)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        text = f'torch {torch.__version__}. {NOTE}\n\n{table}'
        replace_file(args.out / 'claims.md', lambda p: p.write_text(text))


if __name__ == '__main__':
    main()
