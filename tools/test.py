# Copyright (c) mmseg_attn contributors.
"""Measure a model on the test data of a config, as mim starts it."""

import sys

from mmseg_attn.__main__ import main as command


def main() -> int | None:
    return command(['test', *sys.argv[1:]])


if __name__ == '__main__':
    sys.exit(main())
