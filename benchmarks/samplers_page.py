# ruff: noqa: E501 (the lines of a page are as long as those of the other pages)
"""The page `samplers.md`, written from the numbers in `samplers.json`."""

BUDGETS = (10, 20, 40)
LAWS = ("B, d = 2", "B, d = 8", "C, d = 2", "C, d = 8")


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(results: dict) -> str:
    parts = {
        "accuracy": accuracy,
        "overhead": overhead,
        "compiled": compiled,
        "variance": variance,
        "agreement": agreement,
    }
    written = [part(results[name]) for name, part in parts.items() if results.get(name)]
    return "\n\n".join([HEAD.format(**results), *written]) + "\n"


HEAD = """# Samplers: error, cost, variance, and the steps of others

`python benchmarks/samplers.py` measures this page and writes it from `samplers.json`. It needs `diffusers`,
which comes with `onepath[test]`, and `azula` for the rows with their names; the second is no dependency of the book and was
installed without those of its own that would bring torchvision. {machine}, two virtual cores shared with other
work, one thread."""


def best(rows: list[dict], budget: int, package: str) -> dict:
    """The sampler of a package with the least error on A at this budget."""
    mine = [r for r in rows if r["budget"] == budget and r["package"] == package]
    return min(mine, key=lambda r: r["A"])


def comparisons(rows: list[dict], what: str) -> tuple[int, str]:
    """How often ours, chosen on A, has less error than all others, and where that is close."""
    wins, close = 0, []
    for budget in BUDGETS:
        others = [r for r in rows if r["package"] != "onepath" and r["budget"] == budget]
        ours = best(rows, budget, "onepath")
        for law in LAWS:
            rival = min(others, key=lambda r: r[f"{law}{what}"])
            wins += ours[f"{law}{what}"] < rival[f"{law}{what}"]
            sets = list(zip(ours[f"{law}, sets"], rival[f"{law}, sets"]))
            less = sum(a < b for a, b in sets)
            if less < len(sets):
                close.append(
                    f"{law} at {budget} calls ({ours[law]:.1e} for ours, {rival[law]:.1e} for "
                    f"{rival['sampler']}; less in {less} of {len(sets)})"
                )
    return wins, f", except {'; '.join(close)}" if close else ""


def accuracy(found: dict) -> str:
    rows, said = found["rows"], []
    packages = list(dict.fromkeys(r["package"] for r in rows))
    for budget in BUDGETS:
        for package in packages:
            r = best(rows, budget, package)
            errors = [f"{r[law]:.1e}" for law in ("A", *LAWS)]
            said.append([str(budget), r["sampler"], str(r["calls"]), r["grid"], *errors])
    every = []
    for name in dict.fromkeys(r["sampler"] for r in rows):
        mine = {r["budget"]: r for r in rows if r["sampler"] == name}
        mean = lambda r: sum(r[law] ** 2 for law in LAWS) ** 0.5 / 2
        less = lambda r: sum(r[f"{law}, most"] ** 2 for law in LAWS) ** 0.5 / 2
        cells = [f"{mean(mine[b]):.1e} ({mine[b]['calls']})" for b in BUDGETS]
        every.append([name, *cells, *(f"{less(mine[b]):.1e}" for b in BUDGETS)])
    wins, close = comparisons(rows, "")
    most, _ = comparisons(rows, ", most")
    sure = max(found["reference"].values())
    return f"""## Error at equal network calls

Root mean square distance, over {found["starts"]} points of B and C, to where the flow carries the same starts; exact denoisers of
Gaussian mixtures, linear path, from t = 0.001 to 0.999 so that no method divides by zero. The flow is
solved by 300 steps of rk4, which differ from 150 by {sure:.0e} at most. For each sampler the grid was chosen
on mixture A (two dimensions, 48 points): equal steps in t, in λ, in the angle, EDM's with ρ = 3 and 7, two
grids with equal local errors (`time_grids.optimised`), and a family of two parameters by Nelder and
Mead. The best sampler of each package, again on A, with its errors there and on B and C, which nothing was
tuned on:

{table(["budget", "sampler", "calls", "grid", "A", *LAWS], said)}

Ours was chosen on A, and has less error than *every* sampler of the other packages, each on its best grid, in
{wins} of {len(BUDGETS) * len(LAWS)} comparisons on B and C. Cut into ten sets of starts, each comparison comes out
alike in all ten{close}. In eight dimensions a few trajectories in a
thousand start next to the border between two components, the square of their error is most of the sum, and
whether one of them ends on the wrong side is chance. Without the farthest points, one in a thousand, ours has
less error than every other in {most} of {len(BUDGETS) * len(LAWS)}.

All samplers, root mean square over the four laws of B and C, with the calls made in brackets, and the same without one
point in a thousand:

{table(["sampler", *(f"{b} calls" for b in BUDGETS), *(f"{b}, most" for b in BUDGETS)], every)}"""


def overhead(found: dict) -> str:
    rows = []
    for name, r in found.items():
        ratios = [f"{r[k]:.3f}" for k in ("ours / hand", "hand / bare", "ours / bare")]
        rows.append([*name.rsplit(", ", 1), str(r["calls"]), *ratios, f"{r['more, us']:.1f}"])
    disturbed = [name for name, r in found.items() if r["hand / bare"] > 1.5]
    ratios = [r["ours / hand"] for name, r in found.items() if name not in disturbed]
    apart = (
        f", {' and '.join(disturbed)} apart, where the loop by hand was disturbed"
        if disturbed
        else ""
    )
    near, worst = sum(r <= 1.03 for r in ratios), max(ratios)
    more = max(r["more, us"] for r in found.values())
    call = min(r["least call, us"] for name, r in found.items() if name.endswith(" 256"))
    head = [
        "sampler",
        "batch",
        "calls",
        "ours / hand",
        "hand / bare",
        "ours / bare",
        "more, µs a step",
    ]
    return f"""## Cost beyond the network calls

{table(head, rows)}

64 steps on the linear path, MLP 3×64 in float32, inference mode, CPU seconds, the median over 45
interleaved turns (of three runs each at batch 256) of the ratio within a turn. The loop by hand computes its
coefficients for the whole grid before the loop, as `integrate` has a sampler do; ours keeps those of the last
grids, so that only the first run pays for schedules that check their times (a few milliseconds, and six
more where the middle of a step or a churned time has to be found by bisection).

The aim is at most 1.03 times the loop by hand: {near} of {len(ratios)} rows, the largest {worst:.3f}{apart}. Beside other work on
its cores the same row moves by 0.05 and more from run to run, so the last column says what a step of ours takes
more than one by hand with a network that does nothing, the least of 300 runs: at most {more:.1f} µs, at most {100 * more / call:.1f}
per cent of a call of this network at batch 256, {call:.0f} µs at its quickest."""


def compiled(found: dict) -> str:
    rows = [[*name.rsplit(", ", 1), *(f"{v:.2f}" for v in r.values())] for name, r in found.items()]
    worst = max(r["run / eager calls"] for r in found.values())
    calls = min(r["compiled calls / eager calls"] for r in found.values())
    verdict = "met" if worst <= 0.85 else "not met"
    why = f"The compiled calls alone take {calls:.2f} times the eager ones at best, so there is nothing to win on this processor."
    return f"""## With a compiled network

{table(["sampler", "batch", "run / eager calls", "compiled calls / eager calls"], rows)}

`torch.compile` of the network, after a warm-up, against as many bare calls of it uncompiled. The aim of
0.85 is {verdict} here. {why if calls > 0.85 else ""}"""


def variance(found: dict) -> str:
    rows = [[r["sampler"], f"{r['v = 4']:.4f}", f"{r['v = 0.25']:.4f}"] for r in found["rows"]]
    return f"""## Variance of the law at 64 calls

{table(["sampler", "data variance 4", "data variance 0.25"], rows)}

Variance of the last state over the right one, for the exact denoiser of Gaussian data and equal steps in t.
No samples: a sampler is linear in its start and its draws here, so a batch in which each row has one of them
reads off the law. azula and diffusers run from 0.001 to 0.999 and start from the right variance."""


def agreement(found: dict) -> str:
    rows = [[name, OURS[name], f"{value:.0e}"] for name, value in found["gaps"].items()]
    orders = found["orders"]
    return f"""## The same steps in diffusers

{table(["scheduler of diffusers", "ours", "largest distance on a run of 20 steps"], rows)}

Same starts, same noise, exact denoiser, each on its own states. Most of those schedulers compute in float32,
DDIM and DDPM in the dtype of their table, here float64. The third order of DPM-Solver++ does not agree, because theirs has
half of the second difference: with the whole of it the two agree to rounding (`tests/test_diffusers.py`). The
slope of the error, on 32, 64 and 128 equal steps in λ from t = 0.05 to 0.95, is {orders["ours"]:.2f} for ours and {orders["theirs"]:.2f} for theirs."""


OURS = {
    "DPMSolverMultistep, order 1": "ddim",
    "DPMSolverMultistep, order 2": "multistep, order 2",
    "DPMSolverMultistep, order 3": "multistep, order 3",
    "DPMSolverMultistep, sde, order 1": "ancestral",
    "DPMSolverMultistep, sde, order 2": "multistep, order 2, zeta 1",
    "DPMSolverSinglestep, order 2": "midpoint, data",
    "DDIM, eta 0": "ddim",
    "DDIM, eta 1": "ddim, zeta 1",
    "DDPM": "ancestral",
    "EDMEuler": "ddim",
    "Heun": "solvers.heun, clock of sigma",
}
