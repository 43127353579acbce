"""Claims of chapter 1: what counts as a check, and what a check must not let pass."""

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from laws import F64, inner_times, points, same_rows, scalar
from onepath.calculus import constant, zero
from onepath.verify import (
    MARGINS,
    MIME,
    Check,
    Record,
    below,
    continuity,
    current_correction,
    expect,
    fokker_planck,
    fokker_planck_general,
    glue,
    mean,
    order,
    refute,
    slope,
    worst,
)

KINDS = sorted(MARGINS)


@pytest.fixture
def shown(monkeypatch):
    """What a running notebook would have displayed."""
    seen = []
    display = SimpleNamespace(display=lambda thing, **how: seen.append((thing, how)))
    fake = SimpleNamespace(get_ipython=lambda: object(), display=display)
    monkeypatch.setitem(sys.modules, "IPython", fake)
    return seen


# --- the verdict


@pytest.mark.parametrize("kind", KINDS)
def test_a_check_holds_up_to_its_bound_and_is_refuted_from_its_margin_on(kind):
    margin = {"identity": 10, "law": 1.5, "order": 2, "bound": 1.1}[kind]
    bound = 0.25
    at = lambda error: Check("eq:a", kind, error, bound)
    assert at(0.0).holds and at(bound).holds and not at(bound * (1 + 1e-9)).holds
    assert at(margin * bound).fails_clearly and at(1e9).fails_clearly
    assert not at(margin * bound * (1 - 1e-9)).fails_clearly


@pytest.mark.parametrize("kind", KINDS)
def test_nan_and_infinity_are_neither_held_nor_refuted(kind):
    for error in (math.nan, math.inf):
        check = Check("eq:a", kind, error, 1.0)
        assert not check.holds and not check.fails_clearly
        with pytest.raises(AssertionError):
            expect(check)
        with pytest.raises(AssertionError):
            refute(check, "sign: none")


@given(st.sampled_from(KINDS), st.floats(0, 1e6), st.floats(1e-12, 1e3))
def test_no_check_is_both_held_and_refuted(kind, error, bound):
    check = Check("thm:a", kind, error, bound)
    assert not (check.holds and check.fails_clearly)


def test_a_check_that_fails_stops_the_notebook(shown):
    with pytest.raises(AssertionError, match="eq:a: largest error is 0.5, above the bound 0.1"):
        expect(Check("eq:a", "identity", 0.5, 0.1))
    with pytest.raises(AssertionError, match="eq:a: .* must reach 1.* did not catch: sign: minus"):
        refute(Check("eq:a", "identity", 0.5, 0.1), "sign: minus")
    assert shown == []


@pytest.mark.parametrize(
    "fields, message",
    [
        (("fig:a", "identity", 0.0, 1.0), "names an equation or a theorem"),
        (("eq:a", "guess", 0.0, 1.0), "kind must be one of .*got 'guess'"),
        (("eq:a", "identity", 0.0, 0.0), "positive and finite, got 0"),
        (("eq:a", "identity", 0.0, -1.0), "positive and finite"),
        (("eq:a", "identity", 0.0, math.inf), "positive and finite"),
        (("eq:a", "identity", 0.0, math.nan), "positive and finite"),
        (("eq:a", "identity", -0.1, 1.0), "a distance, got -0.1; take abs"),
    ],
)
def test_a_check_that_could_not_fail_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Check(*fields)


@pytest.mark.parametrize("mistake", ["", "oops", "factors: 2", "a sign: minus"])
def test_a_mistake_has_a_name(mistake):
    with pytest.raises(ValueError, match="a mistake starts with one of factor, sign, clock"):
        refute(Check("eq:a", "identity", 1.0, 0.1), mistake)


# --- the record


@pytest.mark.parametrize(
    "kind, held, refuted",
    [
        ("identity", "largest error ≤ 2", "largest error ≥ 20"),
        ("law", "standard errors ≤ 2", "standard errors ≥ 3"),
        ("order", "distance to the order ≤ 2", "distance to the order ≥ 4"),
        ("bound", "left side / right side ≤ 2", "left side / right side ≥ 2.2"),
    ],
)
def test_a_record_says_verdict_label_and_bound_but_not_the_error(kind, held, refuted):
    check = Check("eq:a", kind, 1.2345, 2.0)
    assert str(Record(check)) == f"✓ eq:a holds: {held}"
    assert str(Record(check, "sign: minus")) == f"✗ eq:a refutes sign: minus: {refuted}"


def test_a_record_travels_to_the_ledger_with_its_error(shown):
    expect(Check("eq:a", "bound", 0.5, 1.0, (1.0, 2.0)))
    refute(Check("eq:a", "identity", 1.0, 1e-9), "factor: <2>")
    held, refuted = (thing._repr_mimebundle_() for thing, how in shown)
    assert set(held) == {"text/plain", "text/html", MIME} and "0.5" not in held["text/plain"]
    common = {"label": "eq:a", "kind": "bound", "error": 0.5, "bound": 1.0, "sides": (1.0, 2.0)}
    assert held[MIME] == common | {"verdict": "held", "mistake": None}
    assert refuted[MIME]["verdict"] == "refuted" and refuted[MIME]["mistake"] == "factor: <2>"
    assert "factor: &lt;2&gt;" in refuted["text/html"] and "measured 1" in refuted["text/html"]
    assert 'class="check check-held"' in held["text/html"] and "measured 0.5" in held["text/html"]


def test_a_number_of_the_prose_comes_from_a_cell(shown):
    glue("floor", 0.123456, "{:.2f}")
    ((data, how),) = shown
    key = "application/papermill.record/text/plain"
    assert data == {key: "0.12"} and how["raw"] is True
    assert how["metadata"]["scrapbook"] == {
        "name": "floor",
        "mime_prefix": "application/papermill.record/",
    }


def test_nothing_is_shown_outside_a_notebook(monkeypatch, capsys):
    for module in (None, SimpleNamespace(get_ipython=lambda: None)):
        monkeypatch.setitem(sys.modules, "IPython", module)
        expect(Check("eq:a", "identity", 0.0, 1.0))
    assert capsys.readouterr().out == ""


# --- the four kinds


def test_worst_finds_the_largest_deviation_of_either_sign():
    check = worst("eq:a", torch.tensor([[0.1, -0.7], [0.2, 0.3]], dtype=F64), 0.5)
    assert check == Check("eq:a", "identity", 0.7, 0.5)
    assert worst("eq:a", torch.zeros(1)).bound == 1e-9
    assert math.isnan(worst("eq:a", torch.tensor([0.0, math.nan, 1.0])).error)
    with pytest.raises(ValueError, match="at least one point"):
        worst("eq:a", torch.zeros(0))


@given(st.integers(2, 50), st.floats(-2, 2), st.integers(0, 1000))
@example(2, 0.5, 0)
def test_mean_counts_the_same_standard_errors_as_students_test(n, target, seed):
    samples = torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=F64)
    check = mean("eq:a", samples, target)
    theirs = abs(scipy.stats.ttest_1samp(samples.numpy(), target).statistic)
    assert check.kind == "law" and check.bound == 4.0
    assert check.error == pytest.approx(theirs, rel=1e-9)


def test_a_true_mean_errs_by_one_standard_error_on_average(generator):
    errors = torch.tensor(
        [mean("eq:a", torch.rand(200, generator=generator), 0.5).error for _ in range(400)]
    )
    expect(mean("eq:a", errors**2, 1.0))
    off = [mean("eq:a", torch.rand(200, generator=generator), 0.54).error for _ in range(400)]
    refute(mean("eq:a", torch.tensor(off) ** 2, 1.0), "wrong object: another mean")
    with pytest.raises(ValueError, match="needs two samples, got 1"):
        mean("eq:a", torch.ones(1), 1.0)


@given(st.lists(st.floats(1e-8, 1e3), min_size=3, max_size=6))
@example([1.0, 2.0, 5.0])
def test_a_slope_is_the_least_squares_line_in_logarithms(errors):
    sizes = [0.1 / 2**i for i in range(len(errors))]
    assert slope(sizes, errors) == pytest.approx(
        np.polyfit(np.log(sizes), np.log(errors), 1)[0], abs=1e-9
    )


def test_an_order_is_met_within_a_quarter():
    h = [0.1, 0.05, 0.025, 0.0125]
    assert slope(h, [3 * s**1.5 for s in h]) == pytest.approx(1.5)
    check = order("eq:a", h, [s**2 for s in h], 2)
    assert check.kind == "order" and check.bound == 0.25 and check.sides == pytest.approx((2, 2))
    expect(check)
    expect(order("eq:a", h, [s**1.8 for s in h], 2))
    for found in (1.4, 2.6):
        refute(order("eq:a", h, [s**found for s in h], 2), "wrong object: another method")


@pytest.mark.parametrize(
    "sizes, errors, message",
    [
        ([0.1, 0.2], [1.0, 2.0], "three or more pairs, got 2 and 2"),
        ([0.1, 0.2, 0.3], [1.0, 2.0], "three or more pairs, got 3 and 2"),
        ([0.1, 0.2, 0.3], [1.0, 2.0, 0.0], "positive sizes and errors"),
        ([0.1, 0.2, -0.3], [1.0, 2.0, 3.0], "positive sizes and errors"),
        ([0.1, 0.2, 0.3], [1.0, math.nan, 3.0], "positive sizes and errors"),
    ],
)
def test_a_slope_needs_three_positive_pairs(sizes, errors, message):
    with pytest.raises(ValueError, match=message):
        slope(sizes, errors)


def test_an_inequality_keeps_both_sides():
    check = below("thm:a", 1.0, 4.0)
    assert (check.kind, check.error, check.bound, check.sides) == ("bound", 0.25, 1.0, (1.0, 4.0))
    expect(check)
    expect(below("thm:a", 0.0, 4.0))
    refute(below("thm:a", 4.0, 1.0), "wrong object: the sides exchanged")
    for sides in [(-1.0, 1.0), (1.0, 0.0), (math.nan, 1.0), (1.0, math.inf), (math.inf, 1.0)]:
        with pytest.raises(ValueError, match="thm:a: compare a finite nonnegative left side"):
            below("thm:a", *sides)


# --- residuals, on laws whose evolution is known by hand

THETA, ETA, MEAN = 0.8, 0.6, torch.tensor([1.0, -2.0], dtype=F64)


def pull(t, x):
    return -THETA * x


def ornstein_uhlenbeck(t, x):
    """Log-density of dX = -theta X dt + eta dW started from N(m, 4 I): variance by hand."""
    decay = torch.exp(-THETA * t)
    v = 4 * decay**2 + ETA**2 * (1 - decay**2) / (2 * THETA)
    centre = (decay[:, None] if t.ndim else decay) * MEAN
    return -((x - centre) ** 2).sum(1) / (2 * v) - torch.log(2 * torch.pi * v)


@pytest.fixture(params=["one time", "a time each"])
def t(request, generator):
    return scalar(0.3) if request.param == "one time" else inner_times(64, generator)


def test_the_law_of_a_diffusion_solves_fokker_planck(t, generator):
    x = points(64, generator)
    residual = lambda drift=pull, eta=ETA, density=ornstein_uhlenbeck: worst(
        "eq:fokker-planck", fokker_planck(density, drift, constant(eta), t, x)
    )
    expect(residual())
    refute(residual(eta=ETA * 2**0.5), "factor: eta² in place of half of it")
    refute(residual(eta=0.0), "missing term: the noise")
    refute(residual(drift=lambda t, x: THETA * x), "sign: the drift pushes outwards")
    refute(residual(drift=lambda t, x: 0 * x), "missing term: the drift")
    refute(
        residual(density=lambda t, x: ornstein_uhlenbeck(1 - t, x)), "clock: time runs backwards"
    )


def test_fokker_planck_takes_noise_that_depends_on_time(t, generator):
    """Pure noise of level eta² = 2t adds the variance t² to what was there."""
    x = points(64, generator)
    v = lambda t: 1 + t**2
    density = lambda t, x: -(x**2).sum(1) / (2 * v(t)) - v(t).log()
    still = lambda t, x: 0 * x
    level = lambda t: (2 * t).sqrt()
    expect(worst("eq:fokker-planck", fokker_planck(density, still, level, t, x)))
    refute(
        worst("eq:fokker-planck", fokker_planck(density, still, lambda t: 2 * t, t, x)),
        "factor: the square of the noise level",
    )


def test_fokker_planck_sees_every_coordinate_and_a_drift_that_depends_on_the_point(generator):
    """The Gibbs law exp(-2 V / eta²) is stationary under dX = -grad V dt + eta dW."""
    x, t = points(64, generator, scale=1.0), scalar(0.5)
    V = lambda x: (x**4).sum(1) / 4 + x[:, 0] * x[:, 1] ** 2
    descent = lambda t, x: -torch.func.grad(lambda y: V(y).sum())(x)
    gibbs = lambda factor: lambda t, x: -factor * V(x) / ETA**2 + 0 * t
    check = lambda factor: worst(
        "eq:fokker-planck", fokker_planck(gibbs(factor), descent, constant(ETA), t, x)
    )
    expect(check(2))
    refute(check(1), "factor: the temperature halved")


def test_a_law_that_is_carried_solves_the_continuity_equation(t, generator):
    """A rotation that also stretches, of a law that is no Gaussian."""
    x = points(64, generator, scale=1.0)
    spin = torch.tensor([[0.5, -1.0], [1.0, 0.5]], dtype=F64)
    start = lambda x: -(x**4).sum(1) - x[:, 0]

    def density(t, x):
        back = torch.linalg.matrix_exp(-spin * (t[:, None, None] if t.ndim else t))
        y = (back @ x[:, :, None])[:, :, 0]
        return start(y) - t * spin.trace()

    velocity = lambda t, x: x @ spin.T
    expect(worst("eq:continuity", continuity(density, velocity, t, x)))
    expect(worst("eq:continuity", fokker_planck(density, velocity, zero, t, x)))
    for name, wrong in {
        "sign: the flow reversed": lambda t, x: -(x @ spin.T),
        "wrong object: the transposed matrix": lambda t, x: x @ spin,
        "factor: half the velocity": lambda t, x: 0.5 * (x @ spin.T),
    }.items():
        refute(worst("eq:continuity", continuity(density, wrong, t, x)), name)


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("each", [False, True])
def test_a_residual_of_a_batch_is_a_loop(n, each, generator):
    x = points(n, generator)
    t = inner_times(n, generator) if each else scalar(0.4)
    wrong = lambda t, x: torch.sin(x.cumsum(1))
    level = lambda t: 1 + t
    rows = lambda t, x: fokker_planck(ornstein_uhlenbeck, wrong, level, t, x)
    assert same_rows(rows, t, x) < 1e-12


# --- noise that depends on the state and the direction

BEND, PULL = 0.6, 0.7


def bent(t, x):
    """Two independent Ornstein–Uhlenbeck processes Z, seen as X = (Z1, Z2 + c Z1²): unit
    determinant."""
    left = torch.exp(-2 * PULL * t)
    v = 2 * left + (1 - left) / (2 * PULL)
    v = v[:, None] if v.ndim else v
    z = torch.stack([x[:, 0], x[:, 1] - BEND * x[:, 0] ** 2], 1)
    return -(z**2 / (2 * v) + 0.5 * torch.log(v)).sum(1)


def bent_drift(t, x):
    """Itô's formula by hand, for the map z -> (z1, z2 + c z1²)."""
    z = x[:, 1] - BEND * x[:, 0] ** 2
    second = -PULL * z - 2 * BEND * PULL * x[:, 0] ** 2 + BEND
    return torch.stack([-PULL * x[:, 0], second], 1)


def bent_noise(t, x):
    """The Jacobian of that map."""
    unit, none = torch.ones_like(x[:, 0]), torch.zeros_like(x[:, 0])
    return torch.stack([unit, none, 2 * BEND * x[:, 0], unit], 1).reshape(-1, 2, 2)


def squared(t, x):
    return bent_noise(t, x) @ bent_noise(t, x).mT


def test_a_bent_law_solves_the_general_fokker_planck_equation(t, generator):
    x = points(64, generator, scale=1.0)
    residual = lambda drift=bent_drift, a=squared, density=bent: worst(
        "eq:fokker-planck-general", fokker_planck_general(density, drift, a, t, x)
    )
    expect(residual())
    refute(residual(a=lambda t, x: 2 * squared(t, x)), "factor: a in place of half of it")
    refute(residual(a=bent_noise), "wrong object: G in place of G Gᵀ")
    turned = lambda t, x: bent_noise(t, x).mT @ bent_noise(t, x)
    refute(residual(a=turned), "wrong object: Gᵀ G in place of G Gᵀ")
    lost = lambda t, x: bent_drift(t, x) + torch.tensor([0.0, BEND], dtype=F64)
    refute(residual(drift=lost), "missing term: half the divergence of a")
    refute(residual(drift=lambda t, x: -bent_drift(t, x)), "sign: of the drift")
    refute(residual(density=lambda t, x: bent(1 - t, x)), "clock: time runs backwards")


def test_the_current_velocity_of_the_bent_law_solves_the_continuity_equation(t, generator):
    x = points(64, generator, scale=1.0)
    gap = lambda factor: worst(
        "eq:current-velocity",
        continuity(
            bent,
            lambda t, x: bent_drift(t, x) - factor * current_correction(bent, squared, t, x),
            t,
            x,
        ),
    )
    expect(gap(1.0))
    for factor, mistake in (
        (2.0, "factor: a for ½a"),
        (-1.0, "sign: added"),
        (0.0, "missing term"),
    ):
        refute(gap(factor), f"{mistake}: of the correction")


def test_the_correction_has_its_two_parts_and_their_halves(generator):
    """a(x) = (1 + x1²) I under a standard normal: ½ (2 x1, 0) - ½ (1 + x1²) x, by hand."""
    x = points(64, generator, scale=1.0)
    normal = lambda t, x: -(x**2).sum(1) / 2 + 0 * t
    a = lambda t, x: (1 + x[:, 0] ** 2)[:, None, None] * torch.eye(2, dtype=F64)
    found = current_correction(normal, a, scalar(0.2), x)
    by_hand = torch.stack([x[:, 0], 0 * x[:, 0]], 1) - 0.5 * (1 + x[:, :1] ** 2) * x
    expect(worst("eq:current-velocity", found - by_hand))
    only_score = -0.5 * (1 + x[:, :1] ** 2) * x
    refute(worst("eq:current-velocity", found - only_score), "missing term: the divergence of a")


def test_noise_equal_in_all_directions_is_the_equation_without_a_matrix(t, generator):
    x = points(64, generator)
    wrong = lambda t, x: torch.sin(x.cumsum(1))  # not a solution: the residuals are not zero
    eye = torch.eye(2, dtype=F64)
    a = lambda t, x: ((1 + t) ** 2 * torch.ones(len(x), dtype=F64))[:, None, None] * eye
    general = fokker_planck_general(ornstein_uhlenbeck, wrong, a, t, x)
    plain = fokker_planck(ornstein_uhlenbeck, wrong, lambda t: 1 + t, t, x)
    assert plain.abs().max() > 0.1
    expect(worst("eq:fokker-planck-general", general - plain))
    refute(worst("eq:fokker-planck-general", general + plain), "sign: of the residual")


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("each", [False, True])
def test_the_general_residual_of_a_batch_is_a_loop(n, each, generator):
    x = points(n, generator)
    t = inner_times(n, generator) if each else scalar(0.4)
    wrong = lambda t, x: torch.sin(x.cumsum(1))
    rows = lambda t, x: fokker_planck_general(bent, wrong, squared, t, x)
    assert same_rows(rows, t, x) < 1e-12 * rows(t, x).abs().max().clamp(min=1)


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 2, 1), (2, 2), (1, 2, 2)])
def test_a_matrix_per_point_is_asked_for(shape):
    x = torch.zeros(3, 2, dtype=F64)
    a = lambda t, x: torch.ones(shape, dtype=F64)
    with pytest.raises(ValueError, match=r"a matrix per point, \(3, 2, 2\), got .*the identity"):
        fokker_planck_general(bent, bent_drift, a, scalar(0.1), x)
