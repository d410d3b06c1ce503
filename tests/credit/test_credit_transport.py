"""Optimal transport: marginals for any regularisation, the optimum itself, and its two limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewright.credit import match
from rewright.credit.transport import plans

LEVELS = np.array([0.0, 0.0, 0.2, 2 / 3, 0.8, 11 / 12, 1.0])


def draw(seed, P, G):
    return LEVELS[np.random.default_rng(seed).integers(len(LEVELS), size=(P, G))]


def plain_sinkhorn(S, reg, sweeps=20_000):
    """Sinkhorn's iteration as in the textbook, for a regularisation where it is stable."""
    P, G = S.shape
    kernel = np.exp(S / reg)
    v = np.ones(G)
    for _ in range(sweeps):
        u = (1 / P) / (kernel @ v)
        v = (1 / G) / (kernel.T @ u)
    return u[:, None] * kernel * v


@given(
    st.integers(0, 10_000),
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from([1e-4, 1e-3, 0.01, 0.049, 0.05, 0.1, 1.0, 30.0, 1e4]),
)
@settings(deadline=None)
def test_marginals_hold_for_any_regularisation(seed, P, G, reg):
    (plan,) = plans([draw(seed, P, G)], reg)
    assert (plan >= 0.0).all()
    np.testing.assert_allclose(plan.sum(axis=1), 1 / P, atol=1e-9, rtol=0)
    np.testing.assert_allclose(plan.sum(axis=0), 1 / G, atol=1e-9, rtol=0)


@pytest.mark.parametrize("reg", [0.05, 0.1, 0.5, 10.0])
@pytest.mark.parametrize("shape", [(2, 2), (5, 3), (3, 8), (10, 10)])
def test_the_plan_is_that_of_the_textbook_iteration(reg, shape):
    S = draw(7, *shape)
    np.testing.assert_allclose(plans([S], reg)[0], plain_sinkhorn(S, reg), atol=1e-9)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("reg", "limit"), [(5e-324, [[0.5, 0.0], [0.0, 0.5]]), (1.7e308, [[0.25] * 2] * 2)])
def test_the_ends_of_the_range_of_numbers_are_the_limits(reg, limit):
    np.testing.assert_allclose(plans([np.array([[1.0, 0.5], [0.5, 0.8]])], reg)[0], limit, atol=1e-9)


@pytest.mark.parametrize("reg", [1e-4, 1e-3, 1e-2])
def test_a_small_regularisation_satisfies_the_optimality_conditions(reg):
    """reg log T - S must be f_i + g_j wherever there is mass: then T is the unique optimum for its marginals."""
    S = np.random.default_rng(3).random((7, 5))
    (plan,) = plans([S], reg)
    potential = reg * np.log(np.maximum(plan, 1e-300)) - S
    for i in range(6):
        for j in range(4):
            square = np.ix_([i, i + 1], [j, j + 1])
            if (plan[square] > 1e-12).all():
                p = potential[square]
                assert p[0, 0] + p[1, 1] == pytest.approx(p[0, 1] + p[1, 0], abs=1e-6)
    assert (plan * S).sum() <= plans([S], 1e-4)[0].ravel() @ S.ravel() + 1e-9


def test_it_goes_from_the_assignment_to_the_product_of_the_marginals():
    S = np.random.default_rng(0).random((6, 6))
    hard = plans([S], 1e-4)[0] * 6
    assert (np.abs(hard - np.round(hard)) < 1e-6).all()
    np.testing.assert_allclose(plans([S], 1e4)[0], 1 / 36, atol=1e-5)


@pytest.mark.parametrize("reg", [1e-4, 1e-3, 0.1])
@pytest.mark.parametrize("shape", [(100, 100), (120, 7), (30, 150)])
def test_large_problems_converge(reg, shape):
    (plan,) = plans([draw(1, *shape)], reg)
    np.testing.assert_allclose(plan.sum(axis=1), 1 / shape[0], atol=1e-9, rtol=0)
    np.testing.assert_allclose(plan.sum(axis=0), 1 / shape[1], atol=1e-9, rtol=0)


@pytest.mark.parametrize("reg", [1e-4, 0.1])
def test_a_plan_does_not_depend_on_its_batch(reg):
    problems = [draw(seed, 6, 4) for seed in range(30)]
    for alone, together in zip([plans([S], reg)[0] for S in problems], plans(problems, reg), strict=True):
        np.testing.assert_allclose(together, alone, atol=1e-12)


def test_rewards_are_the_similarity_that_is_transported():
    def call(**arguments):
        return {"name": "f", "arguments": arguments}

    preds, golds = [call(a=1), call(a=2), call(b=3)], [call(a=1), call(a=9)]
    raw = match(preds, golds, assignment="ot")
    np.testing.assert_allclose(raw.rewards_P, (raw.plan_PG * raw.similarity_PG).sum(axis=1))
    np.testing.assert_allclose(plain_sinkhorn(raw.similarity_PG, 0.1), raw.plan_PG, atol=1e-9)
    scaled = match(preds, golds, assignment="ot", ot_scale="calls")
    np.testing.assert_allclose(scaled.rewards_P, 3 * raw.rewards_P)
