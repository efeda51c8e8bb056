# Copyright (c) mmseg_attn contributors.
"""Draw samples of a dataset: ``python -m mmseg_attn browse``."""

import sys

from mmseg_attn.__main__ import main

if __name__ == '__main__':
    sys.exit(main(['browse', *sys.argv[1:]]))
