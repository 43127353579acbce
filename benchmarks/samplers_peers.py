"""Other packages' samplers on the same problems, step by step, by error and by variance.

All run on the linear path, from t = 0.001 to 0.999 so that nobody divides by zero; azula and
diffusers get grids and denoisers in their own convention. A peer that is not installed is left out.
"""

import importlib.util
import math
import sys
import time
from collections.abc import Callable

import numpy
import torch
import torchdiffeq
from scipy.optimize import minimize
from torch import Tensor

from onepath import fields
from onepath.calculus import constant
from onepath.dynamics import Dynamics
from onepath.interpolants import edm, linear
from onepath.measures import Mixture
from onepath.oracles import MixturePath
from onepath.samplers import adams, ancestral, churned, corrected, ddim, midpoint, multistep
from onepath.solvers import heun, integrate, times
from onepath.time_grids import karras, optimised, uniform_in_log_snr
from onepath.verify import slope

F64 = torch.float64
START, STOP = 0.001, 0.999
STARTS = 40_000  # on the laws that nothing is tuned on
CALLS = (10, 20, 40)
HAS = {name: importlib.util.find_spec(name) is not None for name in ("azula", "diffusers")}
Sampler = Callable[[Callable, Tensor, Tensor], Tensor]  # (denoiser, x, grid) -> last state


# --- laws


def mixture(seed: int, d: int, k: int, spread: float, low: float, high: float) -> Mixture:
    """k components; standard deviations along random axes between low and high."""
    generator = torch.Generator().manual_seed(seed)
    weights = 0.3 + torch.rand(k, generator=generator, dtype=F64)
    means = spread * torch.randn(k, d, generator=generator, dtype=F64)
    axes = torch.linalg.qr(torch.randn(k, d, d, generator=generator, dtype=F64))[0]
    sizes = (low + (high - low) * torch.rand(k, d, generator=generator, dtype=F64)) ** 2
    covs = axes @ (sizes[..., None] * axes.mT)
    return Mixture(weights / weights.sum(), means, 0.5 * (covs + covs.mT))


LAWS = {
    "A": mixture(1, 2, 5, 1.2, 0.15, 0.5),
    "B, d = 2": mixture(2, 2, 7, 1.0, 0.1, 0.5),
    "B, d = 8": mixture(4, 8, 7, 1.0, 0.1, 0.5),
    "C, d = 2": mixture(5, 2, 5, 1.0, 0.2, 0.6),
    "C, d = 8": mixture(3, 8, 5, 1.0, 0.2, 0.6),
}


def denoiser_of(law: Mixture) -> Callable:
    """`MixturePath.denoiser` on the linear path, with the covariances diagonalised once."""
    sizes, axes = torch.linalg.eigh(law.covs)

    def denoiser(t: Tensor, x: Tensor) -> Tensor:
        t = float(t)
        spread = (1 - t) ** 2 + t**2 * sizes
        moved = torch.einsum("kji,nkj->nki", axes, x[:, None].double() - t * law.means)
        parts = law.weights.log() - 0.5 * ((moved**2 / spread) + spread.log()).sum(-1)
        back = law.means + torch.einsum("kij,nkj->nki", axes, t * sizes / spread * moved)
        return torch.einsum("nk,nki->ni", parts.softmax(1), back)

    return denoiser


def flow_of(denoiser: Callable) -> Callable:
    return lambda t, x: (denoiser(t, x) - x) / (1 - t)


# --- samplers as functions of a grid, with the calls that a step takes


def ours(make: Callable, calls: int = 1) -> tuple[Sampler, float, str]:
    return lambda d, x, grid: integrate(make(d), x, grid), calls, "onepath"


def by_torchdiffeq(method: str, calls: float) -> tuple[Sampler, float, str]:
    return (
        lambda d, x, grid: torchdiffeq.odeint(flow_of(d), x, grid, method=method)[-1],
        calls,
        "torchdiffeq",
    )


def by_azula(name: str, calls: int = 1, **options: object) -> tuple[Sampler, float, str]:
    from azula import sample
    from azula.denoise import Denoiser, DiracPosterior
    from azula.noise import Schedule

    class Linear(Schedule):
        """Their clock runs from data to noise."""

        def alpha(self, t: Tensor) -> Tensor:
            return 1 - t

        def sigma(self, t: Tensor) -> Tensor:
            return t

        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return 1 - t, t

    class Theirs(Denoiser):
        def __init__(self, denoiser: Callable) -> None:
            super().__init__()
            self.denoiser, self.schedule = denoiser, Linear()

        def forward(self, x_t: Tensor, t: Tensor, **kwargs: object) -> DiracPosterior:
            return DiracPosterior(self.denoiser(1 - t, x_t))

    kind = getattr(sample, name)

    def run(d: Callable, x: Tensor, grid: Tensor) -> Tensor:
        on_grid = type(name, (kind,), {"timesteps": property(lambda self: 1 - grid)})
        sampler = on_grid(Theirs(d), steps=len(grid) - 1, silent=True, dtype=F64, **options)
        return sampler(x)

    return run, calls, "azula"


def diffusers_scheduler(name: str, grid: Tensor, flow: bool, **options: object) -> object:
    """A scheduler whose noise levels are those of a grid of the linear path."""
    import diffusers

    quiet()
    flags = {"use_flow_sigmas": True, "prediction_type": "sample"} if flow else {}
    scheduler = getattr(diffusers, name)(num_train_timesteps=1000, **flags, **options)
    scheduler.set_timesteps(len(grid) - 1)
    levels = 1 - grid if flow else (1 - grid) / grid
    scheduler.sigmas = levels.clone()
    scheduler.timesteps = torch.arange(len(grid) - 1, 0, -1).double()
    scheduler._step_index = 0
    return scheduler


def by_diffusers(name: str, **options: object) -> tuple[Sampler, float, str]:
    def run(d: Callable, x: Tensor, grid: Tensor) -> Tensor:
        scheduler = diffusers_scheduler(name, grid, True, **options)
        for t, label in zip(grid[:-1], scheduler.timesteps):
            x = scheduler.step(d(t, x), label, x).prev_sample
        return x

    return run, 1, "diffusers"


def heun_by_diffusers() -> tuple[Sampler, float, str]:
    """HeunDiscreteScheduler, whose state is x / alpha."""

    def run(d: Callable, x: Tensor, grid: Tensor) -> Tensor:
        import diffusers

        quiet()
        scheduler = diffusers.HeunDiscreteScheduler(prediction_type="sample")
        scheduler.set_timesteps(len(grid) - 1)
        levels = (1 - grid) / grid
        scheduler.sigmas = torch.cat([levels[:1], levels[1:].repeat_interleave(2)])
        scheduler._step_index = 0
        x = x / grid[0]
        for k in range(2 * (len(grid) - 1)):
            t = grid[(k + 1) // 2]
            x = scheduler.step(d(t, t * x), t, x).prev_sample
        return x * grid[-1]

    return run, 2, "diffusers"


def quiet() -> None:
    import diffusers

    diffusers.utils.logging.set_verbosity_error()


def field() -> dict[str, tuple[Sampler, float, str]]:
    """Every sampler of the comparison; the best order of a family is chosen on mixture A."""
    found = {
        "ddim": ours(lambda d: ddim(d, linear)),
        "midpoint": ours(lambda d: midpoint(d, linear, fields.data), 2),
    }
    for k in (2, 3):
        found[f"multistep {k}"] = ours(lambda d, k=k: multistep(d, linear, k))
    for k in (2, 3, 4, 5):
        found[f"adams {k}"] = ours(lambda d, k=k: adams(d, linear, k))
    for method, calls in {"midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4}.items():
        found[f"torchdiffeq {method}"] = by_torchdiffeq(method, calls)
    if HAS["azula"]:
        found["azula Heun"] = by_azula("HeunSampler", 2)
        for name in ("zAB", "vAB", "zEAB", "xEAB", "REAB"):
            for k in (2, 3, 4):
                found[f"azula {name} {k}"] = by_azula(f"{name}Sampler", order=k)
    if HAS["diffusers"]:
        last = {"lower_order_final": False}
        for k in (2, 3):
            found[f"diffusers DPM-Solver++ {k}M"] = by_diffusers(
                "DPMSolverMultistepScheduler", solver_order=k, final_sigmas_type="sigma_min", **last
            )
            found[f"diffusers DEIS {k}"] = by_diffusers(
                "DEISMultistepScheduler", solver_order=k, **last
            )
            for kind in ("bh1", "bh2"):
                found[f"diffusers UniPC {k} {kind}"] = by_diffusers(
                    "UniPCMultistepScheduler",
                    solver_order=k,
                    solver_type=kind,
                    final_sigmas_type="sigma_min",
                    **last,
                )
        found["diffusers DPM-Solver++ 2M heun"] = by_diffusers(
            "DPMSolverMultistepScheduler",
            solver_order=2,
            solver_type="heun",
            final_sigmas_type="sigma_min",
            **last,
        )
        found["diffusers Heun"] = heun_by_diffusers()
    return found


# --- grids


def warped(n: int, a: float, b: float) -> Tensor:
    """A grid of two parameters in the angle arctan(alpha / sigma); a = b = 1 is uniform there."""
    r = torch.linspace(0, 1, n + 1, dtype=F64)
    first, last = (math.atan2(t, 1 - t) for t in (START, STOP))
    angle = first + (last - first) * (1 - (1 - r**a) ** b)
    grid = angle.sin() / (angle.sin() + angle.cos())
    grid[0], grid[-1] = START, STOP
    return grid


def grids(n: int) -> dict[str, Tensor]:
    found = {
        "t": times(n, START, STOP),
        "lambda": uniform_in_log_snr(linear, n, START, STOP),
        "angle": warped(n, 1.0, 1.0),
        "local errors of Adams": optimised(*PILOT[0], n),
        "local errors of DDIM": optimised(*PILOT[1], n),
    }
    for rho in (3, 7):
        found[f"EDM, rho {rho}"] = karras(linear, n, START, STOP, rho)
    return found


PILOT: list[tuple] = []


def distance(a: Tensor, b: Tensor, without: int = 0) -> float:
    """Root mean square over points of the Euclidean distance, without the farthest ones."""
    squares = (a.double() - b).square().sum(1).sort().values
    error = squares[: len(squares) - without].mean().sqrt().item()
    return error if error == error else math.inf


def best_grid(run: Sampler, d: Callable, x: Tensor, exact: Tensor, n: int) -> tuple:
    """(error on A, name, grid): the fixed grids, and two parameters by Nelder and Mead."""
    tried = {k: (distance(run(d, x, g), exact), g) for k, g in grids(n).items()}

    def loss(z: numpy.ndarray) -> float:
        if not (0.3 < z[0] < 4 and 0.3 < z[1] < 4):
            return 10.0
        return math.log(distance(run(d, x, warped(n, *z)), exact) + 1e-12)

    options = {"maxfev": 30, "xatol": 0.02, "fatol": 0.02}
    z = minimize(loss, [1.1, 1.3], method="Nelder-Mead", options=options).x
    a, b = (round(max(0.3, min(4.0, value)), 2) for value in z)
    grid = warped(n, a, b)
    tried[f"warped {a:.2f}, {b:.2f}"] = distance(run(d, x, grid), exact), grid
    name = min(tried, key=lambda k: tried[k][0])
    return tried[name][0], name, tried[name][1]


def exact_flow(law: Mixture, n: int) -> tuple[Callable, Tensor, Tensor, float]:
    """The denoiser, starts, where the flow carries them, and how sure that is."""
    d = denoiser_of(law)
    generator = torch.Generator().manual_seed(7)
    x = MixturePath(linear, law).sample(torch.tensor(START, dtype=F64), n, generator)
    fine, finer = (
        torchdiffeq.odeint(flow_of(d), x, warped(m, 1.1, 1.3), method="rk4")[-1] for m in (150, 300)
    )
    return d, x, finer, distance(fine, finer)


def accuracy() -> dict:
    """Errors at 10, 20 and 40 calls, with grids and orders chosen on A."""
    starts = {name: 48 if name == "A" else STARTS for name in LAWS}
    problems = {name: exact_flow(law, starts[name]) for name, law in LAWS.items()}
    d, x, exact, _ = problems["A"]
    PILOT[:] = [(make, x, warped(100, 1.0, 1.0)) for make in (adams(d, linear, 1), ddim(d, linear))]
    rows = []
    for name, (run, calls, package) in field().items():
        for budget in CALLS:
            n = max(round(budget / calls), 2)
            begin = time.process_time()
            on_a, grid_name, grid = best_grid(run, d, x, exact, n)
            row = {"sampler": name, "package": package, "calls": int(n * calls), "budget": budget}
            row |= {"grid": grid_name, "A": on_a}
            row |= on_others(run, grid, problems)
            rows.append(row)
            shown = {k: f"{v:.2g}" if isinstance(v, float) else v for k, v in row.items()}
            print(f"{time.process_time() - begin:.0f} s", shown, file=sys.stderr, flush=True)
    reference = {k: p[3] for k, p in problems.items()}
    return {"rows": rows, "reference": reference, "starts": STARTS}


def on_others(run: Sampler, grid: Tensor, problems: dict) -> dict:
    """Errors on the laws that nothing was chosen on, whole and in ten sets of starts.

    "most" leaves out one point in a thousand.
    """
    found = {}
    for law, (field_of, starts, end, _) in problems.items():
        if law != "A":
            last = run(field_of, starts, grid)
            found[law] = distance(last, end)
            found[f"{law}, most"] = distance(last, end, len(last) // 1000)
            sets = zip(last.chunk(10), end.chunk(10))
            found[f"{law}, sets"] = [float(f"{distance(*both):.3g}") for both in sets]
    return found


# --- variances


def units(draws: int) -> tuple[Tensor, Callable]:
    """Starts and draws that read off a linear sampler: row 0 has the start, row j the j-th draw."""
    x, count = torch.zeros(draws + 1, 1, dtype=F64), [0]
    x[0] = 1.0

    def draw(*args: object, **kwargs: object) -> Tensor:
        count[0] += 1
        noise = torch.zeros_like(x)
        noise[count[0]] = 1.0
        return noise

    return x, draw


def drawn_by(draw: Callable, run: Callable) -> Tensor:
    """Run with every normal draw of torch replaced."""
    kept = torch.randn, torch.randn_like
    torch.randn = torch.randn_like = draw
    try:
        return run()
    finally:
        torch.randn, torch.randn_like = kept


def law_variance(run: Callable, start: float, draws: int = 200) -> float:
    """The exact variance of the last state, for a start of this variance."""
    x, draw = units(draws)
    last = drawn_by(draw, lambda: run(x)).double()
    return (start * last[0] ** 2 + (last[1:] ** 2).sum(0)).item()


def variance() -> dict:
    """Variance of the law over that of the data, at 64 calls, for exact Gaussian denoisers."""
    generator = torch.Generator()
    rows = []
    for name, (calls, build, whole) in stochastic().items():
        row = {"sampler": name, "calls": 64}
        for v in (4.0, 0.25):
            gain = lambda t, v=v: v * t / (v * t**2 + (1 - t) ** 2)
            d = lambda t, x, gain=gain: gain(float(t)) * x
            n = 64 // calls
            grid = times(n) if whole else times(n, START, STOP)
            t0, t1 = float(grid[0]), float(grid[-1])
            of = lambda t, v=v: v * t**2 + (1 - t) ** 2
            found = law_variance(lambda x: build(d, v, x, grid, generator), of(t0))
            row[f"v = {v:g}"] = found / of(t1)
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    return {"rows": rows}


def stochastic() -> dict:
    """Samplers by name: calls a step, (denoiser, v, x, grid, generator) -> state, whole path."""
    mine = lambda make: lambda d, v, x, g, gen: integrate(make(d, v), x, g, gen)
    gain = lambda v: lambda t: v * (1 - t) ** 2 / (v * t**2 + (1 - t) ** 2)
    score = lambda d: lambda t, x: (t * d(t, x) - x) / (1 - t) ** 2
    size = lambda t: 0.2 * (1 - t)
    found = {
        "ddim": (1, mine(lambda d, v: ddim(d, linear)), True),
        "ddim, zeta 0.5": (1, mine(lambda d, v: ddim(d, linear, 0.5)), True),
        "ancestral": (1, mine(lambda d, v: ancestral(d, linear)), True),
        "ancestral, optimal variance": (1, mine(lambda d, v: ancestral(d, linear, gain(v))), True),
        "midpoint": (2, mine(lambda d, v: midpoint(d, linear, fields.data)), True),
        "multistep 2": (1, mine(lambda d, v: multistep(d, linear, 2)), True),
        "multistep 2, zeta 0.5": (1, mine(lambda d, v: multistep(d, linear, 2, 0.5)), True),
        "multistep 2, zeta 1": (1, mine(lambda d, v: multistep(d, linear, 2, 1.0)), True),
        "multistep 3, zeta 1": (1, mine(lambda d, v: multistep(d, linear, 3, 1.0)), True),
        "adams 3": (1, mine(lambda d, v: adams(d, linear, 3)), True),
        "corrected ddim": (
            2,
            mine(lambda d, v: corrected(ddim(d, linear), score(d), 1, size)),
            True,
        ),
        "churned ddim": (
            1,
            mine(lambda d, v: churned(ddim(d, linear), linear, constant(0.1))),
            True,
        ),
        "churned midpoint": (
            2,
            mine(lambda d, v: churned(midpoint(d, linear, fields.data), linear, constant(0.1))),
            True,
        ),
    }
    theirs = lambda *a, **k: lambda d, v, x, g, gen: by_azula(*a, **k)[0](d, x, g)
    if HAS["azula"]:
        found |= {
            "azula DDPM": (1, theirs("DDPMSampler"), False),
            "azula DDIM, eta 0": (1, theirs("DDIMSampler", eta=0.0), False),
            "azula DDIM, eta 1": (1, theirs("DDIMSampler", eta=1.0), False),
            "azula Ito, eta 1": (1, theirs("ItoSampler", eta=1.0), False),
            "azula Heun": (2, theirs("HeunSampler"), False),
            "azula vAB 3": (1, theirs("vABSampler", order=3), False),
        }
    if HAS["diffusers"]:
        sde = {"algorithm_type": "sde-dpmsolver++", "final_sigmas_type": "sigma_min"}
        for k in (1, 2):
            name = f"diffusers SDE-DPM-Solver++ {k}"
            options = {"solver_order": k, "lower_order_final": False} | sde
            found[name] = (1, sde_by_diffusers(options), False)
    return found


def sde_by_diffusers(options: dict) -> Callable:
    def run(d: Callable, v: float, x: Tensor, grid: Tensor, generator: torch.Generator) -> Tensor:
        scheduler = diffusers_scheduler("DPMSolverMultistepScheduler", grid, True, **options)
        for t, label in zip(grid[:-1], scheduler.timesteps):
            noise = torch.randn_like(x)
            x = scheduler.step(d(t, x), label, x, variance_noise=noise).prev_sample
        return x

    return run


# --- agreement, step by step


def agreement() -> dict:
    """The largest distance between our states and those of diffusers' schedulers, along a run."""
    return {} if not HAS["diffusers"] else compared()


def compared() -> dict:
    import diffusers

    quiet()
    law = LAWS["B, d = 2"]
    path, d = MixturePath(linear, law), denoiser_of(law)
    x = path.sample(torch.tensor(START, dtype=F64), 64, torch.Generator().manual_seed(3))
    grid, found = uniform_in_log_snr(linear, 20, START, STOP), {}
    plain = {"final_sigmas_type": "sigma_min", "lower_order_final": False}
    multi = "DPMSolverMultistepScheduler"
    pairs = {
        "DPMSolverMultistep, order 1": (ddim(d, linear), multi, {"solver_order": 1}),
        "DPMSolverMultistep, order 2": (multistep(d, linear, 2), multi, {"solver_order": 2}),
        "DPMSolverMultistep, order 3": (multistep(d, linear, 3), multi, {"solver_order": 3}),
        "DPMSolverMultistep, sde, order 1": (
            ancestral(d, linear),
            multi,
            {"solver_order": 1, "algorithm_type": "sde-dpmsolver++"},
        ),
        "DPMSolverMultistep, sde, order 2": (
            multistep(d, linear, 2, 1.0),
            multi,
            {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"},
        ),
    }
    for name, (step, scheduler, options) in pairs.items():
        theirs = diffusers_scheduler(scheduler, grid, True, **options, **plain)
        found[name] = along(step, theirs, d, x, grid)
    found |= single(d, x, grid) | discrete(diffusers, d, x) | in_sigma(diffusers, law)
    for name, value in found.items():
        print(name, value, file=sys.stderr)
    return {"gaps": found, "orders": third_orders(law)}


def third_orders(law: Mixture) -> dict:
    """The slope of the error of both third orders, on steps that are equal in lambda."""
    d, counts = denoiser_of(law), [32, 64, 128]
    on = lambda n: uniform_in_log_snr(linear, n, 0.05, 0.95)
    x = MixturePath(linear, law).sample(on(2)[0], 64, torch.Generator().manual_seed(3))
    exact = torchdiffeq.odeint(flow_of(d), x, on(400), method="rk4")[-1]
    theirs, _, _ = by_diffusers(
        "DPMSolverMultistepScheduler",
        solver_order=3,
        final_sigmas_type="sigma_min",
        lower_order_final=False,
    )
    both = {"ours": ours(lambda d: multistep(d, linear, 3))[0], "theirs": theirs}
    sizes = [1 / n for n in counts]
    return {
        name: slope(sizes, [distance(run(d, x, on(n)), exact) for n in counts])
        for name, run in both.items()
    }


def single(d: Callable, x: Tensor, grid: Tensor) -> dict:
    """Their grid holds the middles of our steps, which the first of two calls reaches by DDIM."""
    kind, options = "DPMSolverSinglestepScheduler", {"final_sigmas_type": "sigma_min"}
    theirs, y = diffusers_scheduler(kind, grid, True, solver_order=2, **options), x
    theirs.order_list = [1, 2] * (len(grid) // 2)
    for t, label in zip(grid[:-1], theirs.timesteps):
        y = theirs.step(d(t, y), label, y).prev_sample
    ours = integrate(midpoint(d, linear, fields.data), x, grid[::2])
    return {"DPMSolverSinglestep, order 2": (ours - y).abs().max().item()}


def in_sigma(diffusers: object, law: Mixture) -> dict:
    """EDM's Euler and Heun steps, on the path x_1 + sigma eps with sigma affine in t."""
    path = MixturePath(edm(0.05, 10.0, 1.0), law)
    grid = times(20)
    sigma = path.interpolant.sigma(grid)
    x = path.sample(grid[0], 64, torch.Generator().manual_seed(2))
    euler, second = diffusers.EDMEulerScheduler(), diffusers.HeunDiscreteScheduler()
    euler.set_timesteps(20)
    euler.sigmas, euler._step_index, euler.is_scale_input_called, y = sigma, 0, True, x
    for t, s in zip(grid[:-1], sigma):
        guess = path.denoiser(t, y)
        y = euler.step(guess, s.float(), y, pred_original_sample=guess).prev_sample
    one = integrate(ddim(path.denoiser, path), x, grid) - y
    second.set_timesteps(20)
    second.sigmas = torch.cat([sigma[:1], sigma[1:].repeat_interleave(2)])
    second._step_index, y = 0, x
    for k in range(40):
        level = (sigma[(k + 1) // 2], grid[(k + 1) // 2])
        y = second.step((y - path.denoiser(level[1], y)) / level[0], level[1], y).prev_sample
    two = integrate(heun(Dynamics(path.velocity)), x, grid) - y
    return {"EDMEuler": one.abs().max().item(), "Heun": two.abs().max().item()}


def along(step: Callable, theirs: object, d: Callable, x: Tensor, grid: Tensor) -> float:
    generator, y, memory, far = torch.Generator().manual_seed(5), x, None, 0.0
    sde = "sde" in theirs.config.algorithm_type
    for t, s, label in zip(grid[:-1], grid[1:], theirs.timesteps):
        noise = torch.randn(x.shape, generator=generator, dtype=F64)
        more = {"variance_noise": noise} if sde else {}
        y = theirs.step(d(t, y), label, y, **more).prev_sample
        x, memory = step(x, t, s, lambda: noise, memory)
        far = max(far, (x - y).abs().max().item())
    return far


def discrete(diffusers: object, d: Callable, x: Tensor) -> dict:
    """DDIM and DDPM on their own thousand steps, which are a path with a table of times."""
    found = {}
    for name, kind, zeta in (("DDIM, eta 0", "DDIM", 0.0), ("DDIM, eta 1", "DDIM", 1.0)):
        found[name] = on_table(getattr(diffusers, f"{kind}Scheduler"), d, x, zeta, {"eta": zeta})
    found["DDPM"] = on_table(diffusers.DDPMScheduler, d, x, 1.0, {})
    return found


def on_table(kind: type, d: Callable, x: Tensor, zeta: float, options: dict) -> float:
    scheduler = kind(prediction_type="sample", clip_sample=False)
    scheduler.set_timesteps(20)
    keep = scheduler.alphas_cumprod.double()
    scheduler.alphas_cumprod = keep
    scheduler.final_alpha_cumprod = keep[0]
    alphas, sigmas = keep.sqrt(), (1 - keep).sqrt()
    # the linear path with the same ratio of data and noise has a state larger by 1/(alpha + sigma)
    clock, size = alphas / (alphas + sigmas), alphas + sigmas
    labels = scheduler.timesteps.tolist()
    y = x * size[labels[0]]
    x, memory, far = y / size[labels[0]], None, 0.0
    generator = torch.Generator().manual_seed(5)
    step = ddim(d, linear, zeta)
    for now, after in zip(labels[:-1], labels[1:]):
        noise = torch.randn(x.shape, generator=generator, dtype=F64)
        guess = d(clock[now], y / size[now])
        y = drawn_by(
            lambda *a, **k: noise, lambda: scheduler.step(guess, now, y, **options).prev_sample
        )
        x, memory = step(x, clock[now], clock[after], lambda: noise / 1.0, memory)
        far = max(far, (x * size[after] - y).abs().max().item())
    return far
