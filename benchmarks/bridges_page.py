"""The page that `bridges.py` writes from its results."""

import json
from statistics import mean, stdev

from plane_tables import RESULTS as PLANE_RESULTS

GAUSSIAN = {5: (0.007, 0.006), 20: (0.029, 0.028), 50: (0.124, 0.258)}  # [SF]2M: end, mean
LIGHT = {2: 0.05, 16: 0.09, 64: 0.24, 128: 0.62}  # per cent, LightSB at epsilon = 1
PLANE = {  # [SF]2M: W2 and normalised path energy
    "N → 8 Gaussians": (0.275, 0.016),
    "moons → 8 Gaussians": (0.726, 0.045),
    "N → moons": (0.124, 0.053),
    "N → S-curve": (0.128, 0.034),
}
ITERATES = (0.0, 0.702994, 0.779131, 0.785425, 0.785932, 0.785973)  # computed before, elsewhere

TEXT = """\
# How near learned bridges come to exact ones

Made by `python benchmarks/bridges.py` from `bridges.json`, which goes on where it was stopped.
Times are CPU seconds of one process, on {on},
shared with other work. Every bridge here is a light bridge of `onepath.light_fits`, fitted to
samples of the two ends that are never paired. No published number was measured here, or in the same
settings in every detail: they say how large such errors are.

## Between two Gaussians

N(-0.1·1, I) to N(0.1·1, I) at temperature 1; one component with a full covariance, fitted to as
many starts and ends as are named; 10 000 new starts, 20 steps. KL from the Gaussian with mean and
full covariance of the sample to the exact marginal, at t = 1 and in the mean over 21 times; the
mean over the seeds, and beside it over the floor, the same for 10 000 exact draws. An exact step
draws an end and a point of the Brownian bridge to it, which a potential in closed form allows.

| d | points | seeds | KL at t = 1: Euler | exact steps | floor | published | over floor |
| --- | --- | --- | --- | --- | --- | --- | --- |
{end}

| d | points | seeds | mean KL: Euler | exact steps | floor | published | over floor |
| --- | --- | --- | --- | --- | --- | --- | --- |
{average}

Published: [SF]2M (Tong et al. 2024). The aims are to be below, and within twice the floor ("over
floor", Euler and exact steps). Not below: {above}.
Not within twice the floor: {far}.
Points of training leave an error of their own: the ends alone cost, in expectation, as much at
t = 1 as the floor of as many draws, and it adds to that. So a bridge that has seen as many points
as are drawn ends at twice the floor or above; with ten times as many the aim says something.

The covariance of start and end, averaged over the coordinates, with 200 000 draws, over the exact
0.618034, less one (the aim is one per cent):
{close}.

## Plans whose conditional laws are known

Temperature 1. The true potential has five components drawn from one fixed seed: offsets r of
length 3 in random directions, and conditional covariances S with the eigenvalues 0.2 to 0.8, evenly
spaced, along random axes; equal log-weights (`true_potential`, chosen once and not tuned). Starts:
standard normal, or three islands of deviation 0.5 (`starts_of`). {samples} starts and as many ends,
which belong to other starts; six components with full covariances, no prior. The error is
100 · E BW²(fitted, true) / (Var(p1)/2), with the Gaussians that have mean and covariance of the
two conditional laws, both exact, over 200 new starts, ± the standard error over these. "Blind" is
the same error for the independent plan. KL is that of the true plan from the fitted one, from
20 000 new starts and ends; its own error is some 0.01.

| d | starts | error, % | published | below | blind, % | KL, nats | steps | s. to fit |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
{plans}

Published: LightSB (Korotin et al. 2024) at the same temperature and dimensions on the pairs
of a public benchmark; so "below" says that an error is small, and is no comparison of methods.

## Iterative Markovian fitting on the line

Variances 0.64 and 1.96, temperature 0.81, from independent ends, by `bridges.refitted`.

| step | covariance of the ends | computed before, independently |
| --- | --- | --- |
{iterates}

The bridge's own: {bridge:.6f}.

## Laws of the plane

Laws, training points, starts and test points are those of `plane_tables.md`: 10 000 training
points of each end, 10 000 ends against 10 000 test points, exact W2, floor on the same test points.
The temperature is {share:.0%} of the mean squared distance between a start and an end, the
potential has {parts} components and no prior; one rule for all rows, chosen among five on a seed
that is not among them, after a first choice had missed on seed 0, which is not in the means either;
so was the tolerance of the fit, 1e-5. Path energy is
|E − W2²| / W2², with E the mean of |v|² at ten times under the law of the bridge itself (1000
states each), v half the sum of both drifts, and W2² as in `plane_tables.md`. The published rows are
networks; the energy of a bridge at this temperature need not be W2², and where it is not, a fit may
be right and miss the aim. "Draw" is how much the W2² of 10 000 points moves, relatively, from
sample to sample (root mean square of two, `plane_tables.md`): a fit to such a sample is expected to
miss by about as much.

| laws | seeds | τ | W2 | published | floor | W2 less | energy | published | draw | less | fit, s |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
{plane}

{missing}
"""


def text(known: dict, share: float, parts: int, samples: int) -> str:
    plane, missing = plane_rows(known.get("plane", {}))
    line = known["iterates"]["line"]
    return TEXT.format(
        on=known["on"],
        **gaussian_rows(known),
        samples=f"{samples:,}".replace(",", " "),
        plans=plan_rows(known.get("plans", {})),
        iterates="\n".join(
            f"| {k} | {c:.6f} | {ITERATES[k]:.6f} |"
            for k, c in enumerate(line["covariances"][: len(ITERATES)])
        ),
        bridge=line["bridge"],
        plane=plane,
        missing=missing,
        share=share,
        parts=parts,
    )


def gaussian_rows(known: dict) -> dict[str, str]:
    tables = {"end": [], "average": []}
    above, far, close = [], [], []
    for d, published in GAUSSIAN.items():
        for part, points in (("gaussian", "10 000"), ("more points", "100 000")):
            runs = [run for key, run in known.get(part, {}).items() if key.startswith(f"{d}, ")]
            if not runs:
                continue
            for lines, at, other in zip(tables.values(), ("end", "mean"), published):
                euler, exact, floor = (
                    mean(run[f"{way}, {at}"] for run in runs) for way in ("euler", "exact", "floor")
                )
                lines.append(
                    f"| {d} | {points} | {len(runs)} | {euler:.4f} | {exact:.4f} | {floor:.4f} | "
                    f"{other} | {euler / floor:.2f}, {exact / floor:.2f} |"
                )
                where = f"d = {d} with {points} points, {at}"
                above += [where] * (max(euler, exact) > other)
                far += [where] * (max(euler, exact) > 2 * floor)
            c = [run["covariance of the ends"] / 0.618034 - 1 for run in runs]
            worst = max(c, key=abs)
            seeds = f"d = {d} with {points} points, {len(c)} seeds"
            close.append(f"{mean(c):+.2%} for {seeds}, the worst {worst:+.2%}")
    rows = {name: "\n".join(lines) for name, lines in tables.items()}
    listed = lambda places: "; ".join(places) or "none"
    return rows | {"above": listed(above), "far": listed(far), "close": ";\n".join(close)}


def plan_rows(found: dict) -> str:
    lines = []
    for d in LIGHT:
        for kind in ("normal", "mixture"):
            if f"{d}, {kind}" in found:
                run = found[f"{d}, {kind}"]
                lines.append(
                    f"| {d} | {kind} | {run['uvp']:.3f} ± {run['uvp, s.e.']:.3f} | {LIGHT[d]} | "
                    f"{said(run['uvp'] < LIGHT[d])} | {run['uvp of the independent plan']:.1f} | "
                    f"{run['KL, new samples']:.3f} | {run['steps']} | {run['seconds to fit']:.0f} |"
                )
    return "\n".join(lines)


def plane_rows(found: dict) -> tuple[str, str]:
    others, lines, absent = json.loads(PLANE_RESULTS.read_text()), [], []
    for task, (w2, energy) in PLANE.items():
        every = {s: found[f"{task}, {s}"] for s in range(1, 100) if f"{task}, {s}" in found}
        done = {s: run for s, run in every.items() if "failed" not in run}
        absent += [f"{task} was not measured."] * (not every)
        absent += [
            f"{task}, seed {s}: the fit did not converge ({run['failed']})"
            for s, run in every.items()
            if "failed" in run
        ]
        if not done:
            continue
        runs, floors = done.values(), [others[f"{task}, real, {s}"]["floor"] for s in done]
        shift = others[f"{task}, squared"]
        squared = mean(
            others[f"{task}, real, {k}"]["squared"] + shift[f"shift_{k}"] for k in (1, 2)
        )
        drawn = mean((shift[f"shift_{k}"] / squared) ** 2 for k in (1, 2)) ** 0.5
        off = [abs(run["energy"] / squared - 1) for run in runs]
        m = lambda name: mean(run[name] for run in runs)
        lines.append(
            f"| {task} | {len(runs)} | {m('tau'):.3f} | {shown([r['w2'] for r in runs])} | {w2} | "
            f"{shown(floors)} | {said(m('w2') < w2)} | {shown(off)} | {energy} | "
            f"{drawn:.3f} | "
            f"{said(mean(off) < energy)} | {m('seconds to fit'):.0f} |"
        )
    return "\n".join(lines), " ".join(absent)


def shown(values: list[float]) -> str:
    spread = f" ± {stdev(values) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{spread}"


def said(met: bool) -> str:
    return "yes" if met else "no"
