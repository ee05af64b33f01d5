"""Whatever a user types: the right exception, what was expected, what came and what to do."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from answers import answers
from scipy import sparse, stats
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError

from skbi import CMPEEstimator, FMPEEstimator, JointPrior, NLEEstimator, NPEEstimator, NREEstimator

pytestmark = pytest.mark.filterwarnings("ignore:flow='realnvp' needs at least 2 variables")

QUICK_NET = {"max_iter": 2, "hidden_layer_sizes": (8,), "random_state": 0}
QUICK = {**QUICK_NET, "n_transforms": 1}
PRIOR = JointPrior({"a": stats.uniform(-1, 2), "b": stats.halfnorm()})
THETA = PRIOR.sample(30, random_state=0)
X = THETA @ np.ones((2, 3)) + np.random.default_rng(0).normal(size=(30, 3))
SETS = X[:, None] + np.random.default_rng(1).normal(size=(30, 4, 3))
BOTH = [NPEEstimator, NLEEstimator]
MOVING = [FMPEEstimator, CMPEEstimator]
ALL = [*BOTH, NREEstimator, *MOVING]
SUMMARISED = [NPEEstimator, NREEstimator, *MOVING]


def quick(kind, **options):
    """Return a small, unfitted estimator."""
    return kind(**{**(QUICK if kind in BOTH else QUICK_NET), **options})


def changed(array, where, value):
    array = array.copy()
    array[where] = value
    return array


PAIRS = {
    "swapped, sets": (SETS, THETA, "swapped"),
    "swapped, vectors": (X, THETA, r"prior has 2 parameters.*theta has 3 columns"),
    "lengths": (THETA[:5], X, "same number of pairs; got 5 and 30.*fit"),
    "lengths, sets": (THETA, SETS[:7], "same number of pairs; got 30 and 7"),
    "empty": (THETA[:0], X[:0], "At least 2 training pairs.*got n_samples = 0"),
    "one row": (THETA[:1], X[:1], "At least 2 training pairs.*got n_samples = 1"),
    "no theta": (None, X, "theta is None.*needs both"),
    "no X": (THETA, None, "X is None.*needs both"),
    "1-D theta": (THETA[:, 0], X, r"shape \(n, p\).*reshape"),
    "1-D X": (THETA, X[:, 0], r"vectors \(n, d\) or sets.*reshape"),
    "4-D X": (THETA, SETS[None], r"got shape \(1, 30, 4, 3\)"),
    "no columns of theta": (THETA[:, :0], X, r"theta has 0 feature\(s\)"),
    "no columns of X": (THETA, X[:, :0], r"X has 0 feature\(s\)"),
    "constant theta": (changed(THETA, np.s_[:, 1], 0.5), X, "Column 1 of theta is constant"),
    "NaN in theta": (changed(THETA, (4, 1), np.nan), X, "theta has NaN.*row 4, column 1"),
    "inf in theta": (changed(THETA, (4, 1), np.inf), X, "theta has NaN or inf.*row 4, column 1"),
    "NaN in X": (THETA, changed(X, (3, 0), np.nan), r"missing values.*rows \[3\].*column 0.*mask"),
    "inf in X": (THETA, changed(X, (3, 2), -np.inf), "infinite values, first in row 3, column 2"),
    "NaN in a set": (THETA, changed(SETS, (7, 1, 2), np.nan), r"rows \[7\], first in column 2"),
    "inf in a set": (THETA, changed(SETS, (7, 1, 2), np.inf), "infinite.*row 7, column 2"),
    "an empty set": (THETA, [*SETS[:29], SETS[0, :0]], r"at least one point; sets \[29\]"),
    "a set of padding": (THETA, changed(SETS, 5, np.nan), r"at least one point; sets \[5\]"),
    "sets of two widths": (THETA, [*SETS[:29], SETS[0, :, :2]], "same d; got shapes"),
    "sets of numbers": (THETA, np.array([*map(np.ones, range(1, 31))], object), r"\(S_i, 1\)"),
    "strings in theta": (THETA.astype(str), X, "theta must be an array of real numbers"),
    "strings in X": (THETA, X.astype(str), "X must be an array of real numbers"),
    "words as objects": (THETA, X.astype(str).astype(object) + "x", "real numbers; could not"),
    "complex": (THETA, X + 0j, "Complex data not supported"),
    "dates": (THETA, X.astype("M8[s]"), "dtype is datetime64"),
    "outside the support": (changed(THETA, (2, 0), 7), X, r"1 rows.*row 2.*support of \['a'\]"),
    "columns of theta": (pd.DataFrame(THETA, columns=["b", "a"]), X, "rename or reorder"),
}


@pytest.mark.parametrize("case", PAIRS)
@pytest.mark.parametrize("kind", ALL)
def test_pairs(kind, case):
    theta, data, message = PAIRS[case]
    fitted = quick(kind, prior=PRIOR).fit(THETA, X)
    before = answers(fitted, THETA, X)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        fitted.fit(theta, data)
    np.testing.assert_array_equal(answers(fitted, THETA, X), before)


WEIGHTS = {
    "length": (np.ones(3), r"sample_weight.shape == \(3,\), expected \(30,\)"),
    "negative": (changed(np.ones(30), 3, -1), "Negative values.*sample_weight"),
    "NaN": (changed(np.ones(30), 3, np.nan), "sample_weight contains NaN"),
    "none positive": (np.zeros(30), "must contain at least one non-zero"),
    "one positive": (np.eye(30)[3], "At least 2 training pairs"),
}


@pytest.mark.parametrize("case", WEIGHTS)
@pytest.mark.parametrize("kind", ALL)
def test_weights(kind, case):
    weights, message = WEIGHTS[case]
    with pytest.raises(ValueError, match=message):
        quick(kind).fit(THETA, X, weights)


OPTIONS = [
    (BOTH, "flow", "maf", "'(spline|realnvp)'.*'(spline|realnvp)'"),
    (BOTH, "n_transforms", 0, "in the range"),
    (BOTH, "n_transforms", 2.0, "an int"),
    (ALL, "hidden_layer_sizes", 64, "array-like"),
    (ALL, "hidden_layer_sizes", (), r"such as \(64, 64\)"),
    (ALL, "hidden_layer_sizes", (8, 0), r"such as \(64, 64\)"),
    (ALL, "n_estimators", 0, "in the range"),
    (ALL, "batch_size", "large", "'auto'"),
    (ALL, "learning_rate_init", 0.0, "in the range"),
    (ALL, "alpha", -1.0, "in the range"),
    (ALL, "max_iter", 0, "in the range"),
    (ALL, "early_stopping", "yes", "bool"),
    (ALL, "validation_fraction", 1.0, "in the range"),
    (ALL, "n_iter_no_change", 0, "in the range"),
    (ALL, "tol", -1.0, "in the range"),
    (ALL, "warm_start", 2, "bool"),
    (ALL, "random_state", "seed", "random_state"),
    (ALL, "device", 0, "(str|cannot be used here)"),
    (ALL, "device", "abacus", "cannot be used here.*'cpu'"),
    (ALL, "validation_fraction", 0.97, "leaves none to train on"),
    (ALL, "prior", JointPrior({"a": stats.norm()}), "1 parameters.*2 columns"),
    (ALL[1:], "n_estimators", "auto", "an int in the range"),
    ([NPEEstimator], "n_estimators", "few", "'auto'"),
    (SUMMARISED, "missing", "drop", "'(error|mask)'.*'(error|mask)'"),
    (SUMMARISED, "summary", "mean", "'(auto|deepset)'.*'(auto|deepset)'.*'transform'"),
    (SUMMARISED, "summary", "deepset", "reads sets.*got vectors"),
    (SUMMARISED, "summary", "image", r"images \(n, H, W\) or .*channels\); got shape \(30, 3\)"),
    (SUMMARISED, "summary", PCA(4), "n_components=4"),
    (SUMMARISED, "summary", torch.nn.Linear(5, 2), r"points of width 3 to \(n, c\).*fails"),
    (SUMMARISED, "summary", torch.nn.Flatten(0), r"\(n, c\).*got shape \(6,\)"),
    (SUMMARISED, "n_summary_features", 0, "in the range"),
    (MOVING, "prior", JointPrior({"a": stats.bernoulli(0.5), "b": stats.norm()}),
     r"\['a'\] are discrete.*NPEEstimator, NLEEstimator"),
    ([NPEEstimator], "augment", -1.0, "in the range"),
    ([NLEEstimator], "dequantize", -1.0, "dequantize"),
    ([NLEEstimator], "dequantize", [1.0, 2.0], "one for each of the 3 features"),
    ([NREEstimator], "loss", "nre-b", "'nre-[ac]'.*'nre-[ac]'"),
    ([NREEstimator], "gamma", 0.0, "in the range"),
    ([NREEstimator], "n_contrasts", 1, "in the range"),
    ([NREEstimator], "balance", -1.0, "in the range"),
    ([NREEstimator], "sets", "mean", "'(auto|sum|summary)'"),
    ([FMPEEstimator], "time_exponent", -1.0, "in the range"),
    ([FMPEEstimator], "n_steps", "many", "'auto'"),
    (MOVING, "n_steps", 0, "in the range"),
    ([CMPEEstimator], "n_steps", "auto", "an int in the range"),
    ([CMPEEstimator], "max_time", 0.1, "in the range"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "option", "value", "message"),
    [(kind, *row) for kinds, *row in OPTIONS for kind in kinds],
)
def test_options(kind, option, value, message):
    fitted = quick(kind).fit(THETA, X)
    before = answers(fitted, THETA, X)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        fitted.set_params(**{option: value}).fit(THETA, X)
    np.testing.assert_array_equal(answers(fitted, THETA, X), before)


@pytest.mark.parametrize("kind", ALL)
def test_names_of_options(kind):
    with pytest.raises(TypeError, match="positional"):
        kind(PRIOR)
    with pytest.raises(TypeError, match="n_layers"):
        kind(n_layers=3)
    with pytest.raises(ValueError, match=r"(?s)Invalid parameter 'n_layers'.*'max_iter'"):
        kind().set_params(n_layers=3)


@pytest.mark.parametrize("kind", ALL)
def test_priors(kind):
    with pytest.raises(TypeError, match=r"JointPrior.*lacks.*log_prob"):
        quick(kind, prior=stats.norm()).fit(THETA, X)
    infinite = JointPrior({"a": stats.gamma(0.5), "b": stats.halfnorm()})  # at zero
    with pytest.raises(ValueError, match=r"1 rows of theta have no finite prior density.*row 3"):
        quick(kind, prior=infinite).fit(changed(np.abs(THETA), (3, 0), 0), X)


@pytest.mark.parametrize("convert", [sparse.csr_matrix, sparse.coo_array])
@pytest.mark.parametrize("kind", ALL)
def test_sparse_arrays(kind, convert, fitted):
    with pytest.raises(TypeError, match=r"X is sparse.*X\.toarray"):
        quick(kind).fit(THETA, convert(X))
    with pytest.raises(TypeError, match=r"theta is sparse.*theta\.toarray"):
        quick(kind).fit(convert(THETA), X)
    with pytest.raises(TypeError, match="X is sparse"):
        fitted[kind].sample_posterior(convert(X))


@pytest.mark.parametrize("kind", ALL)
def test_dictionaries(kind):
    with pytest.raises(TypeError, match=r"X must be an array of real numbers.*dict"):
        quick(kind).fit(THETA, {"x": X})


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("method", ["sample_posterior", "log_prob", "score"])
def test_unfitted_use(kind, method):
    arguments = (X,) if method == "sample_posterior" else (THETA, X)
    if hasattr(kind, method):
        with pytest.raises(NotFittedError, match="fit"):
            getattr(kind(prior=PRIOR), method)(*arguments)


# ---- after a fit


@pytest.fixture(scope="module")
def fitted():
    return {kind: quick(kind, prior=PRIOR).fit(THETA, X) for kind in ALL}


@pytest.fixture(scope="module")
def on_frames():
    theta, data = pd.DataFrame(THETA, columns=["a", "b"]), pd.DataFrame(X, columns=list("xyz"))
    return {kind: quick(kind, prior=PRIOR).fit(theta, data) for kind in ALL}


OBSERVATIONS = {
    "too few features": (X[:, :2], "X has 2 features, but .* is expecting 3 features"),
    "too few features of one": (X[0, :2], "X has 2 features, but .* is expecting 3 features"),
    "a number": (X[0, 0], "fitted on vectors"),
    "a list for one observation": (X[0].tolist(), "fitted on vectors.*with 1 axes"),
    "4-D": (SETS[None], r"fitted on .*got \(1, 30, 4, 3\)"),
    "no row": (X[:0], r"0 sample\(s\)"),
    "nothing": (None, "fitted on vectors"),
    "NaN": (changed(X, (2, 0), np.nan), r"missing values \(NaN\) in rows \[2\]"),
    "inf": (changed(X, (2, 0), np.inf), "infinite values, first in row 2, column 0"),
    "words": (X.astype(str), "real numbers"),
}


@pytest.mark.parametrize("case", OBSERVATIONS)
@pytest.mark.parametrize("kind", ALL)
def test_observations(kind, case, fitted):
    X_obs, message = OBSERVATIONS[case]
    with pytest.raises(ValueError, match=message):
        fitted[kind].sample_posterior(X_obs)


def test_sets_for_an_estimator_of_vectors(fitted):
    with pytest.raises(ValueError, match=r"fitted on vectors \(n, d\)"):
        fitted[NPEEstimator].sample_posterior(SETS)
    with pytest.raises(ValueError, match=r"fitted on vectors.*got sets"):
        fitted[NPEEstimator].sample_posterior([SETS[0], SETS[1, :2]])


def test_vectors_for_an_estimator_of_sets():
    npe = NPEEstimator(prior=PRIOR, **QUICK).fit(THETA, SETS)
    with pytest.raises(ValueError, match=r"fitted on sets \(n, S, d\)"):
        npe.sample_posterior(X[0])
    assert npe.sample_posterior(SETS[0], 5).shape == (5, 2)
    assert npe.sample_posterior([SETS[0]], 5).shape == (1, 5, 2)


@pytest.mark.parametrize("kind", ALL)
def test_names_of_features_and_parameters(kind, on_frames):
    frame = pd.DataFrame(X, columns=["x", "y", "w"])
    with pytest.raises(ValueError, match=r"(?s)feature names.*w.*z"):
        on_frames[kind].score(THETA, frame)
    turned = pd.DataFrame(THETA[:, ::-1], columns=["b", "a"])
    for wrong in (turned, turned.rename(columns={"a": "c"})):
        with pytest.raises(ValueError, match=r"must be those of fit, \['a', 'b'\]"):
            on_frames[kind].score(wrong, pd.DataFrame(X, columns=list("xyz")))


def test_a_row_of_a_frame_has_the_names_of_its_columns(on_frames):
    frame = pd.DataFrame(X, columns=list("xyz"))
    one = on_frames[NPEEstimator].sample_posterior(frame.iloc[0], 5)
    batch = on_frames[NPEEstimator].sample_posterior(frame.iloc[:1], 5)
    np.testing.assert_array_equal(one, batch[0])


THETAS = {
    "width": (THETA[:, :1], X, r"2 columns \['a', 'b'\]; got 1"),
    "1-D": (THETA[0], X, "reshape"),
    "NaN": (changed(THETA, (1, 0), np.nan), X, "theta has NaN.*row 1, column 0"),
    "pairing": (
        THETA[:4],
        X[:3],
        "(one observation or as many|paired row by row|same number of pairs).*[34]",
    ),
    "words": (THETA.astype(str), X, "theta must be an array of real numbers"),
}


@pytest.mark.parametrize("case", THETAS)
@pytest.mark.parametrize("kind", ALL)
def test_parameters(kind, case, fitted):
    theta, data, message = THETAS[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        getattr(fitted[kind], "log_prob", fitted[kind].score)(theta, data)


@pytest.mark.parametrize("n_samples", [0, -1, 2.0, True, "3", None])
@pytest.mark.parametrize("kind", ALL)
def test_numbers_of_samples(kind, n_samples, fitted):
    with pytest.raises(ValueError, match=f"positive integer; got {n_samples!r}"):
        fitted[kind].sample_posterior(X[0], n_samples)


def test_what_only_a_likelihood_can_be_asked(fitted):
    nle = fitted[NLEEstimator]
    with pytest.raises(ValueError, match=r"'nested'.*'nuts'.*got 'mcmc'"):
        nle.sample_posterior(X[0], sampler="mcmc")
    with pytest.raises(ValueError, match=r"prior's support; row 0 is \[7\.0, 1\.0\]"):
        nle.sample_likelihood([[7.0, 1.0]])
    with pytest.raises(ValueError, match=r"set_params\(prior=JointPrior"):
        NLEEstimator(**QUICK).fit(THETA, X).sample_posterior(X[0])
    with pytest.raises(ValueError, match=r"Features \[1\] of X are constant.*dequantize"):
        NLEEstimator(**QUICK).fit(THETA, changed(X, np.s_[:, 1], 2.0))
    with pytest.raises(ValueError, match=r"Features \[0, 2\] of X repeat each other.*dequantize"):
        NLEEstimator(**QUICK).fit(THETA, changed(X, np.s_[:, 2], X[:, 0]))


def test_what_only_a_ratio_refuses(fitted):
    nre = fitted[NREEstimator]
    with pytest.raises(AttributeError, match=r"p\(X\) stays unknown.*NLEEstimator"):
        nre.log_evidence(X[0])
    with pytest.raises(ValueError, match=r"pass single points, an array \(n, 3\)"):
        nre.normalization(SETS)
    with pytest.raises(ValueError, match=r"same number of pairs; got 4 and 1"):
        nre.score(THETA[:4], X[:1])


# ---- what looks odd and is welcome


def in_a_file(array, path):
    np.save(path, array)
    return np.load(path, mmap_mode="r")


def read_only(array, _):
    array = array.copy()
    array.flags.writeable = False
    return array


WELCOME = {
    "memory-mapped": in_a_file,
    "read-only": read_only,
    "float32": lambda a, _: a.astype(np.float32),
    "big-endian": lambda a, _: a.astype(">f8"),
    "objects": lambda a, _: a.astype(object),
    "columns first": lambda a, _: np.asfortranarray(a),
    "every other row": lambda a, _: np.repeat(a, 2, axis=0)[::2],
    "lists": lambda a, _: a.tolist(),
    "pandas": lambda a, _: pd.DataFrame(a),
    "polars": lambda a, _: pl.DataFrame(a),
    "torch": lambda a, _: torch.as_tensor(a),
}


@pytest.mark.parametrize("case", WELCOME)
@pytest.mark.parametrize("kind", ALL)
def test_layouts_and_types_do_not_matter(kind, case, tmp_path):
    theta, data = (a.astype(np.float32).astype(np.float64) for a in (THETA, X))
    expected = answers(quick(kind).fit(theta, data), theta, data)
    converted = [WELCOME[case](a, tmp_path / f"{i}.npy") for i, a in enumerate((theta, data))]
    found = quick(kind).fit(*converted)
    np.testing.assert_array_equal(answers(found, *converted), expected)


@pytest.mark.parametrize("kind", ALL)
def test_integers_are_left_alone(kind):
    theta, data = (np.round(100 * a).astype(int) for a in (THETA, X))
    before = theta.copy(), data.copy()
    assert np.isfinite(quick(kind).fit(theta, data).score(theta, data))
    np.testing.assert_array_equal(before[0], theta)
    np.testing.assert_array_equal(before[1], data)


@pytest.mark.parametrize("kind", ALL)
def test_batches_larger_than_the_data(kind):
    assert np.isfinite(quick(kind, batch_size=999).fit(THETA, X).score(THETA, X))


def test_a_constant_feature_tells_nothing():
    data = changed(X, np.s_[:, 1], 2.0)
    npe = NPEEstimator(**QUICK).fit(THETA, data)
    assert np.isfinite(npe.log_prob(THETA, data)).all()


def test_parameters_under_a_linear_constraint():
    """They have no density: a default fit gave draws that did not sum to one, without a word."""
    theta = np.random.default_rng(0).dirichlet([2, 2, 2], size=len(X))
    named = JointPrior({name: stats.beta(2, 4) for name in "abc"})
    for prior, names in (
        (named, r"\['a', 'b', 'c'\]"),
        (None, r"\['theta_0', 'theta_1', 'theta_2'\]"),
    ):
        message = rf"combination of the parameters {names} is constant.*Drop one of them"
        with pytest.raises(ValueError, match=message):
            NPEEstimator(prior=prior, **QUICK).fit(theta, X)
        with pytest.warns(UserWarning, match=message):
            NLEEstimator(prior=prior, **QUICK).fit(theta, X)
    NPEEstimator(**QUICK).fit(theta[:, :2], X)
