# Copyright (c) mmseg_attn contributors.
"""Write what is generated in README.md and docs/: `python docs/generate.py`.

A page says where by two comments on lines of their own, between which the
text stands: `<!-- begin NAME -->` and `<!-- end NAME -->`. NAME is a function
of this file, with its arguments behind it. tests/test_docs.py runs this and
fails where a committed page would change. NOTEBOOKS are notebooks, too.
"""

import importlib
import inspect
import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import yaml
from mmengine.config import Config

from mmseg_attn.__main__ import main as run
from mmseg_attn.configs import BENCHMARKS
from mmseg_attn.errors import run_command
from mmseg_attn.markdown import markdown_table
from mmseg_attn.metafiles import ZOO, find_row
from mmseg_attn.progress import quiet_imports

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'tools/benchmark/results'
MARKED = re.compile(
    r'^(<!-- begin ([^\n]*) -->\n).*?^(<!-- end \2 -->)$', re.M | re.S
)
# Pages that are notebooks, too.
NOTEBOOKS = {'tutorial.md'}
# As the benchmark names a case -> as a reader does, where that differs.
CASES = {
    'criss_cross': 'criss-cross',
    'criss_cross_layer': 'criss-cross layer',
    'efficient_1_head': 'efficient, 1 head',
    'efficient_8_heads': 'efficient, 8 heads',
    'interlaced_layer': 'interlaced sparse layer',
    'linear_softplus': 'linear, softplus',
    'non_local': 'non-local',
}
# Folder of results -> case -> sizes and peer of the rows that are shown.
EINSUM, SDPA = 'einsum (mmcv formula)', 'SDPA on copies'
ISA, ISA_LAYER = 'mmseg ISAHead formula', 'mmseg ISAHead blocks'
LOOP, OFFICIAL = 'loop over heads (official)', 'einsum (official)'
SPEED = [
    ('cpu_criss_cross', 'criss_cross', '2x97x97 1x128x256', EINSUM),
    ('cpu_criss_cross', 'criss_cross_layer', '2x97x97 1x128x256', 'mmcv'),
    (
        'cpu_criss_cross_sweep',
        'criss_cross',
        '2x8x8 2x64x64 1x256x256',
        EINSUM,
    ),
    (
        'cpu_criss_cross_sweep',
        'criss_cross_layer',
        '2x8x8 2x64x64 1x256x256',
        'mmcv',
    ),
    ('cpu_axial', 'axial', '1x32x32 1x64x64 1x97x97 1x256x512', SDPA),
    (
        'cpu_axial',
        'channelized_axial',
        '1x32x32 1x64x64 1x97x97 1x256x512',
        SDPA,
    ),
    ('cpu_axial', 'channelized_axial', '1x97x97', 'grouped (official)'),
    ('cpu_axes', 'interlaced_sparse', '1x32x32 1x97x97 1x128x256', ISA),
    ('cpu_contexts', 'interlaced_layer', '1x97x97 1x128x256', ISA_LAYER),
    ('cpu_contexts', 'efficient_1_head', '1x97x97 1x128x256', LOOP),
    ('cpu_contexts', 'efficient_8_heads', '1x32x32 1x128x256', LOOP),
    ('cpu_contexts', 'linear', '1x97x97 1x128x256', OFFICIAL),
    ('cpu_contexts', 'channel_linear', '1x97x97', OFFICIAL),
]
SHORT = {
    ('criss_cross_layer', '2x97x97'),
    ('interlaced_layer', '1x97x97'),
    ('linear', '1x97x97'),
}

GPU = 'bfloat16_criss_cross', 'bfloat16', 'layers_autocast', 'float32'
SHORT_GPU = {
    ('criss_cross', '2x97x97'),
    ('axial', '2x97x97'),
    ('interlaced_sparse', '2x97x97'),
    ('channel_linear', '2x97x97'),
}


def operators(page: Path) -> str:
    """The operators, from their declarations."""
    return command('info', '--operators')


def configs(page: Path) -> str:
    """The configs of each benchmark, from their names."""
    return relocated(command('info', '--configs'), ROOT / 'README.md', page)


def recipes(page: Path) -> str:
    """The one recipe for all methods, from the base config of each data."""
    head = ['benchmark', 'crop', 'batch on 4 GPUs', 'iterations']
    rows = []
    for name, benchmark in BENCHMARKS.items():
        path = ROOT / f'configs/_base_/benchmarks/{name}.py'
        if not path.is_file():
            continue
        cfg = Config.fromfile(path)
        optimizer = cfg.optim_wrapper.optimizer
        rows.append(
            (
                f'[{benchmark}]({link(path, page)})',
                '{}x{}'.format(*cfg.crop_size),
                str(4 * cfg.train_dataloader.batch_size),
                f'{cfg.train_cfg.max_iters:,}',
                f'{optimizer.type}, {optimizer.lr}',
                str(optimizer.weight_decay),
            )
        )
    head += ['optimizer, learning rate', 'weight decay']
    return markdown_table(head, rows)


def own_zoo(page: Path) -> str:
    """The models that were trained here, from their metafile."""
    head = ['name', 'data', 'backbone', 'parameters', 'val mIoU']
    head += ['of all seeds', 'trained on', 'files', 'config']
    metafile = ROOT / ZOO / 'metafile.yaml'
    rows = []
    for model in yaml.safe_load(metafile.read_text())['Models']:
        row = find_row(model['Name'])
        files = [ROOT / model[key] for key in ('Weights', 'Safetensors')]
        size = files[0].stat().st_size / 1e6
        rows.append(
            (
                f'`{row.short}`',
                row.dataset,
                row.backbone,
                f'{model["Metadata"]["Parameters"]:,}',
                f'{row.miou:.2f}',
                f'{row.mean:.2f}'
                + (f' ± {row.spread:.2f}' if row.spread is not None else '')
                + f' ({len(row.seeds)})',
                model['Metadata']['Training Resources'],
                f'{size:.2f} MB '
                + ', '.join(f'[{f.suffix}]({link(f, page)})' for f in files),
                f'[{row.name}]({link(row.config, page)})',
            )
        )
    return markdown_table(head, rows)


def zoo(page: Path) -> str:
    """The checkpoints that others published, from the metafiles."""
    head = ('config', 'data', 'backbone', 'mIoU', 'flip and scales', 'weights')
    found = {}
    for metafile in metafiles():
        for model in yaml.safe_load(metafile.read_text())['Models'] or []:
            found.setdefault(model['In Collection'], []).append(model)
    parts = []
    for method, models in found.items():
        rows = []
        for model in models:
            metrics = model['Results']['Metrics']
            rows.append(
                (
                    f'[{model["Name"]}]({link(ROOT / model["Config"], page)})',
                    model['Results']['Dataset'],
                    model['Metadata']['Architecture'][0],
                    f'{metrics["mIoU"]:.2f}',
                    f'{metrics.get("mIoU(ms+flip)", "")}',
                    f'[{model["Weights"].split("/")[2]}]({model["Weights"]})',
                )
            )
        parts.append(f'### {method}\n\n{markdown_table(head, rows)}')
    return '\n\n'.join(parts)


def speed(page: Path, extent: str) -> str:
    """Times and memory on a CPU, from the benchmark's results."""
    head = ['operator', 'B x H x W', 'ours', 'peer', 'its time']
    head += ['our extra memory', 'its', 'from']
    rows = []
    for folder, case, sizes, peer in SPEED:
        measured = {
            (row['case'], row['size'], row['name']): row
            for row in json.loads(
                (RESULTS / folder / 'benchmark.json').read_text()
            )['rows']
        }
        for size in sizes.split():
            if extent == 'short' and (case, size) not in SHORT:
                continue
            ours = measured[case, size, 'ours']
            other = measured[case, size, peer]
            time, its = (row['total']['median'] for row in (ours, other))
            source = link(RESULTS / folder / 'benchmark.md', page)
            rows.append(
                (
                    title(case),
                    size,
                    f'{digits(time * 1e3)} ms',
                    peer,
                    f'{its / time:.2f} x',
                    f'{digits(ours["extra"] / 2**20)} MiB',
                    f'{other["extra"] / ours["extra"]:.2f} x',
                    f'[{folder}]({source})',
                )
            )
    return markdown_table(head, rows)


def gpu(page: Path, extent: str) -> str:
    """Times of kernels and memory on a GPU, ours beside its fastest peer."""
    head = ['operator', 'B x H x W', 'dtype', 'ours', 'fastest peer']
    head += ['its time', 'its forward', 'our extra memory', 'its', 'from']
    rows = []
    for folder in GPU:
        path = RESULTS / 'h100' / folder / 'benchmark.json'
        content = json.loads(path.read_text())
        found = {}
        for row in content['rows']:
            if 'graph total' in row:
                found.setdefault((row['case'], row['size']), []).append(row)
        for (case, size), (ours, *peers) in found.items():
            short = folder != 'float32' and (case, size) in SHORT_GPU
            shown = extent == 'all' or short
            if not peers or not shown or ours['name'] != 'ours':
                continue
            fastest = min(peers, key=lambda row: row['graph total']['median'])
            forward, total = (
                fastest[kind]['median'] / ours[kind]['median']
                for kind in ('graph forward', 'graph total')
            )
            source = link(path.with_suffix('.md'), page)
            rows.append(
                (
                    title(case),
                    size,
                    content['machine']['dtype'],
                    f'{digits(ours["graph total"]["median"] * 1e3)} ms',
                    fastest['name'],
                    f'{total:.2f} x',
                    f'{forward:.2f} x',
                    f'{digits(ours["extra"] / 2**20)} MiB',
                    times(fastest['extra'], ours['extra']),
                    f'[{path.parent.name}]({source})',
                )
            )
    return markdown_table(head, rows)


def times(a: float, b: float) -> str:
    """How many times b, or nothing where b is next to nothing."""
    return f'{a / b:.2f} x' if b >= 2**20 else f'{digits(a / 2**20)} MiB'


def counted(page: Path) -> str:
    """Costs on a GPU as counted: bf16 at 2x97x97."""
    content = json.loads((RESULTS / 'counted/after/counted.json').read_text())
    found = {}
    for row in content['rows']:
        shown = row['size'] == '2x97x97' and row['dtype'] == 'bfloat16'
        if shown and 'seconds' in row:
            found.setdefault(row['case'], []).append(row)
    rows = []
    for case, (ours, *peers) in found.items():
        best = min(peers, key=lambda row: row['seconds'])
        costs = [
            f'{row["bytes"] / 1e6:.0f} MB, {sum(row["launches"])}'
            for row in (ours, best)
        ]
        ratio = best['seconds'] / ours['seconds']
        rows.append(
            (title(case), costs[0], best['name'], costs[1], f'{ratio:.2f} x')
        )
    head = ('operator', 'ours', 'best peer', 'its', 'its predicted time')
    return markdown_table(head, rows)


def deploy(page: Path) -> str:
    """Times of exported models beside PyTorch's."""
    rows = []
    for path in sorted((RESULTS / 'deploy').glob('*/deploy.json')):
        source = link(path.with_suffix('.md'), page)
        models = json.loads(path.read_text())['models']
        for name, sizes in models.items():
            for found in sizes:
                medians = {
                    way: seconds['total']['median']
                    for way, seconds in found['seconds'].items()
                }
                cells = (f'{1e3 * s:.0f} ms' for s in medians.values())
                # One without a quantised file.
                missing = [''] * (5 - len(medians))
                place = f'[{path.parent.name}]({source})'
                rows.append([name, *cells, *missing, place])
    head = ['model', 'PyTorch, eager', 'ONNX Runtime', 'OpenVINO', '.pt2']
    return markdown_table([*head, 'ONNX Runtime, int8', 'from'], rows)


def result(page: Path, name: str) -> str:
    """The table of a tool's results as it stands there."""
    text = (RESULTS / f'{name}.md').read_text()
    return text[text.index('\n| ') :].strip()


def comparison(page: Path) -> str:
    """All methods under one budget, from the results of two runs."""
    scenes, horses = (
        json.loads(
            (ROOT / f'resources/compare/{name}/comparison.json').read_text()
        )['methods']
        for name in ('scenes', 'horses')
    )

    def cell(method: dict, metric: str) -> str:
        mean, spread = method['mean'][metric], method['std'][metric]
        return f'{mean:.1f} ± {spread:.1f}'

    rows = [
        (
            method['title'],
            cell(scenes[name], 'mIoU one hop'),
            cell(scenes[name], 'mIoU two hops'),
            cell(method, 'mIoU'),
            f'{method["mean"]["parameters"]:,.0f}',
        )
        for name, method in horses.items()
    ]
    head = ['method', 'scenes, one hop', 'scenes, two hops', 'horses']
    return markdown_table([*head, 'parameters'], rows)


def papers(page: Path) -> str:
    """What each method's README says of its paper and of the choices here."""
    parts = []
    for metafile in metafiles():
        readme = metafile.with_name('README.md')
        text = readme.read_text(encoding='utf-8')
        cited = re.findall(r'^> (\[.*\]\(.*\))$', text, re.M)
        name = re.search(r'^# (.*)$', text, re.M)[1]
        sections = re.findall(r'^##+ (.*)\n((?:(?!##+ ).*\n?)*)', text, re.M)
        told = [
            f'#### {name}: {heading[0].lower()}{heading[1:]}\n\n'
            + relocated(body, readme, page).strip()
            for heading, body in sections
            if heading == 'Configs' or 'paper' in heading.lower()
        ]
        whole = f'[Its page]({link(readme, page)}) · {" · ".join(cited)}'
        parts += [f'### {name}', whole, *told]
    text = '\n\n'.join(parts)
    # For tests/test_docs.py: the commands take whole data sets.
    marked = '<!-- not run: needs data or weights of others -->\n```shell'
    return text.replace('```shell', marked)


def api(page: Path, module: str) -> str:
    """The public names of a module, for mkdocstrings."""
    with quiet_imports():
        found = importlib.import_module(module)
    names = getattr(found, '__all__', None) or [
        name
        for name, value in vars(found).items()
        if inspect.isclass(value) and value.__module__.startswith(module)
    ]
    places = (getattr(found, name).__module__ for name in sorted(names))
    return '\n\n'.join(
        f'::: {place}.{name}'
        for place, name in zip(places, sorted(names), strict=True)
    )


def command(*arguments: str) -> str:
    """What ``python -m mmseg_attn`` prints."""
    with redirect_stdout(io.StringIO()) as printed:
        run(list(arguments))
    return printed.getvalue().strip()


def metafiles() -> list[Path]:
    """Those of all methods, in the order of ``model-index.yml``."""
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    return [ROOT / n for n in index['Import'] if n.startswith('configs/')]


def title(case: str) -> str:
    return CASES.get(case, case.replace('_', ' '))


def digits(value: float) -> str:
    """Three significant ones, or the whole number."""
    return f'{value:.0f}' if value >= 100 else f'{value:.3g}'


def link(target: Path, page: Path) -> str:
    return Path(os.path.relpath(target, page.parent)).as_posix()


def relocated(text: str, old: Path, new: Path) -> str:
    """Text of one page for another: links lead where they led."""

    def moved(found: re.Match) -> str:
        path, mark, anchor = found[1].partition('#')
        target = link(Path(os.path.normpath(old.parent / path)), new)
        return f']({target}{mark}{anchor})'

    return re.sub(r'\]\((?!https?:|#)([^)]+)\)', moved, text)


TEXTS = (
    operators,
    configs,
    recipes,
    own_zoo,
    zoo,
    speed,
    gpu,
    counted,
    deploy,
    result,
    comparison,
    papers,
    api,
)


def notebook(text: str) -> str:
    """A page as a notebook: each of its blocks of code is a cell."""
    cells = []
    for kind, source in _parts(text):
        cell = dict(cell_type=kind, id=f'cell-{len(cells)}', metadata={})
        if kind == 'code':
            cell.update(execution_count=None, outputs=[])
        cells.append({**cell, 'source': source.splitlines(keepends=True)})
    kernel = dict(display_name='Python 3', language='python', name='python3')
    content = dict(
        cells=cells,
        metadata=dict(kernelspec=kernel),
        nbformat=4,
        nbformat_minor=5,
    )
    return json.dumps(content, indent=1, ensure_ascii=False) + '\n'


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """Kind and source of each cell."""
    fences = re.split(r'^```(\w*)\n(.*?)^```\n', text, flags=re.M | re.S)
    for place in range(0, len(fences), 3):
        if words := fences[place].strip():
            yield 'markdown', words
        if place + 1 == len(fences):
            return
        language, code = fences[place + 1 : place + 3]
        if language == 'shell':  # a command may go on behind a backslash
            code = re.sub(r'^(?=\S)', '!', code, flags=re.M)
        yield 'code', code.strip()


def current(page: Path) -> str:
    """A page with its generated parts made anew."""
    makers = {maker.__name__: maker for maker in TEXTS}

    def made(found: re.Match) -> str:
        begin, called, end = found.groups()
        name, *arguments = called.split()
        return f'{begin}\n{makers[name](page, *arguments)}\n\n{end}'

    return MARKED.sub(made, page.read_text(encoding='utf-8'))


def pages() -> list[Path]:
    """README.md and all pages of the site."""
    return [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]


def main() -> None:
    made = {page: current(page) for page in pages()}
    made |= {
        page.with_suffix('.ipynb'): notebook(text)
        for page, text in made.items()
        if page.name in NOTEBOOKS
    }
    for page, text in made.items():
        if not page.exists() or text != page.read_text(encoding='utf-8'):
            page.write_text(text, encoding='utf-8')
            print(f'{page.relative_to(ROOT)}: written')


if __name__ == '__main__':
    run_command(main)
