# Copyright (c) mmseg_attn contributors.
"""Builds a wheel that both mims find; the metadata is in pyproject.toml.

Where the weights of resources/zoo are put on the web for a release, the build
is told the address by MMSEG_ATTN_ZOO_URL, for mim; this package has them.
"""

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
# mim reads `.mim` in the package. onedl-mim takes the first path recorded by
# the installer for the package's folder, and installers sort that record:
# there `mmseg_attn-0.1.0.dist-info` comes before `mmseg_attn/`, so that only
# a second copy in a folder beginning with `_` is found.
MIM_FOLDERS = ('mmseg_attn/.mim', '_mmseg_attn_mim/.mim')
MIM_CONTENT = ('configs', 'tools', 'model-index.yml')
ZOO = Path('resources/zoo')


class BuildWithMim(build_py):
    """Put configs and tools into the wheel, never into the source tree."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # mim uses the repository itself
            return
        # Figures of benchmarks are megabytes that no tool reads.
        ignore = shutil.ignore_patterns('__pycache__', '*.py[cod]', 'results')
        for folder in MIM_FOLDERS:
            target = Path(self.build_lib, folder)
            target.mkdir(parents=True, exist_ok=True)
            for name in MIM_CONTENT:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, target / name, ignore=ignore)
                else:
                    shutil.copy2(ROOT / name, target / name)
            (target / ZOO).mkdir(parents=True, exist_ok=True)
            text = (ROOT / ZOO / 'metafile.yaml').read_text('utf-8')
            if address := os.environ.get('MMSEG_ATTN_ZOO_URL'):
                text = text.replace(
                    f'Weights: {ZOO.as_posix()}/',
                    f'Weights: {address.rstrip("/")}/',
                )
            (target / ZOO / 'metafile.yaml').write_text(text, 'utf-8')
        # mim downloads weights: it needs no copy of its own.
        target = Path(self.build_lib, MIM_FOLDERS[0])
        for path in (ROOT / ZOO).glob('*.pth'):
            shutil.copy2(path, target / ZOO / path.name)


if __name__ == '__main__':
    # A `build` folder left in the tree would put removed files into the next
    # wheel, and onedl-mim would find every config of a checkout twice.
    with TemporaryDirectory() as build_base:
        setup(
            cmdclass={'build_py': BuildWithMim},
            options={'build': {'build_base': build_base}},
        )
