"""Claims of chapter 4: interpolants and schedules, against quadrature and moment equations."""

import math

import pytest
import scipy.integrate
import torch
from hypothesis import given
from hypothesis import strategies as st

from laws import F64, INTERPOLANTS, NOISING, inner_times, points, scalar
from onepath.calculus import rate, zero
from onepath.interpolants import (
    Interpolant,
    bridge,
    cosine,
    edm,
    half_log_snr,
    linear,
    noising_diffusion,
    noising_drift,
    sub_variance_preserving,
    trigonometric,
    variance_exploding,
    variance_preserving,
)
from onepath.shapes import per_point
from onepath.verify import expect, mean, refute, worst

NAMED = NOISING | {
    "sub-VP": sub_variance_preserving(),
    "sub-VP, rough": sub_variance_preserving(0.3, 7.0),
    "cosine": cosine(),
    "cosine, wide": cosine(0.4),
    "EDM": edm(),
    "EDM, to zero": edm(0.0, 3.0, 2.5),
}
INTERPOLANTS = INTERPOLANTS | NAMED
NOISING = NAMED

every = pytest.mark.parametrize("name", INTERPOLANTS)
every_noising = pytest.mark.parametrize("name", NOISING)


def value(curve, t: float) -> float:
    return curve(scalar(t)).item()


@pytest.mark.parametrize("path", [linear, trigonometric, bridge(0.7)])
def test_an_interpolant_starts_at_its_base_and_ends_at_its_target_exactly(path, generator):
    x0, x1, z = (points(4, generator) for _ in range(3))
    assert torch.equal(path(scalar(0.0), x0, x1, z), x0)
    assert torch.equal(path(scalar(1.0), x0, x1, z), x1)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        one = torch.ones((), dtype=dtype)
        assert path.sigma(one) == 0 and path.alpha(0 * one) == 0


def test_the_state_is_what_its_equation_says(generator):
    x0, x1, z, t = *(points(5, generator) for _ in range(3)), inner_times(5, generator)
    path = INTERPOLANTS["own latent noise"]
    rows = []
    for s, a, b, c in zip(t.tolist(), x0, x1, z):
        rows.append((1 - s**2) * a + s**3 * b + math.sqrt(0.4 * s) * (1 - s) * c)
    expect(worst("eq:interpolant", path(t, x0, x1, z) - torch.stack(rows)))
    loop = torch.cat([path(t[i : i + 1], x0[[i]], x1[[i]], z[[i]]) for i in range(5)])
    assert torch.equal(path(t, x0, x1, z), loop)
    refute(
        worst("eq:interpolant", path(1 - t, x0, x1, z) - torch.stack(rows)),
        "clock: base and target exchanged",
    )
    without = Interpolant(path.sigma, path.alpha)
    refute(
        worst("eq:interpolant", without(t, x0, x1) - torch.stack(rows)),
        "missing term: the latent noise",
    )


@every
def test_second_moments_of_an_interpolant_add(name, generator):
    path, t, n = INTERPOLANTS[name], scalar(0.35), 20_000
    x0, x1, z = torch.randn(3, n, 2, generator=generator, dtype=F64)
    x1 = 2 * x1
    x = path(t, x0, x1, z)
    exact = (path.variance(t) + 4 * path.alpha(t) ** 2 + path.gamma2(t)).item()
    expect(mean("eq:interpolant", x[:, 0] ** 2, exact))
    refute(mean("eq:interpolant", x[:, 0] ** 2, 1.2 * exact), "factor: 1.2")
    expect(mean("eq:interpolant", x[:, 1] * x0[:, 1], path.sigma(t).item()))
    expect(mean("eq:interpolant", x[:, 1] * x1[:, 1], 4 * path.alpha(t).item()))


@every
@given(st.floats(0, 1), st.sampled_from([torch.float32, F64]), st.integers(0, 3))
def test_curves_follow_the_shape_and_dtype_of_time(name, t, dtype, n):
    path = INTERPOLANTS[name]
    for time in (torch.tensor(t, dtype=dtype), torch.full((n,), t, dtype=dtype)):
        for curve in (path.sigma, path.alpha, path.gamma2, path.variance):
            a = curve(time)
            assert a.shape == time.shape and a.dtype == dtype and a.isfinite().all()
            assert (a >= 0).all()
        assert torch.allclose(path.variance(time), path.sigma(time) ** 2, atol=1e-5, rtol=1e-5)


@every
@given(st.floats(0.001, 0.99), st.floats(1e-3, 1e-2))
def test_data_grow_and_noise_shrinks(name, t, h):
    path = INTERPOLANTS[name]
    assert value(path.sigma, t + h) < value(path.sigma, t)
    shrunk = torch.tensor([value(path.alpha, t), value(path.alpha, t + h)])
    assert shrunk[1] > shrunk[0] or (shrunk == 1).all()
    if name in NOISING:
        snr = half_log_snr(path, torch.tensor([t, t + h], dtype=F64))
        assert snr[1] > snr[0]


# --- the named schedules


@pytest.mark.parametrize("low, high", [(0.1, 20.0), (0.3, 7.0), (0.0, 2.0), (1.0, 1.0)])
@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 1.0])
def test_variance_preserving_integrates_its_rate_of_noising(low, high, t):
    path = variance_preserving(low, high)
    total, _ = scipy.integrate.quad(lambda r: low + r * (high - low), 0, 1 - t)
    alpha = math.exp(-total / 2)
    check = lambda a: worst("eq:vp", path.alpha(scalar(t)) - a)
    expect(check(alpha))
    expect(worst("eq:vp", path.variance(scalar(t)) - (1 - alpha**2)))
    expect(worst("eq:vp", path.sigma(scalar(t)) ** 2 - (1 - alpha**2)))
    if 0 < t < 1:
        refute(check(alpha**2), "factor: the half in the exponent")


def test_variance_preserving_has_the_published_defaults():
    """Worked values: alpha_0 of the docstring, g² = 10.647 at noising time 0.53."""
    path = variance_preserving()
    assert value(path.alpha, 0.0) == pytest.approx(0.0066, abs=5e-5)
    assert value(noising_diffusion(path), 0.47) ** 2 == pytest.approx(10.647, abs=1e-9)


def test_variance_exploding_is_geometric_between_its_ends():
    path = variance_exploding()
    assert value(path.sigma, 0.0) == pytest.approx(50) and value(path.alpha, 0.3) == 1
    assert value(path.sigma, 1.0) == pytest.approx(0.01)
    t = torch.linspace(0, 1, 11, dtype=F64)
    ratios = path.sigma(t)[1:] / path.sigma(t)[:-1]
    expect(worst("eq:ve", ratios - (0.01 / 50) ** 0.1))
    refute(worst("eq:ve", 1 / ratios - (0.01 / 50) ** 0.1), "clock: the noise grows")


@pytest.mark.parametrize("tau", [0.3, 2.0])
def test_the_bridge_has_the_conditional_variance_of_brownian_motion(tau):
    """Var(W_t | W_1) from the covariance of (W_t, W_1), by a Schur complement."""
    path = bridge(tau)
    for t in (0.1, 0.5, 0.8):
        joint = tau * torch.tensor([[t, t], [t, 1.0]], dtype=F64)
        exact = 1 / torch.linalg.inv(joint)[0, 0]
        expect(worst("eq:bridge", path.gamma2(scalar(t)) - exact))
        refute(worst("eq:bridge", path.gamma2(scalar(t)).sqrt() - exact), "wrong object: the root")
    assert path.sigma is linear.sigma and path.alpha is linear.alpha
    assert value(bridge().gamma2, 0.5) == 0.25  # of unit temperature, unless told


def test_the_trigonometric_path_is_a_quarter_of_a_circle():
    t = torch.linspace(0, 1, 9, dtype=F64)
    angle = torch.atan2(trigonometric.alpha(t), trigonometric.sigma(t))
    expect(worst("eq:trigonometric", angle - torch.pi / 2 * t))
    expect(worst("eq:trigonometric", trigonometric.alpha(t) ** 2 + trigonometric.variance(t) - 1))
    refute(worst("eq:trigonometric", angle - torch.pi * t), "factor: half a circle")


@pytest.mark.parametrize("low, high", [(0.1, 20.0), (0.4, 3.0)])
def test_sub_vp_solves_the_moments_of_its_published_equation(low, high):
    """dY = -b/2 Y dr + sqrt(b (1 - exp(-2 int b))) dB from data without noise, by scipy."""
    beta = lambda r: low + r * (high - low)
    total = lambda r: low * r + 0.5 * (high - low) * r * r
    variance = lambda r, v: -beta(r) * v + beta(r) * (1 - math.exp(-2 * total(r)))
    r = [0.1, 0.5, 1.0]
    exact = scipy.integrate.solve_ivp(
        variance, (0, 1), [0.0], t_eval=r, rtol=1e-11, atol=1e-14, method="DOP853"
    )
    t = 1 - torch.tensor(r, dtype=F64)
    path, exact = sub_variance_preserving(low, high), torch.from_numpy(exact.y[0])
    expect(worst("eq:sub-vp", path.variance(t) - exact))
    expect(
        worst(
            "eq:sub-vp",
            path.alpha(t) - torch.tensor([math.exp(-total(x) / 2) for x in r], dtype=F64),
        )
    )
    more = variance_preserving(low, high)
    refute(worst("eq:sub-vp", more.variance(t) - exact), "wrong object: the variance of VP")
    assert (path.variance(t) <= more.variance(t)).all()


def test_sub_vp_and_vp_share_their_defaults():
    t = torch.linspace(0, 1, 9, dtype=F64)
    expect(worst("eq:sub-vp", sub_variance_preserving().alpha(t) - variance_preserving().alpha(t)))
    expect(
        worst("eq:sub-vp", sub_variance_preserving().sigma(t) - variance_preserving().variance(t))
    )


@pytest.mark.parametrize("offset", [0.0, 0.008, 0.3])
def test_the_cosine_schedule_is_that_of_its_paper(offset):
    r = torch.linspace(0, 1, 9, dtype=F64)
    f = lambda r: torch.cos((r + offset) / (1 + offset) * math.pi / 2) ** 2
    path, t = cosine(offset), 1 - r
    check = lambda signal: worst("eq:cosine", path.alpha(t) ** 2 - signal)
    expect(check(f(r) / f(0 * r)))
    expect(worst("eq:cosine", path.alpha(t) ** 2 + path.variance(t) - 1))
    expect(worst("eq:cosine", path.sigma(t) ** 2 - path.variance(t)))
    refute(check(f(t) / f(0 * r)), "clock: noising time")
    if offset:
        refute(check(f(r)), "missing term: the value at the data")
    else:
        expect(worst("eq:cosine", path.alpha(t) - trigonometric.alpha(t)))
    assert cosine().alpha(scalar(0.5)) == cosine(0.008).alpha(scalar(0.5))


def test_the_variance_of_the_cosine_schedule_keeps_its_digits_at_the_data():
    """1 - alpha^2 would be 0 at t = 1 - 1e-12; expanded in h it is 2 w cot(w) h."""
    h, omega = 1e-12, math.pi / 2 / 1.008
    variance = cosine().variance(scalar(1 - h)).item()
    assert variance == pytest.approx(2 * omega / math.tan(omega) * h, rel=1e-3)


def test_edm_takes_the_steps_of_its_paper():
    """The levels of 4 steps with the published constants, in plain Python."""
    levels = [(80 ** (1 / 7) + i / 3 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(4)]
    t = torch.tensor([0, 1, 2, 3], dtype=F64) / 3
    check = lambda path: worst("eq:edm", path.sigma(t) / torch.tensor(levels, dtype=F64) - 1)
    expect(check(edm()))
    expect(check(edm(0.002, 80.0, 7.0)))
    refute(check(edm(0.002, 80.0, 6.9)), "factor: another rho")
    refute(check(variance_exploding(0.002, 80.0)), "wrong object: the geometric schedule")
    assert levels[1] == pytest.approx(edm().sigma(t[1]).item()) and (edm().alpha(t) == 1).all()


def test_edm_is_affine_for_rho_one_and_geometric_for_rho_without_end():
    t = torch.linspace(0, 1, 7, dtype=F64)
    expect(worst("eq:edm", edm(0.5, 9.0, 1.0).sigma(t) - (9 - 8.5 * t)))
    gap = [
        edm(0.5, 9.0, rho).sigma(t) - variance_exploding(0.5, 9.0).sigma(t) for rho in (1e3, 1e6)
    ]
    assert gap[1].abs().max() < 1e-4 and gap[0].abs().max() > 100 * gap[1].abs().max()
    to_zero = edm(0.0, 9.0, 2.0)
    assert to_zero.sigma(scalar(1.0)) == 0 and noising_diffusion(to_zero)(scalar(1.0)) == 0


@pytest.mark.parametrize(
    "path", [sub_variance_preserving(), cosine(), cosine(0.0), variance_preserving()]
)
def test_schedules_that_end_at_the_data_end_there_exactly(path, generator):
    x0, x1 = points(4, generator), points(4, generator)
    for dtype in (torch.float32, F64):
        one = torch.ones((), dtype=dtype)
        assert path.sigma(one) == 0 and path.alpha(one) == 1 and path.variance(one) == 0
    assert torch.equal(path(scalar(1.0), x0, x1), x1)
    assert cosine().alpha(scalar(0.0)) == 0 and cosine().sigma(scalar(0.0)) == 1


# --- an interpolant read as a noising process


@every_noising
def test_the_noising_process_with_this_diffusion_has_the_variances_of_the_path(name):
    """dY = f Y dr + g dB adds the variance of g dB, carried along by alpha, by quadrature."""
    path, start, stop = NOISING[name], 0.9, 0.2
    t = torch.linspace(stop, start, 4001, dtype=F64)

    def check(g):
        carried = (path.alpha(scalar(stop)) / path.alpha(t)) ** 2
        added = scipy.integrate.simpson((carried * g(t) ** 2).numpy(), x=t.numpy())
        kept = carried[-1] * path.variance(t)[-1]
        return worst("eq:noising-diffusion", (kept + added) / path.variance(t)[0] - 1)

    g = noising_diffusion(path)
    expect(check(g))
    refute(check(lambda t: g(t) * 2**0.5), "factor: twice g²")
    refute(check(lambda t: g(t) ** 2), "factor: the square of g")
    refute(check(lambda t: g(1 - t)), "clock: g read backwards")


@every_noising
@pytest.mark.parametrize("each", [False, True])
def test_the_diffusion_is_twice_the_variance_times_the_rate_of_the_signal(name, each, generator):
    path = NOISING[name]
    t = inner_times(6, generator) if each else scalar(0.4)
    g2 = noising_diffusion(path)(t) ** 2
    snr = rate(lambda s: torch.log(path.alpha(s) / path.sigma(s)), t)
    expect(worst("eq:noising-diffusion", g2 / path.variance(t) - 2 * snr))
    expect(worst("eq:half-log-snr", rate(lambda s: half_log_snr(path, s), t) - snr))
    refute(worst("eq:noising-diffusion", g2 / path.variance(t) - snr), "factor: half of it")


def test_diffusions_known_by_hand():
    t = torch.tensor([0.2, 0.5, 0.9], dtype=F64)
    known = {
        "linear": 2 * (1 - t) / t,
        "trigonometric": torch.pi / torch.tan(torch.pi * t / 2),
        "VP": 0.1 + (1 - t) * 19.9,
        "VP, rough": 0.3 + (1 - t) * 6.7,
    }
    for name, g2 in known.items():
        expect(worst("eq:noising-diffusion", noising_diffusion(NOISING[name])(t) ** 2 - g2))
    wrong = noising_diffusion(linear)(t)
    refute(worst("eq:noising-diffusion", wrong - known["linear"]), "factor: g in place of g²")


def test_drifts_and_diffusions_of_the_named_schedules_known_by_hand():
    t = torch.tensor([0.2, 0.5, 0.9], dtype=F64)
    beta, omega = 0.1 + (1 - t) * 19.9, math.pi / 2 / 1.008
    B = 0.1 * (1 - t) + 0.5 * 19.9 * (1 - t) ** 2
    first, last = 80 ** (1 / 7), 0.002 ** (1 / 7)
    level = (1 - t) * first + t * last
    known = {
        "linear": (-1 / t, 2 * (1 - t) / t),
        "trigonometric": (
            -math.pi / 2 / torch.tan(math.pi * t / 2),
            math.pi / torch.tan(math.pi * t / 2),
        ),
        "VP": (-beta / 2, beta),
        "sub-VP": (-beta / 2, beta * (1 - (-2 * B).exp())),
        "VE": (0 * t, 2 * math.log(200) * (10 * 0.005**t) ** 2),
        "cosine": (-omega / torch.tan(omega * t), 2 * omega / torch.tan(omega * t)),
        "EDM": (0 * t, 14 * level**13 * (first - last)),
    }
    for name, (f, g2) in known.items():
        drift, square = noising_drift(NOISING[name]), noising_diffusion(NOISING[name])(t) ** 2
        expect(worst("eq:noising", drift(t) - f))
        expect(worst("eq:noising-diffusion", square / g2 - 1))
        assert drift(scalar(0.5)).shape == ()
        if f.any():
            refute(worst("eq:noising", drift(t) + f), "sign: the pull in generation time")


@every_noising
def test_the_drift_shrinks_the_mean_as_alpha_does(name):
    path = NOISING[name]
    total, _ = scipy.integrate.quad(lambda u: value(noising_drift(path), u), 0.2, 0.9)
    exact = math.log(value(path.alpha, 0.2) / value(path.alpha, 0.9))
    assert total == pytest.approx(exact, abs=1e-9)


def test_the_published_schedule_map_is_not_the_diffusion():
    """At noising time 0.53 of VP it says 44.2; g is 3.263 and its square 10.647."""
    path, t = variance_preserving(), scalar(0.47)
    ratio = lambda t: path.variance(t) / path.alpha(t) ** 2
    said = (-path.alpha(t) * rate(ratio, t)).item()
    assert said == pytest.approx(44.2, abs=0.05)
    g = noising_diffusion(path)(t).item()
    assert g == pytest.approx(3.263, abs=5e-4)
    gap = torch.tensor([said - g, said - g**2], dtype=F64)
    refute(worst("eq:noising-diffusion", gap[:1]), "factor: both squares lost")
    refute(worst("eq:noising-diffusion", gap[1:]), "factor: the square of alpha lost")
    expect(worst("eq:noising-diffusion", torch.tensor(g**2 - 10.647, dtype=F64)))


def test_half_log_snr_is_the_logit_on_the_linear_path():
    t = torch.tensor([0.2, 0.5, 0.9], dtype=F64)
    expect(worst("eq:half-log-snr", half_log_snr(linear, t) - torch.logit(t)))
    refute(worst("eq:half-log-snr", 2 * half_log_snr(linear, t) - torch.logit(t)), "factor: full")


def test_diffusion_at_the_ends_is_its_limit():
    one, nil = scalar(1.0), scalar(0.0)
    assert noising_diffusion(linear)(one) == 0 and noising_diffusion(trigonometric)(one) == 0
    assert noising_diffusion(linear)(nil) == math.inf
    assert value(noising_diffusion(variance_preserving(0.1, 20.0)), 1.0) ** 2 == pytest.approx(0.1)
    assert half_log_snr(linear, one) == math.inf and half_log_snr(linear, nil) == -math.inf


def test_rates_at_the_ends_are_their_limits():
    one, nil = scalar(1.0), scalar(0.0)
    slow = Interpolant(sigma=lambda t: 1 - t**2, alpha=lambda t: t**2)  # its rate is 0/0 at 0
    for path in (linear, trigonometric, cosine(), slow):
        assert noising_drift(path)(nil) == -math.inf and noising_diffusion(path)(nil) == math.inf
    assert noising_diffusion(sub_variance_preserving())(one) == 0
    omega = math.pi / 2 / 1.008
    last = noising_diffusion(cosine())(one).item() ** 2
    assert last == pytest.approx(2 * omega / math.tan(omega), rel=1e-12)
    assert noising_drift(linear)(one) == -1 and noising_drift(edm())(nil) == 0
    both = noising_diffusion(cosine())(torch.tensor([0.0, 1.0], dtype=F64))
    assert both.isfinite().tolist() == [False, True] and not both.isnan().any()


# --- bad input


BUILT = {name: path for name, path in INTERPOLANTS.items() if not name.startswith("own")}


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("t", [-0.01, -1e-9, 1 + 1e-9, 1.001, math.nan, math.inf])
def test_a_schedule_has_no_time_outside_the_unit_interval(name, t):
    path = BUILT[name]
    curves = [path.sigma, path.alpha, path.variance]
    for curve in curves if path.gamma2 is zero else [*curves, path.gamma2]:
        for times in (scalar(t), torch.tensor([0.5, t], dtype=F64)):
            with pytest.raises(ValueError, match=r"times in \[0, 1\] only, .*got"):
                curve(times)


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_time_beyond_an_end_by_rounding_is_that_end(name, dtype):
    path, eps = BUILT[name], torch.finfo(dtype).eps
    for end, beyond in ((1.0, 1 + 9 * eps), (0.0, -9 * eps)):
        end, beyond = (torch.tensor(time, dtype=dtype) for time in (end, beyond))
        assert end != beyond
        for curve in (path.sigma, path.alpha, path.variance, path.gamma2):
            assert curve(beyond) == curve(end)
            slopes = torch.stack([rate(curve, beyond), rate(curve, end)])
            assert torch.equal(slopes[0], slopes[1]) and slopes.dtype == dtype


def test_the_signal_to_noise_ratio_of_negative_curves_is_refused():
    own = Interpolant(sigma=lambda t: 1 - t, alpha=lambda t: t)
    with pytest.raises(ValueError, match=r"nonnegative, got -0.1 and 1.21; are all times in"):
        half_log_snr(own, scalar(-0.1))
    past = Interpolant(sigma=lambda t: (1 - t).sqrt(), alpha=lambda t: t, sigma2=lambda t: 1 - t)
    with pytest.raises(ValueError, match="nonnegative, got 1.1 and -0.1"):
        half_log_snr(past, scalar(1.1))


@pytest.mark.parametrize("name", NOISING)
def test_single_precision_loses_digits_and_nothing_else(name):
    """Rates, levels and signal in float32, both ends and close to them, beside float64."""
    path = NOISING[name]
    t = torch.cat([torch.linspace(0, 1, 41), torch.tensor([1e-30, 1e-7, 1 - 2**-24, 1 - 1e-6])])
    double = t.double()
    for curve in (noising_drift(path), noising_diffusion(path), lambda s: half_log_snr(path, s)):
        single, exact = curve(t), curve(double)
        assert single.dtype == torch.float32 and exact.dtype == F64
        assert torch.allclose(single.double(), exact, rtol=2e-4, atol=2e-6, equal_nan=False)
        alone = torch.stack([curve(s) for s in t])
        assert alone.dtype == torch.float32 and torch.allclose(alone, single, rtol=1e-5, atol=1e-6)


def test_a_process_without_noise_has_the_level_zero_and_not_one_of_rounding():
    """alpha and sigma shrink alike, so g² is a difference of equals."""
    shrinks = lambda t: (1.3 * (t - 1)).exp()
    still = Interpolant(sigma=lambda t: 0.7 * shrinks(t), alpha=shrinks)
    t = torch.linspace(0, 1, 101, dtype=F64)
    assert noising_diffusion(still)(t).max() < 1e-7
    assert noising_diffusion(still)(t.float()).max() < 1e-3
    falls = Interpolant(sigma=lambda t: 0.7 * shrinks(t), alpha=lambda t: (1.299 * (t - 1)).exp())
    with pytest.raises(ValueError, match="does not fall with t"):
        noising_diffusion(falls)(t)


def test_ends_that_do_not_pair_are_refused(generator):
    x, t = points(4, generator), scalar(0.5)
    with pytest.raises((ValueError, TypeError), match=r"paired row by row|x1"):
        linear(t, x, points(3, generator))
    with pytest.raises(ValueError, match="share a dtype, got .*torch.float64 and .*torch.float32"):
        linear(t, x, x.float())
    with pytest.raises(ValueError, match="pass z, standard normal of the shape of x0, got None"):
        bridge()(t, x, x)
    with pytest.raises((ValueError, TypeError), match="got .1, 2. for .4, 2.|z"):
        bridge()(t, x, x, x[:1])
    with pytest.raises((ValueError, TypeError), match="a time has shape|t"):
        linear(inner_times(3, generator), x, x)


@pytest.mark.parametrize(
    "build, message",
    [
        (
            lambda: bridge(0.0),
            "positive and finite temperature, got tau = 0.0; without .* `linear`",
        ),
        (lambda: bridge(-1.0), "positive and finite temperature"),
        (lambda: bridge(math.inf), "positive and finite temperature"),
        (lambda: variance_preserving(-0.1, 2.0), "0 <= low <= high"),
        (lambda: variance_preserving(3.0, 2.0), "0 <= low <= high and high > 0, got 3.0 and 2.0"),
        (lambda: variance_preserving(0.0, 0.0), "0 <= low <= high"),
        (lambda: variance_exploding(0.0, 2.0), "0 < low < high"),
        (lambda: sub_variance_preserving(3.0, 2.0), "0 <= low <= high and high > 0, got 3.0"),
        (lambda: sub_variance_preserving(0.1, math.inf), "0 <= low <= high"),
        (lambda: cosine(-0.01), "offset of a cosine schedule is >= 0 and finite, got -0.01"),
        (lambda: cosine(math.inf), ">= 0 and finite"),
        (lambda: edm(-0.1, 2.0), "0 <= low < high and rho >= 1, all finite, got -0.1, 2.0 and 7.0"),
        (lambda: edm(2.0, 2.0), "0 <= low < high"),
        (lambda: edm(0.1, math.inf), "all finite"),
        (lambda: edm(0.1, 2.0, 0.9), "rho >= 1"),
        (lambda: edm(0.1, 2.0, math.inf), "rho >= 1"),
        (lambda: variance_exploding(2.0, 2.0), "0 < low < high < infinity, got 2.0 and 2.0"),
        (lambda: variance_exploding(0.1, math.inf), "0 < low < high < infinity"),
    ],
)
def test_a_schedule_that_is_none_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_latent_noise_is_no_noising_schedule():
    for use in (
        lambda: half_log_snr(bridge(), scalar(0.5)),
        lambda: noising_diffusion(bridge()),
        lambda: noising_drift(bridge()),
    ):
        with pytest.raises(ValueError, match="only without latent noise"):
            use()
    assert linear.gamma2 is zero


def test_a_variance_of_latent_noise_that_is_none_is_refused(generator):
    x, t = points(2, generator), torch.tensor([0.5, 0.2], dtype=F64)
    below = Interpolant(linear.sigma, linear.alpha, gamma2=lambda t: t - 0.3)
    with pytest.raises(ValueError, match="at least 0, got -0.1"):
        below(t, x, x, x)
    broken = Interpolant(linear.sigma, linear.alpha, gamma2=lambda t: t * float("nan"))
    with pytest.raises(ValueError, match="at least 0, got nan"):
        broken(t, x, x, x)
    assert torch.equal(bridge()(scalar(1.0), x, 2 * x, x), 2 * x)


def test_a_schedule_whose_clock_is_turned_is_refused():
    turned = Interpolant(sigma=lambda t: t, alpha=lambda t: 1 - t)
    with pytest.raises(ValueError, match="does not fall with t, got g² = .*clock"):
        noising_diffusion(turned)(scalar(0.5))
    with pytest.raises(ValueError, match="does not fall with t"):
        noising_diffusion(turned)(torch.tensor([0.5, 0.7], dtype=F64))


def test_per_point_readies_a_curve_to_multiply_points(generator):
    t, x = inner_times(3, generator), points(3, generator, d=3)
    assert per_point(scalar(2.0)).shape == () and per_point(t).shape == (3, 1)
    assert torch.equal(per_point(t) * x, torch.stack([s * row for s, row in zip(t, x)]))


def test_noise_that_grows_by_very_little_is_refused_too():
    """Rounding is a share of the two terms that cancel, however small these are."""
    growing = Interpolant(
        sigma=lambda t: (1 + 1e-8 * t).sqrt(), alpha=torch.ones_like, sigma2=lambda t: 1 + 1e-8 * t
    )
    with pytest.raises(ValueError, match="does not fall with t, got g² = -1e-08"):
        noising_diffusion(growing)(scalar(0.5))
    swelling = Interpolant(
        sigma=lambda t: torch.exp(30 * t), alpha=lambda t: torch.exp(30 * t)
    )  # the ratio stands still while both terms are of the size of e^60
    assert noising_diffusion(swelling)(scalar(0.99)).isfinite()
