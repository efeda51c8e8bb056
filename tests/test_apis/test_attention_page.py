# Copyright (c) mmseg_attn contributors.
"""The page of ``attention --html``, in a browser where there is one."""

import copy
import json
import re
import zlib
from base64 import b64decode

import chromium
import cv2
import numpy as np
import pytest
import torch
from brute_force import axial_matrix, criss_cross_matrix, non_local_matrix
from matplotlib import colormaps
from mmengine.config import Config
from tiny_segmentor import picture

from mmseg_attn.__main__ import main
from mmseg_attn.apis import load_model, predict, write_attention_page
from mmseg_attn.apis.attention_blocks import pack_maps
from mmseg_attn.apis.host_layers import tracer_of
from mmseg_attn.apis.tracing import record
from mmseg_attn.errors import UserError

BROWSER = pytest.mark.skipif(
    not chromium.PROGRAM, reason='needs the program chromium'
)
# What a script in the page would set.
EVIL = '</script><img src=x onerror=evil=1><script>evil=1</script>'
HEIGHT, WIDTH = 48, 100


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Two pictures with masks; the second's name is none for a page."""
    root = tmp_path_factory.mktemp('page')
    (root / 'masks').mkdir()
    for seed, name in enumerate(['plain', 'a "><img src=x>&amp;\'%']):
        image, mask = picture(seed + 3, HEIGHT, WIDTH)
        mask[:4] = 255
        cv2.imwrite(str(root / f'{name}.png'), image)
        cv2.imwrite(str(root / 'masks' / f'{name}.png'), mask)
    return root


def pictures_in(folder):
    return sorted(folder.glob('*.png'), reverse=True)


def inputs_of(model, layer, image):
    """What a layer takes in, in float64, while the model sees a picture."""
    found = []
    hook = layer.register_forward_pre_hook(
        lambda module, args: found.append(args[0].double())
    )
    predict(model, image)
    hook.remove()
    return found


def unpacked(text, dtype):
    return np.frombuffer(zlib.decompress(b64decode(text)), dtype)


# What the page's policy forbids: another script, and a connection.
INTRUDER = """
const script = document.createElement('script');
script.textContent = 'intruder = 1';
document.body.append(script);
const answer = await fetch('data:,').then(() => 'answered', () => 'refused');
return `${typeof intruder}, ${answer}`;
"""

# Reads what a canvas shows, as numbers of the 256 colours.
READ = """(() => {
  const canvas = document.getElementById('map-%d');
  const { width, height } = canvas;
  const shown = canvas.getContext('2d').getImageData(0, 0, width, height);
  return {
    width, height, pixels: [...new Uint32Array(shown.data.buffer)],
    ticks: [...document.querySelectorAll('.map ~ .scale')].map((scale) =>
      [...scale.querySelectorAll('data')].map((tick) => Number(tick.value))),
    facts: [...document.querySelectorAll('.scale p')].map(
      (fact) => fact.textContent),
  };
})()"""


def shown_map(page, loop):
    """Shares that the page shows of a loop, (H, W), and its words."""
    found = page.ask(READ % (loop + 1))
    colours = colormaps['inferno'](np.arange(256), bytes=True).astype(int)
    numbers = colours @ [1, 1 << 8, 1 << 16, 1 << 24]
    levels = {number: level for level, number in enumerate(numbers)}
    assert len(levels) == 256
    levels = np.array([levels[number] for number in found['pixels']])
    levels = levels.reshape(found['height'], found['width'])
    low, quarter, largest = found['ticks'][loop]
    assert low == 0 and quarter == pytest.approx(largest / 4)
    return largest * (levels / 255) ** 2, found['facts'][loop]


def place_of(page, x, y, selector='#pointed'):
    """Where in the window a pixel of the picture is."""
    box = page.ask(
        f"(() => {{ const box = document.querySelector('{selector}')"
        '.getBoundingClientRect();'
        'return [box.left, box.top, box.width, box.height]; })()'
    )
    left, top, width, height = box
    return left + (x + 0.5) * width / WIDTH, top + (y + 0.5) * height / HEIGHT


def cells_along(length, cells):
    """The cell in which the middle of each pixel lies."""
    return ((np.arange(length) + 0.5) * cells / length).astype(int)


def spread(weights, shape):
    """Each pixel with the weight of its cell, (H, W)."""
    rows, columns = cells_along(HEIGHT, shape[0]), cells_along(WIDTH, shape[1])
    return np.asarray(weights).reshape(shape)[rows[:, None], columns]


def cell_of(x, y, shape):
    row, column = cells_along(HEIGHT, shape[0]), cells_along(WIDTH, shape[1])
    return row[y] * shape[1] + column[x]


def check_map(page, loop, expected, shape):
    shares, words = shown_map(page, loop)
    wide = spread(expected, shape)
    # 255 levels of the square root.
    np.testing.assert_allclose(
        np.sqrt(shares), np.sqrt(wide), atol=0.51 / 255 * wide.max() ** 0.5
    )
    np.testing.assert_allclose(shares, wide, atol=0.004 * wide.max())
    held = np.sort(expected)[::-1].cumsum()
    reach = int((held < 0.9 * held[-1]).sum()) + 1
    said = int(re.search(r'on (\d+) of (\d+) cells', words)[1])
    assert abs(said - reach) <= 1  # but for what float32 rounds
    assert words.endswith(f'of {shape[0] * shape[1]} cells')


@BROWSER
@torch.no_grad()
def test_shows_where_the_pointer_is(trained, folder, tmp_path):
    out = tmp_path / 'new' / 'page.html'
    command = ['attention', trained.config, trained.checkpoint, '--html']
    command += [*map(str, pictures_in(folder)), '--device', 'cpu']
    command += ['--masks', str(folder / 'masks'), '--out', str(out)]
    command += ['--classes', f'ground,{EVIL}']
    assert not main(command)
    model = load_model(trained.config, trained.checkpoint, device='cpu')
    layer = copy.deepcopy(model.decode_head.cca).double()
    plain, strange = pictures_in(folder)

    def matrices(path):
        inputs = inputs_of(model, model.decode_head.cca, path)
        first, second = (criss_cross_matrix(layer, x) for x in inputs)
        return inputs[0].shape[2:], [first, second @ first]

    shape, expected = matrices(plain)
    with chromium.Chromium() as page:
        page.resize(1200, 900)
        page.open(out)
        places = [(0, 0), (99, 47), (70, 11), (13, 30)]
        for x, y in places:
            page.mouse('Moved', *place_of(page, x, y))
            cell = cell_of(x, y, shape)
            for loop, matrix in enumerate(expected):
                check_map(page, loop, matrix[cell].numpy(), shape)
        status = "document.getElementById('status').textContent"
        found = predict(model, plain)
        truth = cv2.imread(str(folder / 'masks' / 'plain.png'), -1)
        names = ['ground', EVIL]
        assert page.ask(status) == (
            f'Pixel (13, 30) · prediction {names[found[30, 13]]} · truth '
            f'{names[truth[30, 13]]}'
        )
        # Over a map as over the picture; held by a click.
        page.mouse('Moved', *place_of(page, 70, 11, '.map'))
        check_map(page, 1, expected[1][cell_of(70, 11, shape)].numpy(), shape)
        page.click(*place_of(page, 70, 11, '.map'))
        page.mouse('Moved', *place_of(page, 5, 2))
        assert page.ask(status).startswith('Pixel (70, 11), held')
        page.click(*place_of(page, 5, 2))
        assert page.ask(status).startswith('Pixel (5, 2) ')
        assert page.ask(status).endswith('truth ignored')
        # Keys go from cell to cell.
        page.ask("document.getElementById('pointed').focus()")
        cell = cell_of(5, 2, shape)
        for key, shift, step in [
            ('ArrowRight', False, 1),
            ('ArrowDown', True, 5 * shape[1]),
            ('ArrowLeft', False, -1),
            ('ArrowUp', False, -shape[1]),
        ]:
            page.press(key, shift)
            cell += step
            check_map(page, 1, expected[1][cell].numpy(), shape)
        # The next picture.
        page.press('PageDown')
        page.wait("document.getElementById('name').textContent[0] == 'a'")
        assert page.ask("document.getElementById('name').textContent") == (
            strange.name
        )
        named = "document.querySelectorAll('nav button')[1].textContent"
        assert page.ask(named) == strange.name
        shape, expected = matrices(strange)
        page.mouse('Moved', *place_of(page, 31, 40))
        check_map(page, 1, expected[1][cell_of(31, 40, shape)].numpy(), shape)
        # A finger on a phone.
        page.resize(390, 844, mobile=True)
        page.touch(*(place_of(page, 61, y) for y in range(47, 3, -4)))
        check_map(page, 1, expected[1][cell_of(61, 7, shape)].numpy(), shape)
        assert page.ask('scrollY') == 0  # it drew, and scrolled nothing
        wide = 'document.documentElement.scrollWidth'
        assert page.ask(wide) == 390  # nothing beside it
        # Nothing ran that a name holds, and nothing was fetched.
        assert page.ask('typeof evil') == 'undefined'
        urls = {
            event['request']['url'].partition(':')[0]
            for name, event in page.events
            if name == 'Network.requestWillBeSent'
        }
        assert urls == {'file', 'data'}
        troubles = [
            event
            for name, event in page.events
            if name == 'Runtime.exceptionThrown'
            or event.get('entry', {}).get('level') == 'error'
        ]
        assert not troubles
        refused = page.ask(f'(async () => {{ {INTRUDER} }})()')
        assert refused == 'undefined, refused'


@BROWSER
@torch.no_grad()
@pytest.mark.parametrize(
    ('name', 'matrix', 'told'),
    [
        ('CAAHead', axial_matrix, 'gates of channels are left out'),
        ('NLHead', non_local_matrix, 'as 32 × 16 cells'),
    ],
)
def test_other_attention(trained, folder, tmp_path, name, matrix, told):
    torch.manual_seed(0)
    model = with_head(trained, name)
    (layer,) = (m for m in model.modules() if tracer_of(m))
    for parameter in layer.parameters():
        if name == 'NLHead':  # which starts so small that all shares are one
            parameter.normal_()
    (path,) = pictures_in(folder)[:1]
    out = tmp_path / 'page.html'
    assert write_attention_page(model, [path], out, title='a & b') == [1]
    (x,) = inputs_of(model, layer, path)
    expected = matrix(copy.deepcopy(layer).double(), x)
    with chromium.Chromium() as page:
        page.resize(1200, 900)
        page.open(out)
        page.mouse('Moved', *place_of(page, 70, 11))
        cell = cell_of(70, 11, x.shape[2:])
        check_map(page, 0, expected[cell].numpy(), x.shape[2:])
        notes = page.ask("document.getElementById('notes').textContent")
        assert told in notes
        assert page.ask("document.getElementById('pictures').hidden")
        assert page.ask('document.title') == 'Where pixels look: a & b'


HEADS = {
    'CAAHead': dict(attention_channels=16, attention=dict(guided_channels=4)),
    'EAHead': dict(attention=dict(num_heads=2)),
    'ISAHead': dict(isa_channels=8, down_factor=(4, 3)),
    'NLHead': dict(type='NLHead'),
}


def with_head(trained, name):
    config = Config.fromfile(trained.config)
    head = config.model.decode_head.to_dict()
    del head['recurrence']
    head.update(dict(type=f'mmseg_attn.{name}'), **HEADS[name])
    config.model.decode_head = head
    return load_model(config, None, device='cpu')


def characters(packed):
    loops = packed['loops']
    return sum(len(loop['maps'] + loop['facts']) for loop in loops)


@pytest.mark.parametrize('name', ['CCHead', 'EAHead', 'ISAHead'])
@pytest.mark.parametrize('tight', [False, True])
def test_packed_maps(trained, name, tight):
    """All positions, as they are traced one by one; in blocks if tight."""
    torch.manual_seed(0)
    model = (
        load_model(trained.config, trained.checkpoint, device='cpu')
        if name == 'CCHead'
        else with_head(trained, name)
    )
    recording = record(model, picture(3, HEIGHT, WIDTH)[0])
    packed = pack_maps(recording, 10_000_000)
    assert packed['step'] == 1
    if tight:
        budget = characters(packed) // 2
        packed = pack_maps(recording, budget)
        assert packed['step'] > 1 and characters(packed) <= budget
    step = packed['step']
    height, width = packed['cells']
    assert (height, width) == (16, 32)
    assert packed['blocks'] == (-(-height // step), -(-width // step))
    for pixel in [(0, 0), (99, 47), (70, 11)]:
        for loop, known in enumerate(packed['loops']):
            x, y = pixel
            at = known['rows'][y], known['columns'][x]
            middle = tuple(
                min(block * step + step // 2, side - 1)
                for block, side in zip(at, (height, width), strict=True)
            )
            (cells,) = recording.maps(loop, [middle])
            position = at[0] * known['positions'][1] + at[1]
            differences = unpacked(known['maps'], np.uint8)
            maps = differences.reshape(-1, np.prod(packed['blocks']))
            levels = maps[: position + 1].sum(0, dtype=np.uint8) / 255
            facts = unpacked(known['facts'], np.float32).reshape(-1, 3)
            largest, _, total = facts[position]
            expected = np.zeros(packed['blocks'])
            for row in range(height):
                for column in range(width):
                    block = row // step, column // step
                    expected[block] += cells[row, column]
            assert largest == pytest.approx(expected.max(), rel=1e-5)
            assert total == pytest.approx(cells.sum(), rel=1e-5)
            found = largest * levels.reshape(expected.shape) ** 2
            np.testing.assert_allclose(found, expected, atol=0.004 * largest)


def test_large_pictures_stay_below_the_limit(trained, tmp_path, monkeypatch):
    """Blocks grow until picture and maps fit together."""
    path, out = tmp_path / 'large.png', tmp_path / 'page.html'
    noise = np.random.default_rng(0).integers(0, 256, (50, 200, 3), np.uint8)
    cv2.imwrite(str(path), noise.repeat(8, 0).repeat(8, 1))
    model = load_model(trained.config, trained.checkpoint, device='cpu')
    assert write_attention_page(model, [path], out) == [1]
    limit = out.stat().st_size - 20_000
    page = 'mmseg_attn.visualization.attention_page'
    monkeypatch.setattr(f'{page}.MOST_BYTES', limit)
    monkeypatch.setattr(f'{page}.AROUND', 40_000)
    (step,) = write_attention_page(model, [path], out)
    assert step > 1 and out.stat().st_size < limit
    text = re.search('class="picture"[^>]*>(.*)</script>', out.read_text())[1]
    data = json.loads(text)
    assert (data['width'], data['height']) == (1600, 400)
    assert data['size'] == [1280, 320]
    (mask,) = data['masks']
    assert unpacked(mask['values'], np.uint16).size == 1280 * 320


def test_mask_of_another_size(trained, tmp_path):
    """Nothing is left of a page that was begun."""
    model = load_model(trained.config, trained.checkpoint, device='cpu')
    image, out = tmp_path / 'one.png', tmp_path / 'page.html'
    cv2.imwrite(str(image), picture(0)[0])
    (tmp_path / 'masks').mkdir()
    cv2.imwrite(str(tmp_path / 'masks/one.png'), np.eye(2, 3, dtype=np.uint8))
    with pytest.raises(UserError, match='64 x 64 pixels, .* mask has 3 x 2'):
        write_attention_page(model, [image], out, masks=tmp_path / 'masks')
    assert not out.exists() and not list(tmp_path.glob('.*'))


def test_command_refuses(trained, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    plain, strange = map(str, pictures_in(folder))
    command = ['attention', trained.config, trained.checkpoint]
    for words, message in [
        ([plain], 'expected --pixel'),
        ([plain, strange, '--pixel', '0', '0'], 'got 2 pictures'),
        ([plain, '--pixel', '0', '0', '--html'], 'pointer chooses'),
        ([plain, '--pixel', '0', '0', '--masks', '.'], 'is for --html'),
        ([plain, '--html', '-o', 'a.png'], 'must end in one of .html'),
        ([plain, 'none.png', '--html'], 'No picture none.png'),
    ]:
        with pytest.raises(SystemExit, match=message):
            main([*command, *words])
    assert not list(tmp_path.iterdir())
    command += [plain, '--html', '--device', 'cpu']
    assert not main(command)
    said = capsys.readouterr().out
    assert re.search(r'Page: attention.html \(0\.\d MB\)', said)
    with pytest.raises(SystemExit, match='replace it with --overwrite'):
        main(command)
