"""One elimination: against the dense formula that is obviously right."""

import numpy as np
from numpy.testing import assert_allclose

from skspec.likelihood import NormalEquations, marginal_information


def problem(n=3, n_parameters=5, n_pixels=40, seed=0):
    rng = np.random.default_rng(seed)
    design, residual = rng.normal(size=(n, n_parameters, n_pixels)), rng.normal(size=(n, n_pixels))
    return design, residual, rng.uniform(0.5, 2, (n, n_pixels))


def test_sums_of_pixels_add_up_and_do_not_mind_whitening():
    design, residual, weight = problem()
    whole = NormalEquations.of(design, residual, weight)
    halves = [
        NormalEquations.of(design[..., at], residual[:, at], weight[:, at])
        for at in (slice(15), slice(15, None))
    ]
    white = NormalEquations.of_white(design * np.sqrt(weight)[:, None], residual * np.sqrt(weight))
    for a, b, c in zip(whole, halves[0] + halves[1], white):
        assert_allclose(a, b)
        assert_allclose(a, c)
    assert_allclose(whole[1:].information, whole.information[1:])


def test_eliminated_parameters_are_those_of_the_joint_fit():
    design, residual, weight = problem()
    normal = NormalEquations.of(design, residual, weight)
    for precision in (0.0, np.array([4.0, 0.25])):
        marginal, best = normal.marginal(3, precision), normal.linear(3, precision)
        prior = np.diag(np.r_[np.zeros(3), np.broadcast_to(precision, 2)])
        for i in range(3):
            cov = np.linalg.inv(normal.information[i] + prior)
            assert_allclose(marginal.information[i], np.linalg.inv(cov[:3, :3]))
            # the labels of the joint fit, and the others at labels that are not moved
            found = np.linalg.solve(marginal.information[i], marginal.score[i])
            assert_allclose(found, (cov @ normal.score[i])[:3])
            inner = normal.information[i, 3:, 3:] + prior[3:, 3:]
            assert_allclose(best[i], np.linalg.solve(inner, normal.score[i, 3:]))
            left = normal.chi2[i] - best[i] @ inner @ best[i]
            assert_allclose(marginal.chi2[i], left)


def test_parameters_that_nothing_is_known_of_are_left_alone():
    design, residual, weight = problem()
    design[:, 4] = 0.0
    normal = NormalEquations.of(design, residual, weight)
    assert_allclose(normal.linear(3)[:, 1], 0.0)
    known = NormalEquations.of(design[:, :4], residual, weight).marginal(3)
    for a, b in zip(normal.marginal(3), known):
        assert_allclose(a, b)


def test_in_other_parameters():
    design, residual, weight = problem()
    rng = np.random.default_rng(1)
    value, slope = rng.normal(size=(3, 5)), rng.normal(size=(3, 2, 5))
    found = NormalEquations.of(design, residual, weight).pulled_back(value, slope)
    moved = residual - np.einsum("nm,nmp->np", value, design)
    expected = NormalEquations.of(slope @ design, moved, weight)
    for a, b in zip(found, expected):
        assert_allclose(a, b)


class TestMarginalInformation:
    def test_is_the_inverse_of_the_block_of_the_inverse(self):
        rng = np.random.default_rng(0)
        root = rng.normal(size=(3, 40, 6)) * 10.0 ** np.arange(-6, 6, 2)
        fisher = np.swapaxes(root, 1, 2) @ root
        keep = [4, 1]
        found = marginal_information(fisher, keep)
        scale = 10.0 ** np.arange(-6, 6, 2)
        cov = np.linalg.inv(fisher / np.outer(scale, scale)) / np.outer(scale, scale)
        expected = np.linalg.inv(cov[:, keep][:, :, keep])
        assert_allclose(found, expected, rtol=1e-9)

    def test_unknown_and_useless_parameters(self):
        fisher = np.array([np.diag([4.0, 0.0, 9.0]), np.full((3, 3), np.nan)])
        found = marginal_information(fisher, [0])
        assert found[0, 0, 0] == 4 and np.isnan(found[1, 0, 0])
        imitated = np.outer([1.0, 2.0], [1.0, 2.0])[None]
        assert marginal_information(imitated, [0])[0, 0, 0] == 0

    def test_leaves_its_argument_alone(self):
        fisher = np.full((1, 2, 2), 0.5) + np.eye(2)
        copy = fisher.copy()
        marginal_information(fisher, [0])
        assert np.array_equal(fisher, copy)
