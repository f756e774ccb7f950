"""Options as one: several decorators in one, and several values in one."""

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any, TypeVar

_Command = TypeVar("_Command", bound=Callable[..., object])
Decorator = Callable[[_Command], _Command]


def all_of(*options: Callable[[Any], Any]) -> Decorator[_Command]:
    """Options as one, which show in this order."""

    def add(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def gathered(name: str, values: type, *options: Callable[[Any], Any]) -> Decorator[Callable[..., None]]:
    """Options as one value: the command gets it as `name`.

    Args:
        values: a dataclass, whose fields are the options' parameters.
    """
    own = [field.name for field in fields(values)]

    def add(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def with_value(*args: object, **kwargs: object) -> None:
            given = {field: kwargs.pop(field) for field in own if field in kwargs}
            command(*args, **{name: values(**given)}, **kwargs)

        decorate: Decorator[Callable[..., None]] = all_of(*options)
        return decorate(with_value)

    return add
