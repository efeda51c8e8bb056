# Copyright (c) mmseg_attn contributors.
"""Tables in Markdown."""

import pytest

from mmseg_attn.markdown import markdown_table


def test_table():
    assert markdown_table(['name', 'value'], [['a', '1'], ('b', '')]) == (
        '| name | value |\n| --- | --- |\n| a | 1 |\n| b |  |'
    )


def test_numbers_to_the_right():
    rule = markdown_table(['a', 'b', 'c'], [], align_right=True)
    assert rule == '| a | b | c |\n| --- | ---: | ---: |'


def test_a_bar_in_a_cell_ends_no_cell():
    line = markdown_table(['a'], [['x | y']]).splitlines()[-1]
    assert line == r'| x \| y |'


@pytest.mark.parametrize('row', [['1'], ['1', '2', '3']])
def test_a_row_of_another_length_is_refused(row):
    with pytest.raises(ValueError, match=f'{len(row)} cells, expected 2'):
        markdown_table(['a', 'b'], [row])
