# Copyright (c) mmseg_attn contributors.
"""The operators between the projections of the papers' own modules.

The projections are written out here from the files' weights, so that what is
compared is the operator alone. Criss-cross attention: see the layer's tests.
"""

import pytest
import torch
import torch.nn.functional as F

from mmseg_attn.ops import (
    channel_linear_attention,
    channelized_axial_attention,
    efficient_attention,
    interlaced_sparse_attention,
    linear_attention,
)


def check(data, module, atol):
    """Output and all gradients of module(x, parameters) as in the file."""
    parameters = {
        k[2:]: v.requires_grad_(f'g.{k[2:]}' in data)
        for k, v in data.items()
        if k.startswith('p.')
    }
    x = data['x'].requires_grad_()
    y = module(x, parameters)
    (y * data['w']).sum().backward()
    close = dict(rtol=0, atol=atol)
    torch.testing.assert_close(y, data['y'], **close)
    torch.testing.assert_close(x.grad, data['gx'], **close)
    compared = [k for k, v in parameters.items() if v.requires_grad]
    for key in compared:
        torch.testing.assert_close(
            parameters[key].grad, data[f'g.{key}'], **close
        )


def conv(x, p, name):
    """1x1 convolution to (B, H, W, heads=1, C)."""
    y = F.conv2d(x, p[f'{name}.weight'], p.get(f'{name}.bias'))
    return y.movedim(1, -1).unsqueeze(-2)


def maps(x):
    """(B, H, W, heads, dim) to (B, C, H, W)."""
    return x.flatten(-2).movedim(-1, 1)


@pytest.mark.parametrize(
    'name, heads',
    [('ea_32_k16_h1_v16_9x13', 1), ('ea_32_k16_h4_v24_7x6', 4)],
)
@pytest.mark.parametrize('backend', ['torch', 'reference'])
def test_efficient_attention(golden, name, heads, backend):
    def module(x, p):
        qkv = (
            conv(x, p, n).squeeze(-2).unflatten(-1, (heads, -1))
            for n in ('queries', 'keys', 'values')
        )
        attended = maps(efficient_attention(*qkv, backend=backend))
        return x + maps(conv(attended, p, 'reprojection'))

    check(golden(name), module, 1e-9)


@pytest.mark.parametrize('backend', ['torch', 'reference'])
def test_linear_attention(golden, backend):
    def module(x, p):
        qkv = (conv(x, p, f'{n}_conv') for n in ('query', 'key', 'value'))
        return x + p['gamma'] * maps(linear_attention(*qkv, backend=backend))

    check(golden('lam_position_32_9x9'), module, 1e-9)


@pytest.mark.parametrize('backend', ['torch', 'reference'])
def test_channel_linear_attention(golden, backend):
    def module(x, p):
        rows = x.movedim(1, -1).unsqueeze(-2)
        attended = channel_linear_attention(rows, backend=backend)
        return x + p['gamma'] * maps(attended)

    check(golden('lam_channel_32_9x9'), module, 1e-9)


@pytest.mark.parametrize(
    'name, partition',
    [('isa_block_13x19_p4x8', (4, 8)), ('isa_block_16x24_p8x8', (8, 8))],
)
@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('backend', ['torch', 'reference'])
def test_interlaced_sparse_attention(golden, name, partition, train, backend):
    if train and name.startswith('isa_block_13'):
        pytest.skip('the authors ran this size in eval mode only')
    data = golden(f'{name}_{"train" if train else "eval"}')
    # The running statistics as they were before the run.
    data = {k: v for k, v in data.items() if not k.startswith('p.')} | {
        f'p.{k[3:]}': v for k, v in data.items() if k.startswith('p0.')
    }

    def norm(x, p, name):
        return F.batch_norm(
            x,
            p[f'{name}.running_mean'],
            p[f'{name}.running_var'],
            p[f'{name}.weight'],
            p[f'{name}.bias'],
            training=train,
        ).relu()

    def project(x, p, name):
        for i in (0, 2):
            x = F.conv2d(x, p[f'{name}.{i}.weight'])
            x = norm(x, p, f'{name}.{i + 1}.0')
        return x.movedim(1, -1).unsqueeze(-2)

    def attend(x, p, span):
        name = f'{span}_range_sa'
        query = project(x, p, f'{name}.f_query')
        key = project(x, p, f'{name}.f_key')
        value = conv(x, p, f'{name}.f_value')
        out = interlaced_sparse_attention(
            query,
            key,
            value,
            partition=partition,
            span=span,
            scale=query.shape[-1] ** -0.5,
            backend=backend,
        )
        out = F.conv2d(maps(out), p[f'{name}.W.0.weight'])
        return norm(out, p, f'{name}.W.1.0')

    def module(x, p):
        # As the authors do, padded before the projections.
        (h, w), (ph, pw) = x.shape[2:], partition
        top, left = -h % ph // 2, -w % pw // 2
        pads = left, -w % pw - left, top, -h % ph - top
        y = attend(attend(F.pad(x, pads), p, 'long'), p, 'short')
        return y[..., top : top + h, left : left + w]

    check(data, module, 1e-9)


@pytest.mark.parametrize('backend', ['torch', 'reference'])
def test_channelized_axial_attention(golden, backend):
    """The official TensorFlow block; its file is in fp32."""
    data = golden('caa_axialblock_9x13')
    # pNN.Block/layer/.../weight:0 -> layer.weight
    data = {
        f'{k[0]}.{k.split("/")[1]}.{"/".join(k.split("/")[2:])}'
        if k[1:3].isdigit()
        else k: v
        for k, v in data.items()
    }

    def project(x, p, name):
        def of(part):
            (found,) = (
                v for k, v in p.items() if k.startswith(name) and part in k
            )
            return found

        y = x @ of('kernel')[0, 0]
        y = (y - of('moving_mean')) / (of('moving_variance') + 1e-3).sqrt()
        return (y * of('gamma') + of('beta')).relu().unsqueeze(-2)

    def gate(p, name):
        kernels = [v for k, v in p.items() if k.startswith(f'{name}_c_att')]
        assert len(kernels) == 6

        def run(pooled):
            for kernel in kernels[:-1]:
                pooled = F.leaky_relu(pooled @ kernel, 0.2)
            return (pooled @ kernels[-1]).sigmoid()

        return run

    def module(x, p):
        y = project(x, p, 'value_conv')
        for axis, name in enumerate('vh'):
            q = project(x, p, f'{name}_querykey')
            y = channelized_axial_attention(
                q, q, y, gate(p, name), axis=axis, backend=backend
            )
        return y.squeeze(-2)

    check(data, module, 1e-5)
