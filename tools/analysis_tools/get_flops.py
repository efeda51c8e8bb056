# Copyright (c) mmseg_attn contributors.
"""Count operations: ``python -m mmseg_attn flops``."""

import sys

from mmseg_attn.__main__ import main

if __name__ == '__main__':
    sys.exit(main(['flops', *sys.argv[1:]]))
