"""Which settings a component takes, read from its signatures."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mmengine.hooks import CheckpointHook

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
# They hand their **kwargs to a function that has no further setting to give.
_KWARGS_LEAD_NOWHERE = (CheckpointHook,)


@dataclass(frozen=True)
class Settings:
    """The settings of a component.

    Attributes:
        names: Names that it takes.
        any_name: It takes further names that its signature does not tell.
        defaults: Default values of those names that have one.
    """

    names: frozenset[str] = frozenset()
    any_name: bool = False
    defaults: dict[str, Any] = field(default_factory=dict)

    def __or__(self, other: Settings) -> Settings:
        return Settings(
            self.names | other.names,
            self.any_name or other.any_name,
            {**other.defaults, **self.defaults},
        )


@functools.cache
def settings_of(component: Callable) -> Settings:
    """The settings that a class or function takes by keyword.

    A class whose ``__init__`` hands its ``**kwargs`` on to ``super().__init__`` also
    takes what the next class in its method resolution order takes. One that uses its
    ``**kwargs`` otherwise takes any name; constant names that it looks up in them
    (``kwargs.pop('a')``) are named settings.

    Args:
        component: What a ``type`` in a config stands for.
    """
    if inspect.isclass(component):
        return _class_settings(list(component.__mro__))
    try:
        return _own_settings(component)[0]
    except (TypeError, ValueError):  # built without a signature, e.g. in C
        return Settings(any_name=True)


def _class_settings(classes: list[type]) -> Settings:
    for place, owner in enumerate(classes):
        if '__init__' not in vars(owner):
            continue
        if owner is object or owner.__module__ == 'torch.nn.modules.module':
            return Settings()  # torch.nn.Module(**kwargs) refuses every name
        settings, handed_on = _own_settings(vars(owner)['__init__'])
        if owner in _KWARGS_LEAD_NOWHERE:
            return Settings(settings.names, False, settings.defaults)
        if handed_on:
            settings = settings | _class_settings(classes[place + 1 :])
        return settings
    return Settings()


def _own_settings(function: Callable) -> tuple[Settings, bool]:
    """Settings that the signature and body name, and whether the rest is handed on."""
    parameters = inspect.signature(function).parameters.values()
    named = [p for p in parameters if p.kind in _NAMED and p.name != 'self']
    defaults = {p.name: p.default for p in named if p.default is not p.empty}
    names = frozenset(p.name for p in named)
    kwargs = [p.name for p in parameters if p.kind is p.VAR_KEYWORD]
    if not kwargs:
        return Settings(names, False, defaults), False
    try:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
        body = ast.parse(source)
    except (OSError, TypeError, SyntaxError):
        return Settings(names, True, defaults), False
    uses = _KwargsUses(kwargs[0])
    uses.visit(body)
    names |= uses.looked_up
    return Settings(names, uses.otherwise, defaults), uses.handed_on


class _KwargsUses(ast.NodeVisitor):
    """How a function uses its ``**kwargs``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.looked_up: set[str] = set()
        self.handed_on = False
        self.otherwise = False

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr == '__init__':
            splats = [k for k in node.keywords if k.arg is None and self._is(k.value)]
            self.handed_on |= bool(splats)
            self._visit_except(node, splats)
        elif (
            isinstance(function, ast.Attribute)
            and self._is(function.value)
            and function.attr in ('pop', 'get', 'setdefault')
            and isinstance(node.args[0], ast.Constant)
        ):
            self.looked_up.add(str(node.args[0].value))
            for child in node.args[1:]:
                self.visit(child)
        else:
            self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if self._is(node.value) and isinstance(node.slice, ast.Constant):
            self.looked_up.add(str(node.slice.value))
        else:
            self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        is_lookup = any(self._is(c) for c in node.comparators)
        if is_lookup and isinstance(node.left, ast.Constant):
            self.looked_up.add(str(node.left.value))
        else:
            self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        # kwargs = {'a': 1, **kwargs} or kwargs = dict(a=1, **kwargs)
        to_itself = len(node.targets) == 1 and self._is(node.targets[0])
        if to_itself and isinstance(node.value, ast.Dict | ast.Call):
            for child in self._inner(node.value):
                self.visit(child)
        else:
            self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        self.otherwise |= self._is(node)

    def _inner(self, node: ast.Dict | ast.Call) -> Iterator[ast.AST]:
        if isinstance(node, ast.Dict):
            yield from (v for v in node.values if not self._is(v))
        else:
            yield from (k.value for k in node.keywords if not self._is(k.value))
            yield from node.args

    def _is(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Name) and node.id == self.name

    def _visit_except(self, node: ast.Call, skipped: list[ast.keyword]) -> None:
        for child in ast.iter_child_nodes(node):
            if child not in skipped:
                self.visit(child)
