"""A second opinion: our steps and those of diffusers' schedulers, along one run each.

It computes in float32 inside.
"""

import pytest
import torch

from laws import F64, TARGET, scalar
from onepath import fields
from onepath.calculus import constant
from onepath.dynamics import Dynamics
from onepath.fields import data
from onepath.interpolants import edm, half_log_snr, linear
from onepath.oracles import MixturePath
from onepath.samplers import (
    ancestral,
    churned,
    ddim,
    midpoint,
    multistep,
    renoised,
    trapezoid,
)
from onepath.solvers import heun, trajectory
from onepath.time_grids import uniform_in_log_snr
from onepath.verify import expect, refute, worst

PATH = MixturePath(linear, TARGET)
GRID = uniform_in_log_snr(linear, 12, 0.01, 0.99)
PLAIN = {"final_sigmas_type": "sigma_min", "lower_order_final": False, "use_flow_sigmas": True}
MULTI = "DPMSolverMultistepScheduler"
CASES = {
    "ddim": (lambda d: ddim(d, linear), MULTI, {"solver_order": 1}),
    "multistep": (lambda d: multistep(d, linear, 2), MULTI, {"solver_order": 2}),
    "ancestral": (
        lambda d: ancestral(d, linear),
        MULTI,
        {"solver_order": 1, "algorithm_type": "sde-dpmsolver++"},
    ),
    "multistep with noise": (
        lambda d: multistep(d, linear, 2, 1.0),
        MULTI,
        {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"},
    ),
}


def no_noise():
    raise AssertionError("an ODE draws nothing")


def start(t: float, n: int = 6):
    return PATH.sample(scalar(t), n, torch.Generator().manual_seed(1))


def scheduler_on(grid, name, **options):
    """A scheduler whose noise levels are those of a grid of the linear path."""
    import diffusers  # here, because it takes longer to import than the tests take

    scheduler = getattr(diffusers, name)(prediction_type="sample", **options)
    scheduler.set_timesteps(len(grid) - 1)
    scheduler.sigmas = 1 - grid if options.get("use_flow_sigmas") else (1 - grid) / grid
    scheduler.timesteps = torch.arange(len(grid) - 1, 0, -1)
    scheduler._step_index = 0
    return scheduler


@pytest.mark.parametrize("name", CASES)
def test_steps_are_those_of_diffusers(name):
    """Both walk on by themselves, with the same noise; the largest distance on the way."""
    make, kind, options = CASES[name]
    step, theirs = make(PATH.denoiser), scheduler_on(GRID, kind, **options, **PLAIN)
    generator, x, memory = torch.Generator().manual_seed(5), start(0.01), None
    y, gaps = x, []
    for t, s, label in zip(GRID[:-1], GRID[1:], theirs.timesteps):
        noise = torch.randn(x.shape, generator=generator, dtype=F64)
        more = {"variance_noise": noise} if "sde" in options.get("algorithm_type", "") else {}
        y = theirs.step(PATH.denoiser(t, y), label, y, **more).prev_sample
        x, memory = step(x, t, s, lambda: noise, memory)
        gaps.append(x - y)
    expect(worst("eq:ddim-noise", torch.stack(gaps), 1e-5))
    other, _ = midpoint(PATH.denoiser, linear, data)(x, scalar(0.9), scalar(0.99), no_noise, None)
    refute(worst("eq:ddim-noise", other - y, 1e-5), "wrong object: another step")


@pytest.mark.parametrize("row, kind", [(data, "dpmsolver++"), (fields.noise, "dpmsolver")])
def test_the_singlestep_solvers_of_order_two_are_our_midpoint_rules(row, kind):
    """Their grid holds the middles, which the first of each two calls reaches by DDIM."""
    options = {"solver_order": 2, "algorithm_type": kind, **PLAIN, "lower_order_final": True}
    theirs = scheduler_on(GRID, "DPMSolverSinglestepScheduler", **options)
    theirs.order_list = [1, 2] * 6
    x = y = start(0.01)
    for t, label in zip(GRID[:-1], theirs.timesteps):
        y = theirs.step(PATH.denoiser(t, y), label, y).prev_sample
    field = fields.convert(PATH.denoiser, linear, data, row)
    ours = trajectory(midpoint(field, linear, row), x, GRID[::2])
    expect(worst("eq:dpm-solver-2", ours[-1] - y, 1e-5))
    plain = trajectory(ddim(PATH.denoiser, linear), x, GRID)
    refute(worst("eq:dpm-solver-2", plain[-1] - y, 1e-5), "wrong object: DDIM")


def partly_renoised(denoiser, path):
    """DDIM with the noise of its paper at eta = 0.4."""
    h = lambda t, s: half_log_snr(path, s) - half_log_snr(path, t)
    level = lambda t, s: 0.4 * path.sigma(s) * (-torch.expm1(-2 * h(t, s))).sqrt()
    return renoised(denoiser, path, level)


@pytest.mark.parametrize(
    "kind, eta, step",
    [
        ("DDIMScheduler", 0.0, ddim),
        ("DDIMScheduler", 0.4, partly_renoised),
        ("DDIMScheduler", 1.0, ancestral),
        ("DDPMScheduler", 1.0, ancestral),
    ],
)
def test_a_thousand_steps_of_a_table_are_a_path(kind, eta, step, monkeypatch):
    """DDIM and DDPM by their own table: it is the linear path, larger by alpha + sigma."""
    import diffusers

    scheduler = getattr(diffusers, kind)(prediction_type="sample", clip_sample=False)
    scheduler.set_timesteps(20)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    alpha, sigma = scheduler.alphas_cumprod.sqrt(), (1 - scheduler.alphas_cumprod).sqrt()
    clock, size = alpha / (alpha + sigma), alpha + sigma
    labels, generator = scheduler.timesteps.tolist(), torch.Generator().manual_seed(5)
    x, memory, gaps = start(clock[labels[0]].item()), None, []
    y, ours = x * size[labels[0]], step(PATH.denoiser, linear)
    options = {"eta": eta} if kind == "DDIMScheduler" else {}
    for now, after in zip(labels[:-1], labels[1:]):
        noise = torch.randn(x.shape, generator=generator, dtype=F64)
        guess = PATH.denoiser(clock[now], y / size[now])
        with monkeypatch.context() as patch:
            patch.setattr(torch, "randn", lambda *a, **k: noise)
            y = scheduler.step(guess, now, y, **options).prev_sample
        x, memory = ours(x, clock[now], clock[after], lambda: noise, memory)
        gaps.append(x - y / size[after])
    label = {0.0: "eq:ddim", 0.4: "eq:stochastic-ddim", 1.0: "eq:ancestral"}[eta]
    expect(worst(label, torch.stack(gaps), 1e-10))
    refute(worst(label, x - y, 1e-10), "factor: the size of the state")


def test_edms_euler_step_is_ddim_and_its_heun_step_is_heuns_method_in_sigma():
    import diffusers

    schedule = edm(0.05, 10.0, 1.0)  # sigma is affine in t
    path, grid = MixturePath(schedule, TARGET), torch.linspace(0, 1, 9, dtype=F64)
    x = path.sample(scalar(0.0), 6, torch.Generator().manual_seed(2))
    sigma = schedule.sigma(grid)
    euler = diffusers.EDMEulerScheduler()
    euler.set_timesteps(8)
    euler.sigmas, euler._step_index, y = sigma, 0, x
    euler.is_scale_input_called = True
    for t, s in zip(grid[:-1], sigma):
        guess = path.denoiser(t, y)
        y = euler.step(guess, s.float(), y, pred_original_sample=guess).prev_sample
    ours = trajectory(ddim(path.denoiser, path), x, grid)[-1]
    expect(worst("eq:ddim", ours - y, 1e-5))

    second = diffusers.HeunDiscreteScheduler(prediction_type="sample")
    second.set_timesteps(8)
    second.sigmas = torch.cat([sigma[:1], sigma[1:].repeat_interleave(2)])
    second._step_index, y = 0, x
    for k in range(16):
        t = grid[(k + 1) // 2]
        y = second.step(path.denoiser(t, y), t, y).prev_sample
    by_heun = trajectory(heun(Dynamics(path.velocity)), x, grid)[-1]
    expect(worst("eq:heun", by_heun - y, 1e-5))
    expect(worst("eq:trapezoid", trajectory(trapezoid(path.denoiser, path), x, grid)[-1] - y, 1e-5))
    refute(worst("eq:heun", ours - y, 1e-5), "wrong object: DDIM")


def test_edms_churn_is_ours_if_the_network_is_asked_after_the_noise(monkeypatch):
    """Its scheduler adds the noise when it is given a guess, which is then one of another state;
    here it gets the guess of the state with the noise, as in the algorithm of the paper."""
    import diffusers

    schedule, steps, gamma = edm(0.05, 10.0, 1.0), 8, 0.1
    path, grid = MixturePath(schedule, TARGET), torch.linspace(0.2, 1, steps + 1, dtype=F64)
    x, sigma = path.sample(grid[0], 6, torch.Generator().manual_seed(2)), schedule.sigma(grid)
    generator, states = torch.Generator().manual_seed(5), {}
    noises = torch.randn(steps, *x.shape, generator=generator, dtype=F64)
    module = f"{diffusers.EDMEulerScheduler.__module__}.randn_tensor"
    for when in ("after", "before"):
        theirs, y = diffusers.EDMEulerScheduler(), x
        theirs.set_timesteps(steps)
        theirs.sigmas, theirs._step_index, theirs.is_scale_input_called = sigma, 0, True
        for t, s, noise in zip(grid, sigma[:-1], noises):
            raised = (1 + gamma) * s
            moved = y + (raised**2 - s**2).sqrt() * noise
            back = (10.0 - raised) / (10.0 - 0.05)  # sigma is affine in t
            guess = path.denoiser(back, moved) if when == "after" else path.denoiser(t, y)
            with monkeypatch.context() as patch:
                patch.setattr(module, lambda *a, noise=noise, **k: noise)
                churn = {"s_churn": gamma * steps, "pred_original_sample": guess}
                y = theirs.step(guess, s.float(), y, **churn).prev_sample
        states[when] = y
    step, ours, memory = churned(ddim(path.denoiser, path), path, constant(gamma)), x, None
    for t, s, noise in zip(grid, grid[1:], noises):
        ours, memory = step(ours, t, s, lambda noise=noise: noise, memory)
    expect(worst("eq:churn", ours - states["after"], 1e-5))
    refute(worst("eq:churn", ours - states["before"], 1e-5), "clock: the guess before the noise")


def test_their_third_order_has_half_of_the_second_difference():
    """Why `multistep` of order 3 does not agree: with twice that term it does."""
    theirs = scheduler_on(GRID, MULTI, solver_order=3, **PLAIN)
    lam = (GRID / (1 - GRID)).log()
    step, x, memory, values, seen = multistep(PATH.denoiser, linear, 3), start(0.01), None, [], []
    for k, (t, s, label) in enumerate(zip(GRID[:-1], GRID[1:], theirs.timesteps)):
        values = [PATH.denoiser(t, x), *values[:2]]
        other = theirs.step(values[0], label, x).prev_sample  # from our state
        x, memory = step(x, t, s, no_noise, memory)
        if k >= 2:
            h, h0, h1 = (lam[k + i] - lam[k + i - 1] for i in (1, 0, -1))
            first, second = (values[0] - values[1]) / h0, (values[1] - values[2]) / h1
            halves = s * (h**2 / 2 - h + 1 - (-h).exp()) * (first - second) / (h0 + h1)
            seen.append((x - other - halves, x - other))
    expect(worst("eq:multistep", torch.stack([a for a, _ in seen]), 1e-5))
    refute(worst("eq:multistep", torch.stack([b for _, b in seen]), 1e-5), "factor: one half")
