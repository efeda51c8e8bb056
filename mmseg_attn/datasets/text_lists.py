# Copyright (c) mmseg_attn contributors.
"""Lists of names, one on a line."""

import codecs
from pathlib import Path

from ..errors import UserError

# Endings of lists; others may be files of any kind.
ENDINGS = ('', '.lst', '.txt')
MARKS = {
    codecs.BOM_UTF8: 'UTF-8 text with a byte order mark',
    codecs.BOM_UTF16_LE: 'UTF-16 text',
    codecs.BOM_UTF16_BE: 'UTF-16 text',
}


def check_list(path: str | Path, where: str) -> None:
    """Refuse a list that mmengine would not read as it is meant.

    Args:
        path: The file. One that does not end as a list is passed over.
        where: What names it, for the message.

    Raises:
        UserError: It is not in UTF-8, or begins with a mark that would count
            as part of the first name.
    """
    path = Path(path)
    if path.suffix not in ENDINGS or not path.is_file():
        return
    content = path.read_bytes()
    found = [kind for mark, kind in MARKS.items() if content.startswith(mark)]
    try:
        if b'\0' in content:
            found.append('no text, or UTF-16 text')
        content.decode('utf-8')
    except UnicodeDecodeError:
        found.append('text in another encoding')
    if found:
        raise UserError(
            f'{path} of {where} is {found[0]}: expected a list in UTF-8 '
            'without such a mark. Save it so in an editor.'
        )
