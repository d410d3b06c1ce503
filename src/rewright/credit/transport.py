"""Batched entropic optimal transport between predicted and gold calls (MatchTIR, soft assignment).

For similarities S in [0, 1], uniform marginals a = 1/P and b = 1/G and regularisation reg::

    T = argmin_T  sum_ij -S_ij T_ij + reg * sum_ij T_ij (log T_ij - 1),   T 1 = a,  T' 1 = b

The plan has the form T_ij = exp((f_i + g_j + S_ij) / reg). Sinkhorn iterations alternate between the two marginals
and converge fast unless reg is small, where they would need up to 1/reg times as many steps. The regularisation is
therefore annealed, and each stage ends with Newton steps on the concave semi-dual in g (rows exact, f eliminated),
which converge quadratically. Potentials stay in the log domain, so that no reg overflows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["plans"]

Array = NDArray[np.float64]

_TOLERANCE = 1e-12
"""Convergence threshold on the L1 error of the column marginals (the documented accuracy is 1e-9)."""

_KERNEL_REG = 0.05
"""For reg >= this, exp(S / reg) <= exp(20), so Sinkhorn can run on the kernel itself as matrix products."""

_MIN_REG, _MAX_REG = 1e-12, 1e12
"""Bounds on reg. Beyond them the plan has reached its limit (an assignment, or the product of the marginals) and
arithmetic would overflow."""

_CHUNK_SIZE = 30_000
"""Matrix entries solved together: large enough to amortize Python overhead, small enough for the CPU cache."""


def plans(similarities: Sequence[Array], reg: float) -> list[Array]:
    """Solve one transport problem per similarity matrix.

    Args:
        similarities: arrays (P, G) with entries in [0, 1]; shapes may differ.
        reg: entropic regularisation, clipped to [1e-12, 1e12].

    Returns plans float64 (P, G) with row sums 1/P and column sums 1/G to 1e-9. An empty problem gets an empty array of
    its shape. A plan does not depend on the other problems of the batch.
    """
    reg = float(np.clip(float(reg), _MIN_REG, _MAX_REG))
    results: list[Array] = [np.zeros(matrix.shape) for matrix in similarities]
    shapes: dict[tuple[int, int], list[int]] = {}
    for index, matrix in enumerate(similarities):
        if matrix.size == 0:
            continue
        if 1 in matrix.shape or not matrix.any():
            results[index][:] = 1.0 / matrix.size  # the only feasible plan, or the optimum for all-zero similarities
        else:
            shapes.setdefault(matrix.shape, []).append(index)
    for (P, G), members in shapes.items():
        size = max(1, _CHUNK_SIZE // (P * G))
        for start in range(0, len(members), size):
            chunk = members[start : start + size]
            stack = np.stack([similarities[index] for index in chunk])
            for index, plan in zip(chunk, _solve(stack, reg), strict=True):
                results[index] = plan
    return results


def _solve(S_NPG: Array, reg: float) -> Array:
    """Plans (N, P, G) of N problems of one shape."""
    if S_NPG.shape[2] > S_NPG.shape[1]:  # Newton solves (G, G) systems: transpose so that G is the smaller axis
        return np.ascontiguousarray(_solve(np.ascontiguousarray(S_NPG.transpose(0, 2, 1)), reg).transpose(0, 2, 1))
    if reg >= _KERNEL_REG:
        g_NG = _kernel_sinkhorn(S_NPG, reg, sweeps=20)
    else:
        g_NG = np.zeros((S_NPG.shape[0], S_NPG.shape[2]))
        stage = _KERNEL_REG
        while stage > reg * 1.5:
            g_NG, _ = _newton(S_NPG, g_NG, stage, tolerance=1e-3, steps=20)
            stage = max(stage / 3.0, reg)
    _, plan_NPG = _newton(S_NPG, g_NG, reg, tolerance=_TOLERANCE, steps=300)
    return _balance(plan_NPG)


def _kernel_sinkhorn(S_NPG: Array, reg: float, sweeps: int) -> Array:
    """Potentials g (N, G) after `sweeps` Sinkhorn iterations on the kernel exp(S / reg)."""
    N, P, G = S_NPG.shape
    kernel = np.exp(S_NPG / reg)
    transposed = kernel.transpose(0, 2, 1)
    v = np.full((N, G, 1), 1.0 / G)
    for _ in range(sweeps):
        u = (1.0 / P) / (kernel @ v)
        v = (1.0 / G) / (transposed @ u)
    return np.asarray(reg * np.log(v[:, :, 0]))


def _evaluate(S_NPG: Array, g_NG: Array, reg: float) -> tuple[Array, Array, Array]:
    """Plan with exact rows (N, P, G), its column sums (N, G) and the semi-dual's value (N,)."""
    P, G = S_NPG.shape[1:]
    log_plan = (S_NPG + g_NG[:, None, :]) / reg
    top = log_plan.max(axis=2, keepdims=True)
    plan = np.exp(log_plan - top)
    total = plan.sum(axis=2, keepdims=True)
    plan /= total * P
    value = g_NG.sum(axis=1) / G - reg * (top + np.log(total))[:, :, 0].sum(axis=1) / P
    return plan, plan.sum(axis=1), value


def _newton(S_NPG: Array, g_NG: Array, reg: float, *, tolerance: float, steps: int) -> tuple[Array, Array]:
    """Maximise the semi-dual from g (N, G) until every column error is below `tolerance`, or for `steps` iterations.

    The semi-dual sum_j b_j g_j - reg sum_i a_i log sum_j exp((S_ij + g_j) / reg) is concave with gradient b - c (c the
    column sums) and Hessian -(diag(c) - T' diag(1/a) T) / reg. Steps are damped: a step is accepted if it increases
    the value sufficiently or halves the error. A Sinkhorn iteration, which always increases the value, replaces a
    rejected step.

    Returns potentials (N, G) and plans (N, P, G).
    """
    N, P, G = S_NPG.shape
    b = 1.0 / G
    potentials = g_NG.copy()
    plans_NPG = np.empty_like(S_NPG)
    active = np.arange(N)
    S, g = S_NPG, g_NG
    plan, c, value = _evaluate(S, g, reg)
    for _ in range(steps):
        error = np.abs(c - b).sum(axis=1)
        done = error <= tolerance
        if done.any():
            potentials[active[done]] = g[done]
            plans_NPG[active[done]] = plan[done]
            keep = ~done
            active, S, g, plan, c, value, error = (part[keep] for part in (active, S, g, plan, c, value, error))
        if not len(active):
            return potentials, plans_NPG
        gradient = b - c
        # The constant regularises the null direction (adding a constant to g changes nothing).
        hessian = -P * (plan.transpose(0, 2, 1) @ plan) + 1.0 / (G * G)
        diagonal = np.arange(G)
        hessian[:, diagonal, diagonal] += c * (1.0 + 1e-13) + 1e-18
        step = reg * np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        step -= step.mean(axis=1, keepdims=True)
        # At the optimum no two potentials differ by more than 1, because similarities lie in [0, 1].
        step /= np.maximum(np.abs(step).max(axis=1, keepdims=True), 1.0)
        step[~np.isfinite(step).all(axis=1)] = 0.0
        slope = (gradient * step).sum(axis=1)
        scale = np.ones(len(active))
        # The full step is nearly always accepted; otherwise backtrack.
        new_g = g + step
        new_plan, new_c, new_value = _evaluate(S, new_g, reg)
        pending = np.flatnonzero(~_accepted(new_c, new_value, b, value + 1e-4 * slope, error))
        for _ in range(29):
            if not len(pending):
                break
            scale[pending] *= 0.4
            trial = g[pending] + scale[pending, None] * step[pending]
            trial_plan, trial_c, trial_value = _evaluate(S[pending], trial, reg)
            enough = value[pending] + 1e-4 * scale[pending] * slope[pending]
            better = _accepted(trial_c, trial_value, b, enough, error[pending])
            good = pending[better]
            new_g[good], new_plan[good] = trial[better], trial_plan[better]
            new_c[good], new_value[good] = trial_c[better], trial_value[better]
            pending = pending[~better]
        if len(pending):
            swept = g[pending] + reg * (np.log(b) - np.log(np.maximum(c[pending], 1e-300)))
            swept_plan, swept_c, swept_value = _evaluate(S[pending], swept, reg)
            new_g[pending], new_plan[pending] = swept, swept_plan
            new_c[pending], new_value[pending] = swept_c, swept_value
        g, plan, c, value = new_g, new_plan, new_c, new_value
    potentials[active] = g
    plans_NPG[active] = plan
    return potentials, plans_NPG


def _accepted(c_NG: Array, value_N: Array, b: float, enough_N: Array, error_N: Array) -> NDArray[np.bool_]:
    """Whether a step increased the value sufficiently or halved the column error, bool (N,)."""
    return np.asarray((value_N >= enough_N + 1e-15) | (np.abs(c_NG - b).sum(axis=1) <= 0.5 * error_N))


def _balance(plan_NPG: Array) -> Array:
    """Round a plan to exact marginals (Altschuler, Weed, Rigollet 2017, algorithm 2).

    Rows, then columns with excess mass are scaled down, and the missing mass is added as a rank-one term. Changes the
    plan by at most twice its marginal error.
    """
    P, G = plan_NPG.shape[1:]
    plan = plan_NPG * np.minimum(1.0, (1.0 / P) / plan_NPG.sum(axis=2, keepdims=True))
    columns = plan.sum(axis=1, keepdims=True)
    plan *= np.minimum(1.0, (1.0 / G) / np.maximum(columns, 1e-300))
    deficit_P = 1.0 / P - plan.sum(axis=2)
    deficit_G = 1.0 / G - plan.sum(axis=1)
    missing = deficit_P.sum(axis=1)
    correction = deficit_P[:, :, None] * deficit_G[:, None, :] / np.where(missing > 0.0, missing, 1.0)[:, None, None]
    return np.asarray(np.where((missing > 0.0)[:, None, None], np.maximum(plan + correction, 0.0), plan))
