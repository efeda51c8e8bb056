# Copyright (c) mmseg_attn contributors.
"""Datasets that the hosts lack, registered under ``mmseg_attn``."""

from importlib.util import find_spec

# The demo scenes need no host, and a detector needs no mmseg.
if find_spec('mmcv'):
    from .pictures import LoadPicture  # noqa: F401
if find_spec('mmseg'):
    from .balanced_crop import BalancedCrop  # noqa: F401
    from .camvid import CamVidDataset  # noqa: F401
    from .check_annotations import CheckAnnotations  # noqa: F401
    from .clip_transforms import (  # noqa: F401
        ClipTransform,
        LoadClip,
        PackClipInputs,
    )
    from .clips import (  # noqa: F401
        CamVidClipDataset,
        ClipDataset,
        ClipFolderDataset,
    )
    from .folder import FolderDataset  # noqa: F401
    from .gid15 import GID5Dataset, GID15Dataset  # noqa: F401
    from .stereo import SceneFlowDataset, StereoFolder  # noqa: F401
    from .stereo_transforms import (  # noqa: F401
        LoadDisparity,
        LoadStereoPair,
        PackStereoInputs,
    )
