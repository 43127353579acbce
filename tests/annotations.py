"""The annotations of the package are checked in the first calls of a function in a test.

jaxtyping's import hook puts its decorator on every function. To check every call of a loop, and to
prepare every function that is made within one, takes as long as all else that the tests do, and the
thousandth call says little that the first did not. So this decorator stands in its place: of the
calls with arguments of the same shapes and dtypes it checks, after `forget`, which each test calls,
the first two and then those whose number is a power of two. Functions made by the same lines of
code are one.
"""

from collections import Counter
from collections.abc import Callable, Hashable
from functools import partial, wraps
from types import FunctionType

import jaxtyping
from torch import Tensor

_every_call = jaxtyping.jaxtyped
_calls: Counter[Hashable] = Counter()
forget = _calls.clear


def jaxtyped(*, typechecker: Callable) -> Callable:
    """What the hook writes above a function or a class."""
    return partial(_some_calls, typechecker=typechecker)


def _some_calls(function: object, typechecker: Callable) -> object:
    """jaxtyping's decorator for some calls of a function; for what is no function, that itself."""
    if not isinstance(function, FunctionType):
        return _every_call(function, typechecker=typechecker)
    # of a function made in another one it is made when it is called for: that takes a millisecond
    inner = "<locals>" in function.__qualname__
    checked = None if inner else _every_call(function, typechecker=typechecker)

    @wraps(function)
    def sometimes(*arguments: object, **named: object) -> object:
        nonlocal checked
        given = (*arguments, *named.values())
        kinds = ((a.shape, a.dtype) if isinstance(a, Tensor) else None for a in given)
        kind = (function.__module__, function.__code__, *kinds)
        _calls[kind] += 1
        if _calls[kind] & (_calls[kind] - 1):
            return function(*arguments, **named)
        checked = checked or _every_call(function, typechecker=typechecker)
        return checked(*arguments, **named)

    return sometimes
