# Copyright (c) mmseg_attn contributors.
"""Run exported models without OpenMMLab.

    from mmseg_attn.runtime import ExportedSegmenter, open_session

    segmenter = ExportedSegmenter(open_session('model.onnx'))
    (mask,) = segmenter([segmenter.prepare('picture.jpg')])

Needs numpy, Pillow, rich and what runs the file: onnxruntime, openvino or
torch. OpenCV is taken where it is there, and needed for videos and polygons.
"""

from .card import Card
from .files import predict_files
from .segmenter import ExportedSegmenter
from .sessions import is_exported, open_session

__all__ = [
    'Card',
    'ExportedSegmenter',
    'is_exported',
    'open_session',
    'predict_files',
]
