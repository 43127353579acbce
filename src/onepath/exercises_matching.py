"""Tests of the exercises on flow matching, interpolants and couplings. The answers are not here."""

from collections.abc import Callable, Iterator

from .exercises_start import Answer, Test

TESTS: dict[str, Callable[[Answer], Iterator[Test]]] = {}
