"""Claims of chapter 4: two times of one noising run, and the way from rates back to curves."""

import math

import pytest
import scipy.integrate
import torch
from hypothesis import given
from hypothesis import strategies as st

from laws import F64, NOISING, inner_times, points, scalar
from onepath.calculus import rate
from onepath.interpolants import (
    Interpolant,
    bridge,
    cosine,
    edm,
    linear,
    noising_diffusion,
    noising_drift,
    sub_variance_preserving,
    variance_exploding,
    variance_preserving,
)
from onepath.noising import ancestral_posterior, from_noising, noising_kernel
from onepath.verify import expect, mean, refute, worst

SCHEDULES = NOISING | {
    "sub-VP": sub_variance_preserving(0.3, 7.0),
    "cosine": cosine(0.02),
    "EDM": edm(0.05, 9.0, 3.0),
}
every = pytest.mark.parametrize("name", SCHEDULES)
BOTH = [noising_kernel, ancestral_posterior]


def integrated(path, t: float, s: float) -> tuple[float, float]:
    """Scale and variance from s down to t, by integrating f and g over the noising run."""
    f, g = noising_drift(path), noising_diffusion(path)
    log_scale, _ = scipy.integrate.quad(lambda u: f(scalar(u)).item(), t, s)

    def fresh(u):
        kept, _ = scipy.integrate.quad(lambda v: f(scalar(v)).item(), t, u)
        return g(scalar(u)).item() ** 2 * math.exp(2 * kept)

    variance, _ = scipy.integrate.quad(fresh, t, s, limit=100)
    return math.exp(log_scale), variance


# --- the kernel


@every
def test_the_kernel_integrates_the_noising_equation_between_two_times(name):
    path, t, s = SCHEDULES[name], 0.3, 0.65
    scale, variance = noising_kernel(path, scalar(t), scalar(s))
    exact = integrated(path, t, s)
    check = lambda a, v: worst(
        "eq:noising-kernel", torch.stack([a / exact[0], v / exact[1]]).double() - 1, 1e-7
    )
    expect(check(scale, variance))
    refute(check(scale, 2 * variance), "factor: 2")
    refute(check(scale, path.variance(scalar(t)) + 0 * variance), "missing term: all of it fresh")
    if name not in ("VE", "EDM"):
        refute(check(1 / scale, variance), "clock: from noise to data")
        unsquared = path.variance(scalar(t)) - scale * path.variance(scalar(s))
        refute(check(scale, unsquared), "factor: the scale not squared")


@every
def test_two_kernels_in_a_row_are_one(name, generator):
    path = SCHEDULES[name]
    t, s, u = torch.rand(3, 9, generator=generator, dtype=F64).sort(0).values
    (a, v), (b, w), (c, x) = (noising_kernel(path, *p) for p in ((t, s), (s, u), (t, u)))
    expect(worst("eq:noising-kernel", torch.stack([a * b / c - 1, (v + a**2 * w) / x - 1])))
    if name not in ("VE", "EDM"):  # there nothing is shrunk
        refute(worst("eq:noising-kernel", (v + w) / x - 1), "missing term: noise is shrunk")


@every
def test_the_kernel_leads_from_one_marginal_of_the_path_to_the_other(name):
    path, t, s = SCHEDULES[name], scalar(0.2), scalar(0.7)
    scale, variance = noising_kernel(path, t, s)
    expect(worst("eq:noising-kernel", scale * path.alpha(s) - path.alpha(t)))
    arrived = scale**2 * path.variance(s) + variance
    expect(worst("eq:noising-kernel", arrived / path.variance(t) - 1))


def test_close_times_keep_their_digits():
    """The difference of variances would cancel: its relative error at h = 1e-9 is 1e-7."""
    t, h = 0.4, 1e-9
    _, variance = noising_kernel(linear, scalar(t), scalar(t + h))
    s = t + h
    exact = (s - t) * (s + t - 2 * s * t) / s**2  # (1-t)^2 - (t/s)^2 (1-s)^2, factored
    assert variance.item() == pytest.approx(exact, rel=1e-6)


def test_a_run_of_kernels_has_the_law_of_the_process_and_not_of_one_noise(generator):
    path, n = variance_preserving(0.2, 6.0), 20_000
    x1 = 1 + 0.5 * torch.randn(n, 1, generator=generator, dtype=F64)
    x, states = x1, {}
    grid = torch.linspace(1, 0.3, 8, dtype=F64)
    for s, t in zip(grid[:-1], grid[1:]):
        scale, variance = noising_kernel(path, t, s)
        x = scale * x + variance.sqrt() * torch.randn(n, 1, generator=generator, dtype=F64)
        states[round(t.item(), 1)] = x[:, 0]
    early, late = states[0.4], states[0.7]
    a, b = path.alpha(scalar(0.4)), path.alpha(scalar(0.7))
    shared = (a * b * 1.25 + a / b * path.variance(scalar(0.7))).item()
    expect(mean("eq:noising-kernel", early * late, shared))
    one_noise = (a * b * 1.25 + path.sigma(scalar(0.4)) * path.sigma(scalar(0.7))).item()
    refute(mean("eq:noising-kernel", early * late, one_noise), "wrong object: one noise")
    expect(mean("eq:noising-kernel", early * x1[:, 0], a.item() * 1.25))


# --- the posterior in between


@every
def test_the_ancestral_posterior_is_the_regression_on_the_later_state_and_the_data(name):
    """From the joint covariance of (x_s, x_t) given the data, integrated by quadrature."""
    path, t, s = SCHEDULES[name], 0.35, 0.6
    scale, fresh = integrated(path, t, s)
    alpha_t, alpha_s, v = path.alpha(scalar(t)), path.alpha(scalar(s)), path.variance(scalar(s))
    slope = scale * v / (scale**2 * v + fresh)
    exact = torch.stack([slope, alpha_s - slope * alpha_t, v - slope * scale * v])
    ours = torch.stack(ancestral_posterior(path, scalar(t), scalar(s)))
    check = lambda other: worst("eq:ancestral", (other - exact) / exact, 1e-7)
    expect(check(ours))
    for k, what in enumerate(("the state", "the data", "the variance")):
        wrong = ours.clone()
        wrong[k] *= 1.001
        refute(check(wrong), f"factor: {what}")


@every
def test_the_ancestral_posterior_averages_to_what_it_conditions_on(name):
    """Its mean given the data is alpha_s x_1, and its total variance sigma_s^2."""
    path, t, s = SCHEDULES[name], scalar(0.15), scalar(0.8)
    state, datum, variance = ancestral_posterior(path, t, s)
    expect(worst("eq:ancestral", state * path.alpha(t) + datum - path.alpha(s)))
    total = state**2 * path.variance(t) + variance
    expect(worst("eq:ancestral", total / path.variance(s) - 1))
    refute(worst("eq:ancestral", variance / path.variance(s) - 1), "missing term: the state")


def test_the_posterior_of_ddpm_in_its_own_symbols():
    path, t, s = variance_preserving(), scalar(0.5), scalar(0.52)
    abar, before = path.alpha(t).item() ** 2, path.alpha(s).item() ** 2
    beta = 1 - abar / before
    known = (
        math.sqrt(1 - beta) * (1 - before) / (1 - abar),
        math.sqrt(before) * beta / (1 - abar),
        beta * (1 - before) / (1 - abar),
    )
    for ours, theirs in zip(ancestral_posterior(path, t, s), known):
        assert ours.item() == pytest.approx(theirs, rel=1e-12)


# --- ends


@every
def test_both_ends_are_exact_limits(name):
    path, nil, half, one = SCHEDULES[name], scalar(0.0), scalar(0.5), scalar(1.0)
    for t in (nil, half, one):
        assert [v.item() for v in noising_kernel(path, t, t)] == [1, 0]
        assert [v.item() for v in ancestral_posterior(path, t, t)] == [1, 0, 0]
    for t, s in ((nil, half), (half, one), (nil, one)):
        inside = (t.clamp(min=1e-9), s.clamp(max=1 - 1e-9))
        for law in BOTH:
            for at, close in zip(law(path, t, s), law(path, *inside)):
                assert at.isfinite() and (at - close).abs() < 1e-3 * (1 + at.abs())
    if path.alpha(nil) == 0:
        assert noising_kernel(path, nil, half)[0] == 0
        assert ancestral_posterior(path, nil, half)[0] == 0


@every
@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from([torch.float32, F64]), st.integers(1, 3))
def test_shapes_and_dtypes_follow_the_times_and_nothing_is_nan(name, t, s, dtype, n):
    t, s = sorted((t, s))
    single = torch.tensor(t, dtype=dtype), torch.tensor(s, dtype=dtype)
    for law in BOTH:
        alone = law(SCHEDULES[name], *single)
        for early, late in ((single[0].expand(n), single[1]), (single[0], single[1].expand(n))):
            for a, b in zip(law(SCHEDULES[name], early, late), alone):
                assert a.dtype == b.dtype == dtype and b.shape == () and a.shape == (n,)
                assert (a == b).all() and (b >= 0) and b.isfinite()


# --- from rates to curves


@every
def test_rates_give_back_the_schedule(name):
    path = SCHEDULES[name]
    start = path.variance(scalar(1.0)).item()
    again = from_noising(noising_drift(path), noising_diffusion(path), start)
    t = torch.linspace(0.05, 1, 12, dtype=F64)
    ratios = torch.stack(
        [again.alpha(t) / path.alpha(t), (again.variance(t) + 1) / (path.variance(t) + 1)]
    )
    expect(worst("eq:schedule-inverse", ratios - 1))
    if start:
        none = from_noising(noising_drift(path), noising_diffusion(path))
        gap = (none.variance(t) - path.variance(t)) / path.variance(t)
        refute(worst("eq:schedule-inverse", gap), "missing term: the noise at the start")


def test_curves_of_rates_that_have_no_name():
    """By the moment equations, solved by scipy; drift and diffusion have different shapes."""
    f = lambda t: -1 - torch.sin(5 * t)
    g = lambda t: 0.5 + t**2
    path = from_noising(f, g, 0.3)

    def moments(r, y):
        t = scalar(1 - r)
        return [f(t).item() * y[0], 2 * f(t).item() * y[1] + g(t).item() ** 2]

    r = [0.0, 0.2, 0.7, 1.0]
    exact = scipy.integrate.solve_ivp(
        moments, (0, 1), [1.0, 0.3], t_eval=r, rtol=1e-11, atol=1e-13, method="DOP853"
    )
    alpha, variance = torch.from_numpy(exact.y)
    t = 1 - torch.tensor(r, dtype=F64)
    check = lambda p: worst(
        "eq:schedule-inverse", torch.stack([p.alpha(t) - alpha, p.variance(t) - variance])
    )
    expect(check(path))
    expect(worst("eq:schedule-inverse", path.sigma(t) ** 2 - variance))
    refute(check(from_noising(f, lambda t: g(t) ** 2, 0.3)), "factor: g in place of g²")
    refute(check(from_noising(lambda t: 2 * f(t), g, 0.3)), "factor: 2f")
    refute(check(from_noising(lambda t: f(1 - t), g, 0.3)), "clock: rates read at r")
    refute(check(from_noising(f, g)), "missing term: the noise at the start")


def test_rates_of_the_curves_are_the_rates_they_were_made_of():
    f, g = lambda t: -2 + t, lambda t: 1 + 0.5 * t.cos()
    path = from_noising(f, g)
    for t in (scalar(0.4), torch.tensor([0.1, 0.5, 0.9], dtype=F64)):
        expect(worst("eq:noising", noising_drift(path)(t) - f(t)))
        expect(worst("eq:noising-diffusion", noising_diffusion(path)(t) - g(t)))
        assert path.alpha(t).shape == path.variance(t).shape == t.shape


def test_a_constructed_schedule_is_one_and_zero_at_the_data(generator):
    path = from_noising(lambda t: -0.5 * (1 + t), lambda t: (1 + t).sqrt())
    assert path.alpha(scalar(1.0)) == 1 and path.variance(scalar(1.0)) == 0
    x = points(3, generator)
    assert torch.equal(path(scalar(1.0), 0 * x, x), x)
    half = path.alpha(torch.tensor(0.5))
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(path.alpha(scalar(0.5)).item(), rel=1e-6)
    t = inner_times(4, generator)
    expect(worst("eq:vp", path.alpha(t) ** 2 + path.variance(t) - 1))
    assert rate(path.alpha, t).shape == (4,)


# --- bad input


@pytest.mark.parametrize("law", BOTH)
def test_two_times_in_the_wrong_order_are_refused(law):
    with pytest.raises(
        ValueError, match="from the later time to the earlier, t <= s, got t - s up to 0.2"
    ):
        law(linear, scalar(0.7), scalar(0.5))
    with pytest.raises(ValueError, match="t <= s"):
        law(linear, torch.tensor([0.1, 0.7], dtype=F64), scalar(0.5))
    turned = Interpolant(sigma=lambda t: t, alpha=lambda t: 1 - t)
    with pytest.raises(ValueError, match="does not fall with t, got h = -.*turned"):
        law(turned, scalar(0.2), scalar(0.5))
    with pytest.raises(ValueError, match="only without latent noise"):
        law(bridge(), scalar(0.2), scalar(0.5))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        law(linear, scalar(-0.2), scalar(0.5))


def test_rates_that_are_infinite_are_refused_where_it_matters():
    path = from_noising(noising_drift(linear), noising_diffusion(linear))
    assert path.alpha(scalar(0.1)).item() == pytest.approx(0.1, rel=1e-9)
    for curve in (path.alpha, path.sigma, path.variance):
        with pytest.raises(
            ValueError,
            match="finite and smooth between t and 1; the quadrature is off by .* at t = 0.0001",
        ):
            curve(torch.tensor([0.5, 1e-4], dtype=F64))
        with pytest.raises(ValueError, match="at t = 0. Stop before the singular end"):
            curve(scalar(0.0))
    kinked = from_noising(lambda t: -(t - 0.43).abs(), torch.ones_like)
    with pytest.raises(ValueError, match="finite and smooth"):
        kinked.variance(scalar(0.0))


@pytest.mark.parametrize("t", [-0.01, 1.01, math.nan])
def test_times_outside_the_unit_interval_are_refused(t):
    path = from_noising(lambda t: -t, torch.ones_like)
    with pytest.raises(ValueError, match=r"times lie in \[0, 1\], got"):
        path.alpha(scalar(t))


@pytest.mark.parametrize("variance", [-0.1, math.inf, math.nan])
def test_a_start_with_less_than_no_noise_is_refused(variance):
    with pytest.raises(ValueError, match="variance at t = 1 is nonnegative and finite, got"):
        from_noising(lambda t: -t, torch.ones_like, variance)


def test_the_named_schedules_are_the_ones_of_the_papers():
    """VE and EDM leave the data alone, so that their kernel has scale 1 and adds variances."""
    for path in (variance_exploding(0.1, 3.0), edm(0.1, 3.0)):
        scale, variance = noising_kernel(path, scalar(0.2), scalar(0.6))
        assert scale == 1
        added = path.sigma(scalar(0.2)) ** 2 - path.sigma(scalar(0.6)) ** 2
        expect(worst("eq:noising-kernel", variance - added))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize(
    "path", [edm(), variance_exploding(1.0, 1.1), variance_preserving(), linear]
)
def test_neighbouring_times_are_in_order_whatever_rounding_says(path, dtype):
    t = torch.linspace(0, 1, 2001, dtype=dtype)[:-1]
    s = torch.nextafter(t, torch.ones_like(t))
    for part in (*noising_kernel(path, t, s), *ancestral_posterior(path, t, s)):
        assert part.isfinite().all() and (part >= 0).all() and part.dtype == dtype
    falls = Interpolant(sigma=torch.ones_like, alpha=lambda t: 0.5 - (t - 0.5) ** 3)
    with pytest.raises(ValueError, match="does not fall with t, got h = -"):
        noising_kernel(falls, torch.tensor(0.2, dtype=dtype), torch.tensor(0.21, dtype=dtype))
