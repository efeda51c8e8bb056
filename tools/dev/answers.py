# Copyright (c) mmseg_attn contributors.
"""What comes of a case of wrong input, and how that is judged."""

import contextlib
import io
import logging
import signal
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass

CLEAR = 'clear'
# Seconds after which a case hangs.
LIMIT = 60
# What a message must say at least, and may say at most.
SHORTEST, LONGEST = 20, 900


@dataclass(frozen=True)
class Case:
    """Something wrong.

    Attributes:
        group: Of which command, tool or part it is.
        name: What is wrong.
        run: Does it; of a function it raises, of a command it exits.
        python: Whether a ValueError or TypeError with words is an answer, as
            of a function.
    """

    group: str
    name: str
    run: Callable[[], object]
    python: bool = False


@dataclass(frozen=True)
class Answer:
    """How a case ended: its group and name, the verdict, and what was said."""

    group: str
    name: str
    verdict: str
    text: str


class _Hang(BaseException):
    pass


def answer_of(case: Case, material) -> Answer:
    """Run a case and judge how it ends."""

    def ring(number: int, frame: object) -> None:
        raise _Hang

    said, errors = io.StringIO(), io.StringIO()
    signal.signal(signal.SIGALRM, ring)
    signal.alarm(LIMIT)
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(errors),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter('ignore')
            result = case.run()
        verdict, text = 'silent', f'returned {result!r}'
        spoken = errors.getvalue() + said.getvalue()
        if isinstance(result, int) and result == 1 and spoken:
            # Of many inputs one by one, each with its own line.
            verdict, text = CLEAR, spoken
    except _Hang:
        verdict, text = 'hang', f'after {LIMIT} s'
    except SystemExit as end:
        verdict, text = _of_exit(end.code, errors.getvalue())
    except (ValueError, TypeError, RuntimeError) as error:
        # Of a backend that cannot run here operators say so.
        ours = not isinstance(error, RuntimeError) or str(error).startswith(
            'backend '
        )
        answers = case.python and ours
        verdict, text = _of_words(str(error)) if answers else _trace()
    except BaseException:
        verdict, text = _trace()
    finally:
        signal.alarm(0)
        logging.disable(before)
    if material.payload_ran():
        verdict = 'unsafe'
    return Answer(case.group, case.name, verdict, text)


def _of_exit(code: object, errors: str) -> tuple[str, str]:
    if code == 2 and 'error: ' in errors:  # argparse
        return CLEAR, errors.rpartition('error: ')[2]
    if isinstance(code, str) and code.startswith('Error: '):
        return _of_words(code)
    return 'silent', f'exit code {code!r}'


def _of_words(text: str) -> tuple[str, str]:
    if '\n' in text.strip():
        return 'many lines', text
    if not SHORTEST <= len(text) <= LONGEST:
        return 'vague', text
    return CLEAR, text


def _trace() -> tuple[str, str]:
    return 'traceback', ' | '.join(traceback.format_exc().split('\n')[-4:])
