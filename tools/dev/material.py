# Copyright (c) mmseg_attn contributors.
"""Right files to spoil: a dataset, a config, weights; and a payload."""

import pickle
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import torch

from mmseg_attn.progress import quiet_imports

with quiet_imports():
    from mmseg_attn.apis import load_model
    from mmseg_attn.configs import find_config
    from mmseg_attn.datasets.scenes import write_folder

TOOLS = Path(__file__).resolve().parents[1]
CONFIG = 'fcn_r18-s4_1xb8-1k_demo-scenes-96x96'
DETECTOR = 'mask-rcnn_r18_fpn_1xb4-1k_demo-instances-96x96'
STEREO = 'psmnet_1xb2-400_demo-stereo-96x192'
CLIPS = 'ccnet3d-t1_r18-s4_1xb8-2k_demo-clips-96x96'


class Payload:
    """Its unpickling leaves a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return exec, (f'open({str(self.marker)!r}, "w").close()',)


class Material:
    """Files in a folder.

    Args:
        folder: Empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.marker = folder / 'payload_ran'
        write_folder(folder / 'data/scenes', 0, 4, 4, 96)
        self.base = find_config(CONFIG)
        self.picture = folder / 'data/scenes/images/val/00000.png'
        self.config = self.write(
            'right.py',
            f'_base_ = {self.base!r}\n'
            'train_cfg = dict(max_iters=1, val_interval=1)\n'
            'default_hooks = dict(checkpoint=dict(interval=1))\n',
        )
        self.model = load_model(str(self.config), None, device='cpu')
        self.weights = folder / 'right.pth'
        torch.save({'state_dict': self.model.state_dict()}, self.weights)
        self._runs = 0

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file in the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            content = content.encode()
        path.write_bytes(content)
        return path

    def payload_ran(self) -> bool:
        """Whether a file's code was run since this was asked last."""
        ran = self.marker.exists()
        self.marker.unlink(missing_ok=True)
        return ran

    def tool(self, name: str, *arguments: object) -> object:
        """Run a script of tools as from the shell, in this process."""
        before = sys.argv
        sys.argv = [name, *map(str, arguments)]
        try:
            runpy.run_path(str(TOOLS / name), run_name='__main__')
        finally:
            sys.argv = before
        return None

    def work_dir(self) -> Path:
        """A new folder for a training or test."""
        self._runs += 1
        return self.folder / f'runs/{self._runs}'

    def checkpoints(self) -> dict[str, Path]:
        """Files that are no weights of the model: what is wrong -> file."""
        right = self.weights.read_bytes()
        state = self.model.state_dict()
        name = next(iter(state))
        broken = {key: value.clone() for key, value in state.items()}
        broken[name].view(-1)[0] = float('nan')
        few = {key: state[key] for key in list(state)[:3]}
        middle = len(right) // 2
        flipped = bytearray(right)
        flipped[middle : middle + 64] = bytes(
            255 - byte for byte in flipped[middle : middle + 64]
        )
        folder = self.folder / 'folder.pth'
        folder.mkdir(exist_ok=True)
        return {
            'missing': self.folder / 'no_such.pth',
            'in a missing folder': self.folder / 'no/such.pth',
            'a folder': folder,
            'empty': self.write('empty.pth', b''),
            'a web page': self.write('page.pth', '<!DOCTYPE html><html>'),
            'a Git LFS pointer': self.write(
                'lfs.pth', 'version https://git-lfs.github.com/spec/v1\n'
            ),
            'text': self.write('text.pth', 'some text\n' * 20),
            'noise': self.write(
                'noise.pth', np.random.default_rng(0).bytes(4096)
            ),
            'cut off': self.write('cut.pth', right[:middle]),
            'with flipped bytes': self.write('flip.pth', bytes(flipped)),
            'a plain pickle': self.write('pickle.pth', pickle.dumps([1])),
            'a payload': self._saved(
                'payload.pth', {'state_dict': state, 'x': Payload(self.marker)}
            ),
            'a pickled payload': self.write(
                'pickled.pth', pickle.dumps(Payload(self.marker))
            ),
            'a number': self._saved('number.pth', 3),
            'an empty dict': self._saved('dict.pth', {}),
            'without weights': self._saved('none.pth', {'state_dict': {}}),
            'few of the weights': self._saved('few.pth', few),
            'of another model': self._saved(
                'other.pth', {'a.weight': torch.zeros(3)}
            ),
            'with NaN': self._saved('nan.pth', {'state_dict': broken}),
            'a picture': self.picture,
        }

    def _saved(self, name: str, content: object) -> Path:
        path = self.folder / name
        torch.save(content, path)
        return path

    def pictures(self) -> dict[str, Path]:
        """Files that are no pictures: what is wrong -> file."""
        right = self.picture.read_bytes()
        jpg = self.folder / 'right.jpg'
        cv2.imwrite(str(jpg), np.full((64, 64, 3), 90, np.uint8))
        return {
            'missing': self.folder / 'no_such.png',
            'empty': self.write('empty.png', b''),
            'text': self.write('text.png', 'some text'),
            'cut off': self.write('cut.png', right[: len(right) // 2]),
            'cut off JPEG': self.write('cut.jpg', jpg.read_bytes()[:200]),
            'a web page': self.write('page.jpg', '<html></html>'),
            'noise': self.write('noise.png', b'\x89PNG' + b'\7' * 99),
        }

    def configs(self) -> dict[str, Path]:
        """Files that are no configs: what is wrong -> file."""
        return {
            'missing': self.folder / 'no_such.py',
            'a folder': self.folder / 'data',
            'empty': self.write('empty.py', ''),
            'text': self.write('words.py', 'these are words\n'),
            'a picture': self.picture,
            'JSON that ends early': self.write('cut.json', '{"model": '),
            'YAML that ends early': self.write('cut.yaml', 'model: [1,\n'),
            'YAML with code': self.write(
                'code.yaml',
                'model: !!python/object/apply:builtins.exec\n'
                f'  ["open({str(self.marker)!r}, \'w\').close()"]\n',
            ),
            'of UTF-16': self.write('wide.py', 'x = 1\n'.encode('utf-16')),
            'without a model': self.write('bare.py', 'x = 1\n'),
        }
