"""Names for the shapes and the kinds of function that occur in the book.

n counts samples, d the coordinates of one sample, k the components of a mixture, m the times of a
grid. A time `t` has shape () when all samples share it, and (n,) when each sample has its own. The
names are annotations only: `jaxtyping` checks them while the tests run and costs nothing otherwise.
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

Time = Float[Tensor, ""] | Float[Tensor, "n"]
Points = Float[Tensor, "n d"]
Values = Float[Tensor, "n"]
Matrices = Float[Tensor, "n d d"]

Curve = Callable[[Tensor], Tensor]  # t -> a number per time, of the shape of t
Field = Callable[[Tensor, Tensor], Tensor]  # (t, x) -> one vector per point
Scalar = Callable[[Tensor, Tensor], Tensor]  # (t, x) -> one number per point
LogDensity = Scalar  # a Scalar whose value is log rho_t(x), normalised or not


def per_point(value: Tensor) -> Tensor:
    """A curve's value, made ready to multiply points: () stays (), (n,) becomes (n, 1)."""
    return value[..., None] if value.ndim else value
