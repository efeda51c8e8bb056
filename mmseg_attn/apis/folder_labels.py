# Copyright (c) mmseg_attn contributors.
"""All that is wrong in somebody's folders of pictures and masks."""

from pathlib import Path

from ..datasets.mask_classes import MaskSurvey, find_class_list
from ..datasets.pairs import match_files, read_pair
from ..errors import UserError
from ..progress import make_progress


def folder_problems(
    images: Path, masks: Path, classes: dict | None = None
) -> list[str]:
    """Find each file that cannot be used, where training stops at the first.

    Args:
        images: Folder of pictures, searched to any depth.
        masks: Folder of masks with the same names.
        classes: ``classes`` and perhaps ``palette``, as for
            :func:`~mmseg_attn.apis.own_data.read_own_data`.

    Returns:
        A line for each picture without a mask, file that cannot be read, mask
        of another size or palette, and mask with a value that is no class.

    Raises:
        UserError: A folder is missing or empty, or two files have one name.
    """
    pairs, problems, _ = match_files(images, masks)
    survey, usable = MaskSurvey(), 0
    with make_progress() as progress:
        task = progress.add_task('looking for all problems', total=len(pairs))
        for pair in pairs:
            try:
                _, labels, palette = read_pair(pair, None)
                survey.add(pair.mask, labels, palette)
                usable += 1
            except UserError as error:
                problems.append(str(error))
            progress.advance(task)
    try:
        about, where = find_class_list(masks, classes)
        if usable and about is not None:
            problems += survey.strangers(about, where)
        elif usable:
            survey.classes()
    except UserError as error:
        problems.append(str(error))
    return problems
