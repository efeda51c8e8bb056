# Copyright (c) mmseg_attn contributors.
"""Run exported models without OpenMMLab.

    from mmseg_attn.runtime import open_runner

    segmenter = open_runner('model.onnx')
    (mask,) = segmenter([segmenter.prepare('picture.jpg')])

Needs numpy, Pillow, rich and what runs the file: onnxruntime, openvino or
torch. OpenCV is taken where it is there, and needed for videos and polygons.
"""

from .card import Card
from .clips import ExportedClipSegmenter
from .files import predict_files
from .opening import open_runner
from .segmenter import ExportedSegmenter
from .sessions import is_exported, open_session
from .stereo import ExportedStereoMatcher

__all__ = [
    'Card',
    'ExportedClipSegmenter',
    'ExportedSegmenter',
    'ExportedStereoMatcher',
    'is_exported',
    'open_runner',
    'open_session',
    'predict_files',
]
