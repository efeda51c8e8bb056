# Copyright (c) mmseg_attn contributors.
"""What is installed and what runs here.

Works with torch alone and with broken host packages: each import is tried by
itself, and its failure is part of the report.
"""

import contextlib
import importlib
import io
import platform
import warnings

from .. import __version__, hosts
from ..markdown import markdown_table


def operator_table() -> str:
    """What each operator supports, as its declaration says, in Markdown."""
    from ..ops.declare import OPERATORS

    header = ('operator', 'of', 'axes', 'other keys', 'dtypes', 'backends')
    rows = []
    for name, operator in OPERATORS.items():
        paper, address = operator.paper.split(', ')
        ranks = sorted({len(case.spatial) for case in operator.cases})
        cross = any(case.key_spatial for case in operator.cases)
        dtypes = [
            str(d).replace('torch.float', 'fp').replace('torch.bfloat', 'bf')
            for d in operator.dtypes
        ]
        row = (
            f'`{name}`',
            f'[{paper}]({address})',
            ', '.join(map(str, ranks)),
            'yes' if cross else 'no',
            ', '.join(dtypes),
            ', '.join(operator.backends),
        )
        rows.append(row)
    return markdown_table(header, rows)


def collect_info() -> dict:
    """Gather the report.

    Returns:
        ``mmseg_attn``, ``python`` and ``platform`` (strings), ``torch``
        (version, error, cuda, devices, triton), ``hosts`` (family,
        distributions, modules with their import errors, compiled_ops, warning)
        and ``backends`` (operator -> backend -> None if it runs here, else the
        reason why it does not).
    """
    return {
        'mmseg_attn': __version__,
        'python': platform.python_version(),
        'platform': platform.platform(),
        'torch': _torch(),
        'hosts': _hosts(),
        'backends': _backends(),
    }


def as_text(report: dict) -> str:
    """Lay a report of :func:`collect_info` out as text."""
    torch, found = report['torch'], report['hosts']
    cuda = ', '.join(torch['devices']) or 'no device'
    lines = [
        f'mmseg_attn    {report["mmseg_attn"]}',
        f'python        {report["python"]} on {report["platform"]}',
        f'torch         {torch["error"] or torch["version"]}',
        f'CUDA          {torch["cuda"] or "not in this torch"} ({cuda})',
        f'triton        {torch["triton"] or "not installed"}',
        '',
        f'host family   {found["family"]}',
    ]
    for name, version in found['distributions'].items():
        lines.append(f'  {name:<22} {version}')
    for module, error in found['modules'].items():
        if error:
            lines.append(f'  import {module} fails: {error}')
    lines.append(f'compiled ops  {found["compiled_ops"]}')
    if found['warning']:
        lines += ['', f'WARNING: {found["warning"]}']
    lines += ['', 'operator backends']
    if 'error' in report['backends']:
        lines.append(f'  unknown: {report["backends"]["error"]}')
        return '\n'.join(lines)
    for operator, backends in report['backends'].items():
        lines.append(f'  {operator}')
        for backend, reason in backends.items():
            state = f'no: {reason}' if reason else 'runs'
            lines.append(f'    {backend:<10} {state}')
    return '\n'.join(lines)


def _try_import(name: str) -> tuple[object | None, str | None]:
    """Import a module; return it, or None and its error in one line."""
    try:
        # Hosts print and warn while they are imported: --json stays JSON.
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter('ignore')
            return importlib.import_module(name), None
    except Exception as error:  # a broken host may raise anything
        text = ' '.join(str(error).split())
        return None, f'{type(error).__name__}: {text}'


def _torch() -> dict:
    torch, error = _try_import('torch')
    report = {
        'version': torch and torch.__version__,
        'error': error,
        'cuda': torch and torch.version.cuda,
        'devices': [],
        'triton': hosts.version_of('triton'),
    }
    if torch and torch.cuda.is_available():
        report['devices'] = [
            torch.cuda.get_device_name(index)
            for index in range(torch.cuda.device_count())
        ]
    return report


def _hosts() -> dict:
    original = hosts.installed(hosts.ORIGINAL)
    onedl = hosts.installed(hosts.ONEDL)
    family = {
        (False, False): 'none: pip install "mmseg_attn[onedl]"',
        (True, False): 'original',
        (False, True): 'onedl',
        (True, True): 'original and onedl',
    }[bool(original), bool(onedl)]
    distributions = {**original, **onedl}
    modules = {
        module: _try_import(module)[1]
        for module in hosts.ONEDL
        if distributions.keys()
        & {*hosts.ONEDL[module], *hosts.ORIGINAL[module]}
    }
    return {
        'family': family,
        'distributions': distributions,
        'modules': modules,
        'compiled_ops': _compiled_ops(modules),
        'warning': hosts.mixed_families(),
    }


def _compiled_ops(modules: dict[str, str | None]) -> str:
    if modules.get('mmcv', 'absent'):
        return 'no usable mmcv'
    extension, error = _try_import('mmcv._ext')
    if extension:
        return 'yes: every model of the host packages can be built'
    if error.startswith('ModuleNotFoundError'):
        return (
            "no: mmseg_attn needs none, but mmseg's own CCHead and other "
            'models that use mmcv.ops cannot be built'
        )
    return f'broken: built for another torch or CUDA? {error}'


def _backends() -> dict:
    ops, error = _try_import('mmseg_attn.ops')
    return ops.backends() if ops else {'error': error}
