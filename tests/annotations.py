"""The annotations of the package are checked in the first calls of a function in a test.

jaxtyping's import hook puts its decorator on every function. To check every call of a loop, and to
prepare every function that is made within one, takes as long as all else that the tests do, and the
thousandth call says little that the tenth did not. So this decorator stands in its place: it checks
the first calls of a function after `forget`, which each test calls, and then those whose number is
a power of two. Functions made by the same lines of code are one.
"""

from collections import Counter
from collections.abc import Callable
from functools import wraps
from types import CodeType, FunctionType

import jaxtyping

FIRST = 8
_every_call = jaxtyping.jaxtyped
_calls: Counter[CodeType] = Counter()
forget = _calls.clear


def jaxtyped(function: object = None, *, typechecker: Callable | None) -> Callable:
    """jaxtyping's decorator for some calls of a function; for all else it is that decorator."""
    if function is None:
        return lambda function: jaxtyped(function, typechecker=typechecker)
    if not isinstance(function, FunctionType):
        return _every_call(function, typechecker=typechecker)

    checked = None  # made when it is called for: that takes a millisecond

    @wraps(function)
    def sometimes(*arguments: object, **named: object) -> object:
        nonlocal checked
        _calls[function.__code__] += 1
        count = _calls[function.__code__]
        if count > FIRST and count & (count - 1):
            return function(*arguments, **named)
        checked = checked or _every_call(function, typechecker=typechecker)
        return checked(*arguments, **named)

    return sometimes
