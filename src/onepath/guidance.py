r"""Conditional sampling: guidance, exact conditioning, and the weights that repair what is inexact.

Let $\rho_t$ be the densities of a Gaussian path and $k_t(x)>0$ a function. Guiding a sampler by $k$
means to replace the score $s$ by $s+\nabla\log k$ in every formula. The guided sampler follows
$\rho_tk_t$ if $k_t(x)=\mathbb E[k_1(X_1)|X_t=x]$ along the reversal of the noising: then it is
conditioning, Doob's transform. In all other cases, classifier-free guidance among them, its
particles must carry weights, whose rate of growth is the `excess` of $k$. `inverse` has the $k$ of
linear measurements. Conditioning on what happens before t = 1 is not covered.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .calculus import gradient, zero
from .dynamics import Dynamics, mean_rate
from .fields import Row, coefficients, gaussian_path, score
from .interpolants import Interpolant
from .networks import Labels, given, unconditional
from .shapes import Curve, Field, LogDensity, Points, Scalar, Time, Values, per_point
from .solvers import Draw, Step


def guided(conditional: Field, unconditional: Field, w: float) -> Field:
    r"""$(1+w)\,F(\cdot|y) - w\,F$, classifier-free guidance of strength w.

    The fields are both scores, both velocities, or both of any other row of the table in `fields`:
    rows are affine in the score with coefficients that do not know the data, and the weights sum to
    1, so the same combination guides all of them. w = 0 is conditional, w = -1 unconditional; other
    authors call 1 + w the scale. Raises ValueError unless w is finite.

    Source: Ho and Salimans (2022), Classifier-free diffusion guidance.
    Book: eq:cfg.
    """
    _check_strength(w)
    return lambda t, x: (1 + w) * conditional(t, x) - w * unconditional(t, x)


def classifier_free(net: nn.Module, y: Labels, w: float) -> Field:
    """`guided` for one network that has learned both branches, by dropping labels in training.

    Raises ValueError for a network without classes, which has no branch to guide, for labels that
    are not classes, and unless w is finite. Whether labels were dropped in training cannot be seen
    from a network: without it the branch for "no class" is what it was before training.

    Source: Ho and Salimans (2022), Classifier-free diffusion guidance.
    Book: eq:cfg.
    """
    if not getattr(net, "classes", 0):
        raise ValueError(
            "guidance needs a network with classes and a label for none, got one with classes = 0; "
            "build it with classes and train it with drop_labels."
        )
    if y.numel() and not 0 <= y.min() <= y.max() < net.classes:
        raise ValueError(
            f"guidance asks for classes 0 to {net.classes - 1}, got labels {y.min().item()} to "
            f'{y.max().item()}; {net.classes} means "no class" and is the other branch.'
        )
    return guided(given(net, y), unconditional(net), w)


def classifier_guided(
    field: Field, log_h: LogDensity, path: Interpolant, row: Row, strength: float = 1.0
) -> Field:
    r"""The field after the score was moved by $\nabla\log h$, `strength` times.

    $$ s + \nabla\log h,\quad v + \tfrac12g^2\,\nabla\log h,\quad
       \hat x + \tfrac{\sigma^2}{\alpha}\nabla\log h,\quad
       \hat\varepsilon - \sigma\,\nabla\log h . $$

    With $h_t(x)=p_t(y|x)$ and strength 1 these are the fields of the path that leads to the data
    given y; strength 1 + w is classifier guidance, the same as `guided`.

    Args:
        log_h: up to a constant that may depend on time; differentiated in x.
        row: what `field` is, a row of the table in `fields`.

    Raises ValueError unless the strength is finite, and for a path with latent noise; at times
    where the factor is infinite, such as $\tfrac12g^2$ where $\alpha=0$.

    Source: Dhariwal and Nichol (2021), Diffusion models beat GANs on image synthesis.
    Book: eq:bayes-score, eq:bayes-fields.
    """
    _check_strength(strength)
    path = gaussian_path(path)

    def moved(t: Time, x: Points) -> Points:
        _, factor = coefficients(path, score, row, t)
        return field(t, x) + strength * per_point(factor) * gradient(log_h, t, x)

    return moved


def doob(dynamics: Dynamics, log_h: LogDensity) -> Dynamics:
    r"""The dynamics conditioned on its end, $b + \eta^2\,\nabla\log h$ with the same noise.

    Exact if $h_t(x)=\mathbb E[h_1(X_1)|X_t=x]$ along *this* dynamics, that is where its `excess`
    is zero, and if the run starts from $\rho_0h_0/\int\rho_0h_0$. The whole $\eta^2$: one half
    moves the velocity, one half the score. $p_t(y|x)$ of a noising path is the h of its reversal
    ($\eta=g$) and of no other member of the family.

    Raises ValueError without noise: the end of a flow is decided at its start.

    Source: Doob (1957), Conditional Brownian motion and the boundary limits of harmonic functions.
    Book: eq:doob.
    """
    if dynamics.eta is zero:
        raise ValueError(
            "Doob's transform steers by the noise, got a dynamics without; a flow is conditioned "
            "by its start, or by the velocity of classifier_guided."
        )

    def drift(t: Time, x: Points) -> Points:
        return dynamics.drift(t, x) + per_point(dynamics.eta(t) ** 2) * gradient(log_h, t, x)

    return Dynamics(drift, dynamics.eta)


def excess(reversal: Dynamics, log_k: LogDensity) -> Scalar:
    r"""$r = (\partial_tk + Lk)/k$, the rate at which the density that was meant outgrows the runs.

    $$ r = \partial_t\log k + b\cdot\nabla\log k
         + \tfrac12\eta^2\big(\Delta\log k + |\nabla\log k|^2\big) . $$

    L is the generator of the reversal of the noising, whatever noise the sampler has. Zero if and
    only if k is a martingale along the reversal. Costs d + 1 backward passes.

    Args:
        reversal: $b = v + \tfrac12g^2s$ and $\eta = g$, of the path that is guided.

    Source: here.
    Book: eq:excess.
    """
    rate = lambda t, x: mean_rate(log_k, reversal, t, x)
    return lambda t, x: rate(t, x) + 0.5 * (reversal.eta(t) * _norm(log_k, t, x)) ** 2


def guidance_excess(conditional: Field, unconditional: Field, g: Curve, w: float) -> Scalar:
    r"""$\tfrac12g_t^2\,w(1+w)\,|s_t(x|y)-s_t(x)|^2$: the `excess` of classifier-free guidance.

    Needs no derivative. The ½ is Itô's, and w(1+w) is twice a binomial coefficient: it vanishes
    for w = 0 and w = -1, where guidance is exact, and is negative in between.

    Args:
        conditional, unconditional: scores.
        g: the noise of the reversal, `noising_diffusion(path)`.

    Raises ValueError unless w is finite.

    Source: here; Skreta et al. (2025), Feynman-Kac correctors in diffusion, for weights of this
    kind.
    Book: eq:cfg-weight.
    """
    _check_strength(w)

    def rate(t: Time, x: Points) -> Values:
        apart = conditional(t, x) - unconditional(t, x)
        return 0.5 * w * (1 + w) * g(t) ** 2 * (apart**2).sum(1)

    return rate


def weighted(step: Step, rate: Scalar, resample_below: float = 0.5) -> Step:
    r"""A step for (x, a): `step` moves x, and the log-weight a, the last column, grows by
    $\int r_t(X_t)\,dt$.

    The integral is taken by the trapezoid rule. Where the effective number of particles falls
    below `resample_below` times their number, all are resampled by `systematic`, and each gets the
    mean weight, so that the mean of $e^a$ keeps its meaning, the growth of $\int\rho_tk_t$.
    Particles of such a run are not independent; with `resample_below` = 0 they are.

    Raises ValueError for a share outside [0, 1], and in its first step for a step that keeps a
    memory, because resampling would mix up whose it is.

    Source: Del Moral (2004), Feynman-Kac formulae.
    Book: eq:steering.
    """
    if not 0 <= resample_below <= 1:
        raise ValueError(f"a share of particles lies in [0, 1], got {resample_below}.")

    def both(
        state: Tensor, t: Tensor, t_next: Tensor, draw: Draw, memory: object
    ) -> tuple[Tensor, object]:
        x, a = state[:, :-1], state[:, -1]
        before = rate(t, x) if memory is None else memory
        x, kept = step(x, t, t_next, lambda: draw()[:, :-1], None)
        if kept is not None:
            raise ValueError(
                "resampling would mix up the memories of particles, got a step that keeps one; "
                "use a single-step method."
            )
        after = rate(t_next, x)
        a = a + 0.5 * (t_next - t) * (before + after)
        if effective_size(a) < resample_below * len(a):
            chosen = systematic(a.softmax(0), torch.special.ndtr(draw()[0, -1]))
            x, after = x[chosen], after[chosen]
            a = (a.logsumexp(0) - torch.tensor(len(a)).log()).expand(len(a))
        return torch.cat([x, a[:, None].to(x)], dim=1), after

    both.eta = getattr(step, "eta", zero)
    both.uses_both_ends = getattr(step, "uses_both_ends", True)
    both.draws = resample_below > 0 or getattr(step, "draws", False)
    return both


def unweighted(x: Points) -> Float[Tensor, "n e"]:
    """The state in which a run of `weighted` starts: e = d + 1, all log-weights 0."""
    return torch.cat([x, x.new_zeros(len(x), 1)], dim=1)


def effective_size(log_weights: Values) -> float:
    r"""$(\sum_iw_i)^2/\sum_iw_i^2$: n for equal weights, 1 where one particle has all the weight.

    Raises ValueError for weights that are nan or infinite.

    Source: Kong, Liu and Wong (1994), Sequential imputations and Bayesian missing data problems.
    Book: eq:effective-size.
    """
    if not log_weights.isfinite().all():
        raise ValueError(
            f"log-weights are finite, got {int((~log_weights.isfinite()).sum())} that are not; "
            "stop the grid before the end where the rate is infinite, or take shorter steps."
        )
    return (1 / (log_weights.softmax(0) ** 2).sum()).item()


def systematic(weights: Values, u: Float[Tensor, ""]) -> Int[Tensor, "n"]:
    r"""n indices, i about $nw_i$ times: the points $(j+u)/n$ of a comb, read off the weights.

    With u uniform in [0, 1] the mean count of i is exactly $nw_i$, and no count is off by 1 or
    more. Raises ValueError unless the weights are nonnegative and sum to 1.

    Source: Kitagawa (1996), Monte Carlo filter and smoother.
    Book: eq:systematic.
    """
    n, total = len(weights), weights.sum().item()
    if not (weights.min() >= 0 and abs(total - 1) <= 10 * n * torch.finfo(weights.dtype).eps):
        raise ValueError(
            f"weights are nonnegative and sum to 1, got sum {total:.9g} and {weights.min():.3g} "
            "as the least; softmax makes them from log-weights."
        )
    comb = (torch.arange(n, device=weights.device) + u.to(weights)) / n
    return torch.searchsorted(weights.cumsum(0), comb, right=True).clamp(max=n - 1)


def _norm(function: Scalar, t: Time, x: Points) -> Values:
    return gradient(function, t, x).norm(dim=1)


def _check_strength(w: float) -> None:
    if not abs(w) < float("inf"):
        raise ValueError(f"the strength of guidance is a finite number, got {w}.")
