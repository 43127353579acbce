r"""Control problems with a closed answer.

If the uncontrolled drift is $a_tx$ with a number $a_t$, the end given the state is Gaussian, and if
moreover $e^{-\Phi}$ is a multiple of a Gaussian mixture, its mean over the end is a mixture in x at
every time. That covers the linear-quadratic problem, rewards with several modes, and sampling from
a density whose constant nobody knows. On a finite set of states every problem of this kind is a
linear recursion. Running costs that depend on the state are not covered, except on finite sets.
"""

from dataclasses import dataclass
from math import inf, log, pi

import torch
from jaxtyping import Float
from torch import Tensor

from .calculus import constant, rate
from .dynamics import Dynamics
from .interpolants import Interpolant, noising_diffusion, noising_drift
from .measures import Mixture, check_points, gaussian, log_normals, offsets
from .noising import noising_kernel
from .shapes import Curve, Points, Time, Values, per_point


@dataclass(frozen=True)
class LinearProcess:
    r"""$dX_t = a_tX_t\,dt + \eta_t\,dW_t$, with the law of its end given a state.

    $$ X_1\mid X_t=x\;\sim\;\mathcal N(m_tx,\,\omega_tI), \qquad
       \dot m = -a\,m, \quad \dot\omega = -m^2\eta^2, \quad m_1 = 1,\ \omega_1 = 0 . $$

    Args:
        pull: the curve a, negative where the process is drawn to the origin.
        mean: the curve m. Where it is 0 the end has forgotten the state.
        variance: the curve $\omega$.

    Source: here; variation of constants.
    Book: eq:linear-end.
    """

    pull: Curve
    eta: Curve
    mean: Curve
    variance: Curve

    @property
    def dynamics(self) -> Dynamics:
        """Drift and noise level. Its drift raises ValueError where the pull is infinite."""

        def drift(t: Time, x: Points) -> Points:
            pull = self.pull(t)
            if not pull.isfinite().all():
                raise ValueError(
                    "the pull of a linear process is finite where it is used, got "
                    f"{pull.reshape(-1)[0].item():g}; start the grid later."
                )
            return per_point(pull) * x

        return Dynamics(drift, self.eta)


def brownian(eta: float = 1.0) -> LinearProcess:
    """Noise of a constant level and no drift. Raises ValueError unless the level is positive."""
    _check_positive("a noise level", eta)
    variance = lambda t: eta**2 * (1 - t)
    return LinearProcess(constant(0.0), constant(eta), constant(1.0), variance)


def relaxation(pull: float, eta: float = 1.0) -> LinearProcess:
    r"""$dX = -kX\,dt + \eta\,dW$, which forgets its start like $e^{-k(1-t)}$.

    Raises ValueError unless pull and level are positive.
    """
    _check_positive("a pull", pull)
    _check_positive("a noise level", eta)
    mean = lambda t: (-pull * (1 - t)).exp()
    variance = lambda t: -(eta**2) * torch.expm1(-2 * pull * (1 - t)) / (2 * pull)
    return LinearProcess(constant(-pull), constant(eta), mean, variance)


def indifferent(path: Interpolant) -> LinearProcess:
    r"""The noising drift with its sign turned and the noise g: the part of the reversal that does
    not know the data.

    Raises ValueError as `noising_kernel` and `noising_drift` do; infinite where $\alpha_t=0$.

    Source: Berner, Richter and Ullrich (2024).
    Book: eq:reversal-value.
    """
    f, g = noising_drift(path), noising_diffusion(path)
    kernel = lambda t: noising_kernel(path, t, torch.ones_like(t))
    variance = lambda t: kernel(t)[1] / kernel(t)[0] ** 2
    return LinearProcess(lambda t: -f(t), g, lambda t: 1 / kernel(t)[0], variance)


def gaussian_reversal(path: Interpolant, variance: float = 1.0) -> LinearProcess:
    r"""The reversal of the noising whose data are $\mathcal N(0, s^2I)$.

    With $S_t = \alpha_t^2s^2 + \sigma_t^2$ the pull is $\tfrac12\dot S/S - \tfrac12g^2/S$, half
    from the velocity and half from the score. If $\alpha_0=0$ its end does not depend on its
    start. Raises ValueError unless the variance is positive; infinite where $\alpha_t=0$.

    Source: here; for its use Domingo-Enrich, Drozdzal, Karrer and Chen (2024).
    Book: eq:memoryless.
    """
    _check_positive("a variance", variance)
    g = noising_diffusion(path)
    total = lambda t: path.alpha(t) ** 2 * variance + path.variance(t)
    pull = lambda t: 0.5 * (rate(total, t) - g(t) ** 2) / total(t)

    def end(t: Time) -> tuple[Time, Time]:
        last = torch.ones_like(t)
        scale, blur = noising_kernel(path, t, last)
        return scale * total(last) / total(t), blur * total(last) / total(t)

    return LinearProcess(pull, g, lambda t: end(t)[0], lambda t: end(t)[1])


@dataclass(frozen=True)
class MixtureControl:
    r"""The control problem with $e^{-\Phi} = e^\ell\sum_kw_k\,\mathcal N(\mu_k,C_k)$, solved.

    $$ \psi_t(x) = e^\ell\sum_kw_k\,\mathcal N\big(m_tx;\,\mu_k,\,C_k+\omega_tI\big), \qquad
       V = -\log\psi, \quad u^* = \eta\,\nabla\log\psi . $$

    Args:
        log_scale: $\ell$; the mass of $e^{-\Phi}$ is $e^\ell$.

    Source: here; a Gaussian integral.
    Book: eq:mixture-value.
    """

    process: LinearProcess
    reward: Mixture
    log_scale: float = 0.0

    def __post_init__(self) -> None:
        if not abs(self.log_scale) < inf:
            raise ValueError(f"the logarithm of the mass is finite, got {self.log_scale}.")

    def terminal(self, x: Points) -> Values:
        r"""$\Phi(x)$."""
        return -self.log_scale - self.reward.log_prob(x)

    def log_psi(self, t: Time, x: Points) -> Values:
        r"""$\log\psi_t(x) = -V_t(x)$."""
        return self._log_parts(t, x).logsumexp(1) + self.log_scale

    def value(self, t: Time, x: Points) -> Values:
        """V, the least cost from (t, x) on."""
        return -self.log_psi(t, x)

    def control(self, t: Time, x: Points) -> Points:
        r"""$u^*_t(x) = \eta_tm_t\sum_kp_k\,(C_k+\omega_tI)^{-1}(\mu_k-m_tx)$, with $p_k$ the share
        of component k in $\psi_t(x)$."""
        share = self._log_parts(t, x).softmax(1)
        m, covs = self._spread(t)
        away = torch.linalg.solve(covs, offsets(m * x, self._centres(covs)))
        columns = away.permute(0, 3, 1, 2).reshape(len(x), -1, x.shape[1])
        eta = per_point(self.process.eta(t).to(x))
        return -eta * m * torch.einsum("nk,nkd->nd", share, columns)

    def end(self, x: Float[Tensor, "d"]) -> Mixture:
        r"""The law of the end of the best runs from x at t = 0, $\propto\mathcal
        N(y;m_0x,\omega_0I)\,e^{-\Phi(y)}$."""
        start = torch.zeros((), dtype=x.dtype, device=x.device)
        m, covs = self._spread(start)
        v, C = self.process.variance(start).to(x), self.reward.covs
        gain = torch.linalg.solve(covs[0], C).mT  # C (C + v I)^-1, the pull of the start
        means = self.reward.means + torch.einsum("kde,ke->kd", gain, m * x - self.reward.means)
        after = v * gain
        weights = self._log_parts(start, x[None])[0].softmax(0)
        return Mixture(weights, means, 0.5 * (after + after.mT))

    def _spread(self, t: Time) -> tuple[Tensor, Float[Tensor, "b k d d"]]:
        """m, ready to multiply points, and the covariances of the components of psi."""
        m, v = (
            curve(t).to(self.reward.means) for curve in (self.process.mean, self.process.variance)
        )
        eye = torch.eye(self.reward.dim).to(self.reward.means)
        return per_point(m), self.reward.covs[None] + v.reshape(-1, 1, 1, 1) * eye

    def _centres(self, covs: Tensor) -> Float[Tensor, "b k d"]:
        return self.reward.means[None].expand(len(covs), -1, -1)

    def _log_parts(self, t: Time, x: Points) -> Float[Tensor, "n k"]:
        check_points(x, self.reward.means)
        m, covs = self._spread(t)
        return self.reward.weights.log() + log_normals(m * x, self._centres(covs), covs)


def quadratic(process: LinearProcess, c: float, like: Points) -> MixtureControl:
    r"""The linear-quadratic problem with the end cost $\Phi(x) = \tfrac12c|x|^2$.

    Args:
        like: points of the space, for dimension, dtype and device.

    Raises ValueError unless c is positive and finite.

    Source: here; $e^{-\Phi}$ is $(2\pi/c)^{d/2}$ times a Gaussian density.
    Book: eq:lq-value.
    """
    _check_positive("the weight of a quadratic cost", c)
    d = like.shape[1]
    law = gaussian(torch.zeros(d).to(like), torch.eye(d).to(like) / c)
    return MixtureControl(process, law, 0.5 * d * log(2 * pi / c))


def over_standard(law: Mixture) -> tuple[Mixture, float]:
    r"""(reward, log-scale) with $p/\mathcal N(0,I) = e^\ell\cdot$reward, for a mixture p.

    As $e^{-\Phi}$ it leads a process with the end $\mathcal N(0,I)$ to p. Component by component

    $$ \Sigma_k = (C_k^{-1} - I)^{-1}, \qquad \nu_k = \Sigma_kC_k^{-1}\mu_k . $$

    Raises ValueError unless all covariances are less than I: else the quotient is no mixture.

    Source: here; a quotient of Gaussian densities.
    Book: eq:normaliser.
    """
    eye, C = torch.eye(law.dim).to(law.means), law.covs
    widest = torch.linalg.eigvalsh(C).max().item()
    if widest >= 1:
        raise ValueError(
            "a mixture over N(0, I) is a mixture if its covariances are less than I, "
            f"got an eigenvalue of {widest:g}; change the scale of the space."
        )
    # (C^-1 - I)^-1 = (I - C)^-1 C, which loses no digits where C is small
    covs, centres = (
        torch.linalg.solve(eye - C, C),
        torch.linalg.solve(eye - C, law.means[..., None]),
    )
    centres = centres[..., 0]
    at = lambda mean, cov: log_normals(centres, mean[:, None], cov[:, None])[:, 0]
    base = at(torch.zeros_like(centres), eye.expand(len(C), -1, -1))
    logs = law.weights.log() + at(law.means, C) - base - at(centres, covs)
    return Mixture(logs.softmax(0), centres, 0.5 * (covs + covs.mT)), logs.logsumexp(0).item()


def linearly_solvable(
    passive: Float[Tensor, "k k"], cost: Float[Tensor, "k"], last: Float[Tensor, "k"], steps: int
) -> tuple[Float[Tensor, "m k"], Float[Tensor, "s k k"]]:
    r"""(log z, policies): the least costs $-\log z_n$ on a finite set of states, and how to act.

    Whoever is at i pays $q_i$, chooses a law $\pi_n(\cdot|i)$ for the next state and pays its
    relative entropy to the passive $p(\cdot|i)$. Then

    $$ z_n(i) = e^{-q_i}\sum_jp(j|i)\,z_{n+1}(j), \qquad
       \pi^*_n(j|i) \propto p(j|i)\,z_{n+1}(j) . $$

    Args:
        passive: rows sum to 1; entry (i, j) is the probability of j after i.
        cost: q, of every step.
        last: the cost of the last state; infinite where it is forbidden.
        steps: s; there is one row of log z more.

    Raises ValueError unless rows of `passive` are probabilities, shapes agree and steps >= 1.

    Source: Todorov (2006), Linearly-solvable Markov decision problems.
    Book: eq:linearly-solvable.
    """
    k = len(passive)
    if passive.shape != (k, k) or cost.shape != (k,) or last.shape != (k,) or steps < 1:
        shapes = f"{tuple(passive.shape)}, {tuple(cost.shape)}, {tuple(last.shape)}, {steps} steps"
        raise ValueError(f"k states have (k, k) chances, k costs and k last costs, got {shapes}.")
    if not (passive.min() >= 0 and torch.allclose(passive.sum(1), passive.new_ones(k))):
        raise ValueError(
            "rows of passive chances are nonnegative and sum to 1, got sums from "
            f"{passive.sum(1).min().item():g} to {passive.sum(1).max().item():g}; divide by them."
        )
    log_z, policies = [-last], []
    for _ in range(steps):
        ahead = passive.log() + log_z[-1]
        policies.append(ahead.softmax(1))
        log_z.append(ahead.logsumexp(1) - cost)
    return torch.stack(log_z[::-1]), torch.stack(policies[::-1])


def _check_positive(what: str, value: float) -> None:
    if not 0 < value < inf:
        raise ValueError(f"{what} is positive and finite, got {value}.")
