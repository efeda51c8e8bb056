# Copyright (c) mmseg_attn contributors.
"""Which arguments a class takes, also through its parents."""

import ast
import inspect
import re
import textwrap

from mmengine import registry
from mmengine.runner import Runner


def arguments_of(kind: type, entry: dict | None = None) -> set[str] | None:
    """Find the names of a class' arguments, those of its parents included.

    Args:
        kind: The class.
        entry: Its config, for classes that build another with what they do
            not take themselves.

    Returns:
        The names, or None if the class may take any.
    """
    names = set()
    for parent in kind.__mro__:
        init = parent.__dict__.get('__init__')
        if init is None or parent is object:
            continue
        parameters = inspect.signature(init).parameters.values()
        names |= {p.name for p in parameters}
        rest = [p.name for p in parameters if p.kind is p.VAR_KEYWORD]
        if not rest:
            return names
        use = _use_of(init, rest[0])
        if use == 'saved':  # mmengine's hook hands them on when it saves
            more = inspect.signature(Runner.save_checkpoint).parameters
            return names | set(more)
        if use == 'resize':
            built = _resize(entry or {})
            more = arguments_of(built) if built else None
            return None if more is None else names | more
        if use == 'any':
            return None
    return names


def _use_of(init: object, rest: str) -> str:
    """What becomes of the arguments that have no name of their own."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(init)))
    except (OSError, TypeError, SyntaxError):
        return 'any'
    if rest == 'resize_kwargs':
        return 'resize'
    uses = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id == rest
    ]
    handed = [
        keyword.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).startswith('super()')
        for keyword in node.keywords
        if keyword.arg is None
    ]
    if all(use in handed for use in uses):
        return 'parents'  # or nobody's, if there are none
    if re.search(rf'self\.args = {rest}\b', ast.unparse(tree)):
        return 'saved'
    return 'any'


def _resize(entry: dict) -> type | None:
    name = entry.get('resize_type', 'Resize')
    return registry.TRANSFORMS.get(name)
