# Copyright (c) mmseg_attn contributors.
"""Feed wrong input to all commands, tools and functions, and judge the answer.

Each case must end in one line that says what is wrong: no traceback, nothing
passed over in silence, no code of a file run, no hang. `--sample 60` runs
every so many-th; without it, all are run. `--only TEXT` runs those whose name
has a text in it, and prints their answers.
"""

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from answers import CLEAR, Answer, answer_of
from bad_calls import python_cases
from bad_commands import command_cases
from bad_configs import config_cases
from material import Material

from mmseg_attn.errors import run_command
from mmseg_attn.markdown import markdown_table


def main(arguments: list[str] | None = None) -> int:
    """Run the cases and print a table, and what is not clear in full."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--sample', type=int, help='so many cases')
    parser.add_argument('--only', default='', help='part of their names')
    args = parser.parse_args(arguments)
    before = os.getcwd()
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            answers = run(Material(Path(folder)), args.sample, args.only)
        finally:
            os.chdir(before)
    groups = {answer.group: Counter() for answer in answers}
    for answer in answers:
        groups[answer.group][answer.verdict] += 1
    kinds = sorted({answer.verdict for answer in answers} | {CLEAR})
    rows = [
        [group, *map(str, [found.total(), *(found[k] for k in kinds)])]
        for group, found in groups.items()
    ]
    total = Counter(answer.verdict for answer in answers)
    rows.append(
        ['all', *map(str, [total.total(), *(total[k] for k in kinds)])]
    )
    print(markdown_table(['group', 'cases', *kinds], rows))
    for answer in answers:
        if args.only or answer.verdict != CLEAR:
            print(f'{answer.verdict}: {answer.group}, {answer.name}')
            print(f'    {answer.text[:500]}')
    return int(total[CLEAR] != len(answers))


def run(material: Material, sample: int | None, only: str) -> list[Answer]:
    """Answers of the chosen cases, in their order."""
    makers = (config_cases, command_cases, python_cases)
    cases = [case for maker in makers for case in maker(material)]
    cases = [case for case in cases if only in f'{case.group}, {case.name}']
    step = max(1, len(cases) // sample) if sample else 1
    return [answer_of(case, material) for case in cases[::step]]


if __name__ == '__main__':
    sys.exit(run_command(main))
