import numpy as np
from numpy.testing import assert_allclose

from skspec.solvers.statistics.label_domain import fit_label_domain


def test_the_set_itself_is_inside():
    labels = np.random.default_rng(0).normal(size=(500, 3)) * [800, 0.5, 0.3] + [5000, 4, 0]
    domain = fit_label_domain(labels)
    assert np.mean(domain.score(labels) <= 1) > 0.985
    assert np.all(domain.score(labels.max(axis=0) + [[1, 0, 0]]) > 1)


def test_units_do_not_matter():
    labels = np.random.default_rng(0).normal(size=(50, 2))
    other = labels * [1000, 1] + [5000, -3]
    points = np.random.default_rng(1).normal(size=(20, 2)) * 2
    assert_allclose(
        fit_label_domain(labels).score(points),
        fit_label_domain(other).score(points * [1000, 1] + [5000, -3]),
        rtol=1e-9,
    )


def test_nan_constant_labels_and_few_stars():
    labels = np.column_stack([np.arange(4.0), np.full(4, 2.0)])
    domain = fit_label_domain(labels)
    score = domain.score([[1.0, 2.0], [1.0, 2.1], [np.nan, 2.0]])
    assert score[0] <= 1 < score[1] and np.isnan(score[2])
    assert fit_label_domain(labels[:1]).score(labels[:1]) <= 1
