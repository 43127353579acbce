r"""How errors and losses are weighed against time: exchange rates between the five fields, the
weight that likelihood asks for, preconditioning, and which times to draw.

A network that predicts one row of the table in `fields` with an error makes a proportional error in
every other row; the factor depends on the time alone. So a loss on one row *is* a loss on any other
with another weight, and all choices of prediction, of schedule and of weighting are one choice: a
weight $w(\lambda)$ of the noise error, and a density of times at which it is sampled. Everything
here needs a base N(0, I) that is independent of the target, and a signal-to-noise ratio that grows.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .calculus import rate
from .fields import Row, coefficients, gaussian_path, noise
from .interpolants import Interpolant, half_log_snr
from .measures import check_generator
from .objectives import regression
from .oracles import MixturePath
from .shapes import Curve, Field, Points, Time, Values, per_point

Path = Interpolant | MixturePath


def exchange(path: Path, given: Row, wanted: Row, t: Time) -> Time:
    r"""$q_t^2$ with $|\delta F|^2 = q_t^2\,|\delta f|^2$: what a squared error in the given field
    makes in the wanted one.

    $$ q = \frac{\Delta_F}{\Delta_f}, \qquad \Delta = \alpha\,b - \sigma\,a $$

    for a row (a, b) of the table in `fields`. The square is included. Raises ValueError where the
    wanted field does not follow from the given one.

    Source: here.
    Book: eq:error-weights.
    """
    return coefficients(gaussian_path(path), given, wanted, t)[1] ** 2


def same_loss(weight: Curve, path: Path, given: Row, wanted: Row) -> Curve:
    r"""The weight under which the regression on `given` is the one on `wanted` with `weight`.

    $$ \text{weight}_t\,|\hat F - F|^2 = \text{weight}_t\,q_t^2\;|\hat f - f|^2, $$

    sample by sample and not only on average, because the targets are combinations of the same two
    ends. Evaluating it raises ValueError where the weight is negative or nan, and where the
    conversion is singular.

    Source: here.
    Book: eq:error-weights.
    """
    return lambda t: _weighed(weight, t) * exchange(path, given, wanted, t)


def likelihood_weight(path: Path) -> Curve:
    r"""$\dot\lambda_t$: the weight of the noise loss that turns it into nats.

    $$ \tfrac12\,g_t^2\,|\delta s|^2 = \dot\lambda_t\,|\delta\varepsilon|^2 . $$

    There is no ½ on the right because $\lambda$ is half the log-SNR. Evaluating it raises
    ValueError where $\lambda$ is infinite (at t = 0 if $\alpha_0 = 0$, at t = 1 if $\sigma_1 = 0$)
    and where it falls.

    Source: Song et al. (2021), Maximum likelihood training; Kingma et al. (2021).
    Book: eq:likelihood-weight.
    """
    schedule = gaussian_path(path)

    def weight(t: Time) -> Time:
        speed = rate(lambda s: half_log_snr(schedule, s), t)
        right = (speed >= 0) & (speed < torch.inf)
        if not right.all():
            what = f"{v:g}" if (v := _first(speed, right)) < 0 else "an infinite lambda"
            raise ValueError(
                "the likelihood weight is the rate of lambda, which must be finite and not "
                f"negative, got {what} at t = {_first(t.expand_as(speed), right):g}; "
                "stay away from times without noise or without data."
            )
        return speed

    return weight


def over_log_snr(weight: Curve, path: Path, row: Row) -> Curve:
    r"""$w(\lambda_t)$ of the loss on `row` with `weight`: what it is on the axis that all
    schedules share.

    $$ \int \text{weight}_t\,\mathbb E|\hat f - f|^2\,dt
       = \int w(\lambda)\,\mathbb E|\hat\varepsilon - \varepsilon|^2\,d\lambda, \qquad
       w(\lambda_t) = \frac{\text{weight}_t\,q_t^2}{\dot\lambda_t} , $$

    read at the time t. It is 1 for the likelihood. Raises as `likelihood_weight` does.

    Source: Kingma and Gao (2023), Understanding diffusion objectives as the ELBO.
    Book: eq:weight-of-lambda.
    """
    as_noise, speed = same_loss(weight, path, noise, row), likelihood_weight(path)
    return lambda t: as_noise(t) / speed(t)


def likelihood_loss(field: Field, path: Path, row: Row, t: Time, x0: Points, x1: Points) -> Values:
    r"""$\dot\lambda_t\,|\hat\varepsilon_t(x_t) - x_0|^2$ for a field that predicts `row`: nats per
    unit of time.

    Its mean over $x_0$, integrated over time, is the middle term of the evidence bound.

    Source: Kingma et al. (2021), Variational diffusion models.
    Book: eq:elbo.
    """
    schedule = gaussian_path(path)
    weight = same_loss(likelihood_weight(schedule), schedule, row, noise)
    return weight(t) * regression(field, schedule, row, t, x0, x1)


def start_divergence(path: Path, x1: Points) -> Values:
    r"""$\mathrm{KL}(p(x_0|x_1)\,\|\,\mathcal N(0, \sigma_0^2I)) = \alpha_0^2|x_1|^2/2\sigma_0^2$:
    the first term of the evidence bound.

    Source: here.
    Book: eq:elbo.
    """
    schedule, start = gaussian_path(path), x1.new_zeros(())
    return (schedule.alpha(start) ** 2 / (2 * schedule.variance(start))) * x1.square().sum(1)


def step_weights(path: Path, times: Float[Tensor, "m"]) -> Float[Tensor, "m-1"]:
    r"""$\tfrac12(e^{2h_k} - 1)$ with $h_k = \lambda_{t_{k+1}} - \lambda_{t_k}$: the weights of
    DDPM's bound.

    Entry k belongs to the noise loss at the *noisier* end $t_k$ of its step. The 2 in the exponent
    is there because $\lambda$ is half the log-SNR; the ½ is that of a Gaussian's exponent. Raises
    ValueError unless the times increase and $\lambda$ is finite and increases on them.

    Source: Ho, Jain and Abbeel (2020); Kingma et al. (2021).
    Book: eq:discrete-elbo.
    """
    snr = half_log_snr(gaussian_path(path), times)
    if len(times) < 2 or not (times.diff() > 0).all() or not (snr.diff() > 0).all():
        raise ValueError(
            "steps go from noise to data: two or more increasing times with an increasing "
            f"signal-to-noise ratio, got {times.tolist()} with lambda {snr.tolist()}."
        )
    if not snr.isfinite().all():
        raise ValueError(
            f"steps need noise and data at both ends, got lambda from {snr[0].item():g} to "
            f"{snr[-1].item():g}; leave the ends of the path out."
        )
    return 0.5 * torch.expm1(2 * snr.diff())


def preconditioning(path: Path, scale: float, t: Time) -> tuple[Time, Time, Time]:
    r"""$(c_{\text{in}}, c_{\text{skip}}, c_{\text{out}})$ of
    $\hat x = c_{\text{skip}}\,x + c_{\text{out}}\,F(c_{\text{in}}\,x)$.

    $$ c_{\text{in}} = D^{-1/2}, \quad c_{\text{skip}} = \frac{\alpha s^2}{D}, \quad
       c_{\text{out}} = \frac{\sigma s}{\sqrt D}, \qquad D = \alpha^2s^2 + \sigma^2 . $$

    Args:
        scale: s > 0, the root mean square of a coordinate of the data. Input and target of F then
            have unit mean square, and no other skip has a smaller $c_{\text{out}}$.

    Finite at both ends. Raises ValueError unless the scale is positive and finite.

    Source: Karras et al. (2022) for alpha = 1; here.
    Book: eq:preconditioning.
    """
    if not 0 < scale < float("inf"):
        raise ValueError(f"the scale of the data is positive and finite, got {scale}.")
    schedule = gaussian_path(path)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    total = (alpha * scale) ** 2 + schedule.variance(t)
    return total**-0.5, alpha * scale**2 / total, sigma * scale / total.sqrt()


def preconditioned(net: Field, path: Path, scale: float) -> Field:
    r"""The denoiser $\hat x = c_{\text{skip}}\,x + c_{\text{out}}\,F(t, c_{\text{in}}\,x)$ of a
    network F.

    Its row is `fields.data`. With F = 0 it is the best linear denoiser of centred, white data.

    Source: Karras et al. (2022), Elucidating the design space of diffusion-based generative models.
    Book: eq:preconditioning.
    """
    schedule = gaussian_path(path)

    def denoiser(t: Time, x: Points) -> Points:
        inner, skip, outer = map(per_point, preconditioning(schedule, scale, t))
        return skip * x + outer * net(t, inner * x)

    return denoiser


@dataclass(frozen=True)
class TimeDensity:
    r"""A density of times that is constant between the points of a grid.

    An integral $\int w_t\,dt$ is the mean of $w_\tau/p(\tau)$ over times $\tau$ with density p,
    whatever p is; its variance depends on p.

    Args:
        edges: increasing times, m + 1 of them.
        heights: the density between two edges, up to a factor; positive, because a time that is
            never drawn biases the estimate.

    Raises ValueError otherwise.

    Source: here.
    Book: eq:time-importance.
    """

    edges: Float[Tensor, "e"]
    heights: Float[Tensor, "m"]

    def __post_init__(self) -> None:
        e, h = self.edges, self.heights
        if len(e) != len(h) + 1 or not len(h) or e.dtype != h.dtype:
            raise ValueError(
                f"m heights stand between m + 1 edges of their dtype, got {len(h)} {h.dtype} and "
                f"{len(e)} {e.dtype}."
            )
        if not (e.diff() > 0).all() or not e.isfinite().all():
            raise ValueError(f"edges are finite and increase, got {e.tolist()}.")
        if not ((h > 0) & (h < torch.inf)).all():
            raise ValueError(
                "a density of times is positive and finite everywhere, "
                f"got {_first(h, (h > 0) & (h < torch.inf)):g}; give rare times a small height, "
                "not 0, or the estimate is biased."
            )

    def __call__(self, t: Time) -> Time:
        """p(t). Raises ValueError outside of the edges, where the density is 0."""
        if not ((t >= self.edges[0]) & (t <= self.edges[-1])).all():
            raise ValueError(
                f"this density has times from {self.edges[0].item():g} to "
                f"{self.edges[-1].item():g}, got {t.min().item():g} to {t.max().item():g}."
            )
        k = torch.searchsorted(self.edges, t, right=True).clamp(max=len(self.heights)) - 1
        return (self.heights / self._masses().sum())[k]

    def quantile(self, u: Time) -> Time:
        """The time below which the share u of the mass lies: the inverse of the distribution
        function.

        Uniform u give times of this density; evenly spread u give evenly spread times. Raises
        ValueError outside of [0, 1].
        """
        if not ((u >= 0) & (u <= 1)).all():
            raise ValueError(f"a share lies in [0, 1], got {u.min().item()} to {u.max().item()}.")
        mass = self._masses() / self._masses().sum()
        below = torch.cat([mass.new_zeros(1), mass.cumsum(0)])
        k = torch.searchsorted(below, u.to(mass), right=True).clamp(max=len(mass)) - 1
        inside = ((u - below[k]) / mass[k]).clamp(0, 1)
        return self.edges[k] + inside * self.edges.diff()[k]

    def sample(self, n: int, generator: torch.Generator) -> Values:
        """n independent times."""
        check_generator(generator, self.edges.device)
        like = {"dtype": self.edges.dtype, "device": self.edges.device}
        return self.quantile(torch.rand(n, generator=generator, **like))

    def _masses(self) -> Tensor:
        return self.heights * self.edges.diff()


def best_times(edges: Float[Tensor, "e"], second_moments: Float[Tensor, "m"]) -> TimeDensity:
    r"""The density of times with the least variance: $p_t \propto \sqrt{\mathbb E[Y_t^2]}$.

    $Y_t$ is the random integrand at time t, its weight included; for a gradient the square is that
    of its length. The moment is not centred: neither the mean nor the standard deviation will do.

    Args:
        edges: increasing times, m + 1 of them.
        second_moments: $\mathbb E|Y_t|^2 > 0$ between two edges.

    Source: here, by Cauchy and Schwarz; Nichol and Dhariwal (2021) estimate it in training.
    Book: eq:time-importance.
    """
    if not (second_moments > 0).all():
        raise ValueError(
            "second moments are positive, "
            f"got {_first(second_moments, second_moments > 0):g} among them."
        )
    return TimeDensity(edges, second_moments.sqrt())


def _weighed(weight: Curve, t: Time) -> Time:
    value = weight(t)
    if not (value >= 0).all():
        raise ValueError(
            f"the weight of a loss is not negative, got {_first(value, value >= 0):g}; "
            "a negative one rewards errors."
        )
    return value


def _first(values: Tensor, right: Tensor) -> float:
    return values.flatten()[~right.flatten()][0].item()
