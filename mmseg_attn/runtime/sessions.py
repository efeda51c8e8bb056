# Copyright (c) mmseg_attn contributors.
"""Open an exported file with the library that runs its format."""

import inspect
import json
import zipfile
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np

from ..errors import UserError, need_package
from .card import KEY, STEREO, Card

# Names of the command line -> those of ONNX Runtime.
PROVIDERS = {
    'cpu': 'CPUExecutionProvider',
    'cuda': 'CUDAExecutionProvider',
    'tensorrt': 'TensorrtExecutionProvider',
    'openvino': 'OpenVINOExecutionProvider',
}
PACKAGES = {
    'cpu': 'onnxruntime',
    'cuda': 'onnxruntime-gpu',
    'tensorrt': 'onnxruntime-gpu',
    'openvino': 'onnxruntime-openvino',
}


class Session(ABC):
    """A network from a file.

    Args:
        path: The file.
        provider: What it is to run on.

    Attributes:
        card: What the file says of itself.
    """

    card: Card

    @abstractmethod
    def __init__(self, path: Path, provider: str) -> None: ...

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """Run the network.

        Args:
            pictures: (N, H, W, 3) uint8, red first, or of clips and pairs
                (N, frames, H, W, 3).

        Returns:
            What its card says.

        Raises:
            UserError: They are of another shape or type.
        """
        self.check(pictures)
        if not self.card.single:
            return self.run(pictures)
        return np.concatenate([self.run(part[None]) for part in pictures])

    def check(self, pictures: object, first: str = 'red') -> None:
        """Refuse what is no batch of pictures.

        Args:
            pictures: What a call gets.
            first: Colour that it expects first.

        Raises:
            UserError: They are of another shape or type.
        """
        frames = self.card.frames
        shape = (frames, None, None, 3) if frames else (None, None, 3)
        if not _is_batch(pictures, shape):
            got = f'a {type(pictures).__name__}'
            if isinstance(pictures, np.ndarray):
                got = f'shape {pictures.shape} and dtype {pictures.dtype}'
            raise UserError(
                f'the network gets {got}, expected a numpy array (N, '
                f'{f"{frames}, " if frames else ""}H, W, 3) of uint8, '
                f'{first} first.'
            )

    @abstractmethod
    def run(self, pictures: np.ndarray) -> np.ndarray:
        """Run the network on as many pictures as it takes.

        Args:
            pictures: (N, H, W, 3) uint8, red first.
        """


def _is_batch(pictures: object, shape: tuple[int | None, ...]) -> bool:
    """Whether it is an array of pictures of a shape, where None is any."""
    if not isinstance(pictures, np.ndarray) or not pictures.size:
        return False
    if pictures.dtype != np.uint8 or pictures.ndim != len(shape) + 1:
        return False
    return all(
        need in (None, got)
        for need, got in zip(shape, pictures.shape[1:], strict=True)
    )


class OnnxSession(Session):
    """A file ``.onnx``, by ONNX Runtime. Arguments as of :class:`Session`."""

    def __init__(self, path: Path, provider: str = 'cpu') -> None:
        runtime = need_package(str(path), 'onnxruntime')
        if provider not in PROVIDERS:
            raise UserError(
                f'the provider (--provider) is {provider!r}, expected '
                f'{", ".join(PROVIDERS)}.'
            )
        name, there = PROVIDERS[provider], runtime.get_available_providers()
        if name not in there:
            raise UserError(
                f'ONNX Runtime cannot run on {provider} here: this '
                f'installation has {", ".join(there)}, and {name} comes with '
                f'pip install {PACKAGES[provider]}.'
            )
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = runtime.InferenceSession(
                str(path), options, providers=[name]
            )
        # Its errors have no common class but Exception.
        except Exception as error:
            raise _broken(path, error) from error
        if self._session.get_providers()[0] != name:
            raise UserError(
                f'ONNX Runtime has {name}, but could not start it: its '
                'libraries (CUDA, cuDNN or TensorRT) are missing or of '
                'another version. Run on the CPU: --provider cpu.'
            )
        meta = self._session.get_modelmeta().custom_metadata_map
        self.card = Card.from_json(meta.get(KEY), path)
        self.card.check_channels(self._session.get_outputs()[0].shape[1], path)
        self._input = self._session.get_inputs()[0].name

    def run(self, pictures: np.ndarray) -> np.ndarray:
        """Run the network."""
        return self._session.run(None, {self._input: pictures})[0]


class OpenvinoSession(Session):
    """A file ``.xml``, with its ``.bin`` beside it, by OpenVINO.

    Arguments as of :class:`Session`.
    """

    def __init__(self, path: Path, provider: str = 'cpu') -> None:
        openvino = need_package(str(path), 'openvino')
        core, device = openvino.Core(), provider.upper()
        there = core.available_devices
        if not any(name.split('.')[0] == device for name in there):
            raise UserError(
                f'OpenVINO cannot run on {provider} here: it finds '
                f'{", ".join(there).lower()}.'
            )
        if not path.with_suffix('.bin').is_file():
            raise UserError(
                f'{path} lacks its weights: {path.with_suffix(".bin").name} '
                'must lie beside it.'
            )
        try:
            network = core.read_model(path)
            # Its default may compute in 16 bits.
            self._network = core.compile_model(
                network, device, {'INFERENCE_PRECISION_HINT': 'f32'}
            )
        except RuntimeError as error:
            raise _broken(path, error) from error
        has_card = network.has_rt_info(KEY)
        text = network.get_rt_info(KEY).astype(str) if has_card else None
        self.card = Card.from_json(text, path)
        size = network.output(0).partial_shape[1]
        if size.is_static:
            self.card.check_channels(size.get_length(), path)

    def run(self, pictures: np.ndarray) -> np.ndarray:
        """Run the network."""
        return self._network(pictures)[0]


class ProgramSession(Session):
    """A file ``.pt2``, by PyTorch. Arguments as of :class:`Session`."""

    def __init__(self, path: Path, provider: str = 'cpu') -> None:
        torch = need_package(str(path), 'torch')
        _refuse_code(path)
        extra = {f'{KEY}.json': ''}
        try:
            program = torch.export.load(str(path), extra_files=extra)
        except (RuntimeError, ValueError, KeyError) as error:
            raise _broken(path, error) from error
        self.card = Card.from_json(extra[f'{KEY}.json'], path)
        (output,) = program.graph.output_node().args[0]
        self.card.check_channels(output.meta['val'].shape[1], path)
        if provider not in ('cpu', 'cuda'):
            raise UserError(
                f'PyTorch does not run on {provider!r}, expected cpu or cuda.'
            )
        if provider == 'cuda' and not torch.cuda.is_available():
            raise UserError('PyTorch finds no CUDA device: --provider cpu.')
        if provider == 'cuda':
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, 'cuda')
        self._torch, self._device = torch, provider
        # Those of a stereo network are of pooled maps of one position, whose
        # order in memory is of no account; others are kept.
        known = inspect.signature(program.module).parameters
        free = self.card.task == STEREO and 'check_guards' in known
        options = {'check_guards': False} if free else {}
        self._network = program.module(**options)

    def run(self, pictures: np.ndarray) -> np.ndarray:
        """Run the network."""
        torch = self._torch
        with torch.inference_mode():
            inputs = torch.from_numpy(np.ascontiguousarray(pictures))
            return self._network(inputs.to(self._device)).cpu().numpy()


SESSIONS = {
    '.onnx': OnnxSession,
    '.xml': OpenvinoSession,
    '.pt2': ProgramSession,
}


def is_exported(path: str | Path) -> bool:
    """Whether a file has the ending of an exported model.

    Args:
        path: Its name.
    """
    return Path(path).suffix.lower() in SESSIONS


def check_ending(path: str | Path) -> None:
    """Refuse what has not the ending of an exported model.

    Args:
        path: Its name.

    Raises:
        UserError: It has another ending.
    """
    if not is_exported(path):
        raise UserError(
            f'{path} has no ending of an exported model: expected '
            f'{", ".join(SESSIONS)}.'
        )


def open_session(path: str | Path, provider: str = 'cpu') -> Session:
    """Open an exported file.

    Args:
        path: The file, ending in ``.onnx``, ``.xml`` or ``.pt2``.
        provider: ``'cpu'``, or of ONNX Runtime ``'cuda'``, ``'tensorrt'`` or
            ``'openvino'``, of OpenVINO a device's name, of PyTorch ``'cuda'``.

    Returns:
        What runs it, with its card.

    Raises:
        UserError: It is missing, broken or not by this package, or its
            library or what it is to run on is not there.
    """
    for what, given, kinds in (
        ('path of the exported file', path, (str, Path)),
        ('provider (--provider)', provider, str),
    ):
        if not isinstance(given, kinds):
            raise UserError(f'the {what} is {given!r}, expected a text.')
    path, provider = Path(path), provider.lower()
    check_ending(path)
    if path.is_dir():
        raise UserError(f'{path} is a folder, expected an exported file.')
    if not path.is_file():
        raise UserError(f'{path} does not exist.')
    return SESSIONS[path.suffix.lower()](path, provider)


def _broken(path: Path, error: Exception) -> UserError:
    reason = ' '.join(str(error).split())
    return UserError(f'{path} cannot be read: it is damaged ({reason:.200}).')


def _refuse_code(path: Path) -> None:
    """Refuse a program with pickled parts, which would run their code."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            texts = [archive.read(n) for n in names if n.endswith('.json')]
    except (OSError, zipfile.BadZipFile) as error:
        raise _broken(path, error) from error
    # What is no such archive torch reads in an older way, by unpickling.
    pickled = not any(name.endswith('archive_format') for name in names)
    objects = ('custom_obj', 'opaque_obj')
    pickled |= any(kind in name for kind in objects for name in names)
    for text in texts:
        try:
            pickled |= _has_pickle(json.loads(text))
        except ValueError:
            continue
    if pickled:
        raise UserError(
            f'{path} holds pickled objects, which can run any code when they '
            'are read: it was not written by the command export.'
        )


def _has_pickle(content: object) -> bool:
    if isinstance(content, dict):
        if content.get('use_pickle'):
            return True
        return any(map(_has_pickle, content.values()))
    return isinstance(content, list) and any(map(_has_pickle, content))
