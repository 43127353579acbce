"""Which calls have their annotations checked: the first with each shape and dtype in each test."""

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, TypeCheckError
from torch import Tensor

import annotations
from onepath import shapes

checked = annotations.jaxtyped(typechecker=beartype)
Matrix = Float[Tensor, "n d"]


@checked
def halved(x: Matrix, wrong: bool = False) -> Matrix:
    return x[0] if wrong else x / 2


def test_the_package_is_under_this_decorator():
    assert shapes.per_point.__code__.co_filename == annotations.__file__
    with pytest.raises(TypeCheckError):
        shapes.per_point("half past")


def test_every_shape_and_dtype_is_checked_and_the_first_call_of_every_test():
    for n in range(1, 40):
        with pytest.raises(TypeCheckError):
            halved(torch.ones(n, 2), wrong=True)
    with pytest.raises(TypeCheckError):
        halved(torch.ones(7, 2, dtype=torch.float64), wrong=True)
    results = [halved(torch.ones(50, 2), wrong=k == 6) for k in range(20)]
    assert results[6].shape == (2,), "the seventh call of one kind is not checked"
    annotations.forget()
    with pytest.raises(TypeCheckError):
        halved(torch.ones(50, 2), wrong=True)


def test_functions_made_by_the_same_lines_are_one():
    def made(wrong):
        @checked
        def inner(x: Matrix) -> Matrix:
            return x[0] if wrong else x

        return inner

    x = torch.ones(3, 2)
    with pytest.raises(TypeCheckError):
        made(True)(x)
    assert made(False)(x) is x
    assert made(True)(x).shape == (2,), "the third call of one kind is not checked"


def test_an_annotation_that_is_none_is_refused_though_nobody_calls_the_function():
    def outer(x: 3) -> int:
        return x

    outer.__qualname__ = "outer"  # as if it stood in a module
    with pytest.raises(Exception, match="3"):
        checked(outer)
