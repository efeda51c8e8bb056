# Copyright (c) mmseg_attn contributors.
"""What the package knows of its hosts.

Two families of distributions provide the same modules: the originals and the
maintained ``onedl-*`` forks. Imports the standard library alone.
"""

import functools
import importlib.util
import re
import warnings
from enum import Enum
from importlib import metadata

# Module -> distributions that provide it.
ORIGINAL = {
    'mmengine': ('mmengine', 'mmengine-lite'),
    'mmcv': ('mmcv', 'mmcv-lite', 'mmcv-full'),
    'mmseg': ('mmsegmentation',),
    'mmdet': ('mmdet',),
}
ONEDL = {
    'mmengine': ('onedl-mmengine',),
    'mmcv': ('onedl-mmcv',),
    'mmseg': ('onedl-mmsegmentation',),
    'mmdet': ('onedl-mmdetection',),
}
# What hosts bring and exported models need, too, besides their own library.
RUNTIME = ('numpy', 'PIL', 'rich')


class HostError(Enum):
    """Errors of other packages that are told apart by their text alone.

    Each is a regular expression. A test provokes each one and fails where a
    new version words it otherwise: correct the expression here.
    """

    # mmengine's Config, which knows no bases of ours: AssertionError.
    OUR_BASE = r'to load mmseg_attn config'
    # mmengine's Registry.build: KeyError.
    UNKNOWN_TYPE = r'([\w.]+) is not in the \S+ registry'
    # Python's, of a class that is built with an argument too many: TypeError.
    UNEXPECTED_ARGUMENT = r"unexpected keyword argument '(\w+)'"
    # mmengine's Registry.get, of a module that fails while it is imported:
    # RuntimeError, whose context says why.
    BROKEN_MODULE = r'^Failed to get ([\w.]+)$'
    # numpy's, when mmengine's BaseDataset serialises no sample: ValueError.
    NO_SAMPLE = r'need at least one array'
    # mmcv's LoadImageFromFile, of what is no picture: AssertionError.
    NO_PICTURE = r'load image'
    # OpenCV's, when mmcv decodes an empty file: cv2.error.
    EMPTY_PICTURE = r'imdecode'
    # torch's convolutions: RuntimeError.
    WRONG_CHANNELS = r'channels'
    # torch's batch normalisation in training: ValueError.
    ONE_VALUE = r'Expected more than 1 value per channel'
    # torch's allocators, on a GPU and on the CPU: RuntimeError.
    OUT_OF_MEMORY = r"(?i)out of memory|can't allocate memory"

    def found_in(self, error: Exception) -> re.Match | None:
        """Look for the text in an error.

        Args:
            error: The error.

        Returns:
            The match with its groups, or None.
        """
        return re.search(self.value, str(error))


def version_of(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None.

    Args:
        distribution: Its name, as pip knows it.
    """
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def installed(family: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """Return the installed distributions of a family with their versions.

    Args:
        family: Module -> distributions that provide it.
    """
    names = [name for names in family.values() for name in names]
    versions = {name: version_of(name) for name in names}
    return {name: version for name, version in versions.items() if version}


def mixed_families() -> str | None:
    """Return what is wrong and what to do if both families are installed."""
    original, onedl = installed(ORIGINAL), installed(ONEDL)
    if not (original and onedl):
        return None
    return (
        f'Both families of OpenMMLab packages are installed: '
        f'{", ".join(original)} and {", ".join(onedl)}. They write the same '
        'modules over each other. Remove them all with "pip uninstall -y '
        f'{" ".join([*original, *onedl])}", then install one family: pip '
        'install "mmseg_attn[onedl]" or "mmseg_attn[openmmlab]".'
    )


def missing_ops() -> str | None:
    """Return what to do if mmcv has no compiled operators, else None.

    The detectors of MMDetection (RoIAlign, NMS) cannot even be imported
    without.
    """
    problem = 'mmcv has no compiled operators (RoIAlign, NMS)'
    if importlib.util.find_spec('mmcv._ext'):
        try:
            importlib.import_module('torch')  # whose libraries they link
            importlib.import_module('mmcv._ext')
        except ImportError as error:
            # Those of another torch.
            problem = f"mmcv's compiled operators do not load ({error})"
        else:
            return None
    family = 'onedl' if installed(ONEDL) else 'mmcv'
    package = {'onedl': 'onedl-mmcv', 'mmcv': 'mmcv==2.1.0'}[family]
    return (
        f'{problem}, which detectors need. Compile them, which takes g++, '
        'the Python headers and ten minutes and more: pip install '
        '"setuptools<82" ninja, then MMCV_WITH_OPS=1 pip install '
        '--force-reinstall --no-deps '
        f'--no-build-isolation --no-cache-dir --no-binary :all: {package}'
    )


def missing_for(scope: str | None) -> str | None:
    """Return what to do if a config's host cannot run here, else None.

    Args:
        scope: The config's ``default_scope``.
    """
    if scope != 'mmdet':
        return None
    if not importlib.util.find_spec('mmdet'):
        return _without_mmdet()
    return missing_ops()


def missing_host(error: ModuleNotFoundError) -> str | None:
    """Return what to do if it is a host that was not found, else None.

    Args:
        error: Error of an import, or of a config whose bases are a
            host's. Without a host, one of what hosts bring counts, too.
    """
    name = error.name
    if name == 'mmdet':
        return _without_mmdet()
    if name not in ONEDL:
        if importlib.util.find_spec('mmengine'):
            return None
        if name in RUNTIME:
            return (
                f'{name} is not installed: exported models need pip install '
                'numpy onnxruntime pillow rich, all else pip install '
                '"mmseg_attn[onedl]"'
            )
        name = 'mmengine'
    return (
        f'{name} is not installed, which all but operators, layers and '
        'exported models needs: pip install "mmseg_attn[onedl]"'
    )


def missing_package(name: str) -> str | None:
    """Return what to do if the package that a type is of is not installed.

    Args:
        name: The type as a config has it, such as ``mmpretrain.ConvNeXt``.
    """
    package, dot, _ = name.partition('.')
    if not (package and dot) or importlib.util.find_spec(package):
        return None
    if package == 'mmdet':
        return _without_mmdet()
    if package != 'mmpretrain':
        return f'{package} is not installed'
    prefix = 'onedl-' if installed(ONEDL) else ''
    return (
        'MMPreTrain is not installed, which this config needs: pip install '
        f'{prefix}mmpretrain torchvision'
    )


def _without_mmdet() -> str:
    family = 'onedl' if installed(ONEDL) else 'openmmlab'
    return (
        'MMDetection is not installed, which this config needs: pip install '
        f'"mmseg_attn[{family},{family}-det]"'
    )


@functools.cache
def warn_if_mixed() -> None:
    """Warn, once in a process, if both families are installed."""
    problem = mixed_families()
    if problem:
        warnings.warn(problem, stacklevel=2)
