"""What every augmentation shares: who is changed, by how much, and what becomes of the labels."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import OneToOneFeatureMixin
from sklearn.utils import check_random_state

from skspec._label_values import filled, has_mask, label_features, label_names, label_values
from skspec._sklearn import Interval, fit_context
from skspec.base import SpectraTransformer, as_spectra
from skspec.solvers.spectra.line_of_sight import C_KMS
from skspec.spectra import Spectra, check_same_pixels

if TYPE_CHECKING:
    from skspec._typing import Labels, RandomState, SpectraLike

__all__ = ["Augmentation"]

VALUES_AT_ONCE = 2**17  # flux of so many pixels stays in the cache


class Augmentation(OneToOneFeatureMixin, SpectraTransformer):
    """Base of all: spectra as they are in, spectra as they might have been observed out.

    ``fit_transform`` augments and ``transform`` leaves spectra alone, so that in a Pipeline an
    augmentation acts on the training stars only. A subclass implements ``_draw(spectra, rng)``, a dict
    of arrays with a row per star, and ``_apply(spectra, draws)``, which looks at each star by itself;
    one that changes a label has a parameter `label` and ``_combined(values, draws)``.

    Parameters
    ----------
    p : float
        Probability with which a star is augmented at all.
    random_state : int, RandomState instance or None
        Where ``augment`` is not given one.

    Attributes
    ----------
    wavelength_ : ndarray of shape (P,) or None
        Wavelengths [Angstrom].
    n_features_in_ : int
        Number of pixels P.
    """

    _parameter_constraints: dict = {
        "p": [Interval(Real, 0, 1, closed="both")],
        "random_state": ["random_state"],
    }

    #: what is known of spectra and no longer true of augmented ones
    _forgets: tuple[str, ...] = ()

    def __init__(self, *, p: float = 1.0, random_state: RandomState | None = None):
        self.p = p
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: SpectraLike, y: Labels | None = None) -> Self:
        """Learn the grid; `y` is ignored."""
        self._validate_spectra(X, reset=True)
        return self

    def fit_transform(self, X: SpectraLike, y: Labels | None = None) -> Spectra | np.ndarray:
        """Augmented spectra: what the rest of a Pipeline is fitted to.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
        y : array-like of shape (n,) or (n, K), optional
            Labels. A Pipeline cannot change them.

        Returns
        -------
        Spectra or ndarray
            A `Spectra` for a `Spectra`; an array of fluxes, with no place for errors or bad pixels, for
            an array.

        Raises
        ------
        ValueError
            When the augmentation changes one of the labels.
        """
        changed = self._changed_label(y)
        if changed is not None:
            raise ValueError(
                f"{type(self).__name__} changes the label {changed!r}, and a Pipeline cannot hand the "
                "new labels on. Use AugmentedRegressor or SpectralCNN(augmentation=...), which can; or "
                "label=None, where the labels shall stay as they are."
            )
        return self.fit(X, y)._apply_function(X, self.augment)

    def _transform(self, spectra):
        return spectra

    def augment(
        self, X: SpectraLike, y: Labels | None = None, random_state: RandomState | None = None
    ) -> Any:
        """Augment spectra, and their labels.

        Parameters
        ----------
        X : Spectra or array-like of shape (n, P)
            Spectra; never modified.
        y : array-like of shape (n,) or (n, K), optional
            Labels; never modified. Columns of a DataFrame are known by name.
        random_state : int, RandomState, Generator or None
            By default that of the constructor.

        Returns
        -------
        Spectra, or (Spectra, y)
            Labels only when they were given, and in the form in which they were.
        """
        self._validate_params()
        spectra = as_spectra(X)
        if not hasattr(y, "iloc") and (label_names(y) is not None or has_mask(y)):
            y = label_features(y)
        if y is not None and np.shape(y)[0] != len(spectra):
            raise ValueError(f"X and y have {len(spectra)} and {np.shape(y)[0]} stars.")
        state = self.random_state if random_state is None else random_state
        everyone = np.ones(len(spectra), dtype=bool)
        out, new_y = self._augmented(spectra, y, everyone, _generator(state))
        return out if y is None else (out, new_y)

    def _augmented(self, spectra, y, among, rng):
        """Spectra and labels, of which those `among` may have been changed."""
        rows = np.flatnonzero(among & (rng.random(len(spectra)) < self.p))
        flux, ivar = spectra.flux.copy(), None if spectra.ivar is None else np.array(spectra.ivar)
        label = self._changed_label(y)
        labels = None if label is None else _Column(y, label)
        step = max(1, VALUES_AT_ONCE // max(1, spectra.shape[1]))
        for start in range(0, len(rows), step):
            here = rows[start : start + step]
            part = spectra[here]
            draws = self._draw(part, rng)
            out = self._apply(part, draws)
            flux[here] = out.flux
            if out.ivar is not None:
                ivar = np.full(flux.shape, np.inf) if ivar is None else ivar
                ivar = _wide_enough(ivar, out.ivar)
                ivar[here] = out.ivar
            if labels is not None:
                labels.values[here] = self._combined(labels.values[here], draws)
        spoilt = self._spoilt(spectra)
        if spoilt is not None and spoilt.any():
            ivar = np.full(flux.shape, np.inf) if ivar is None else ivar
            ivar[:, spoilt] = 0.0
        about = spectra.about | dict.fromkeys(self._forgets)
        new = Spectra._from_clean(
            flux, ivar, spectra.wavelength, spectra.order, dict(spectra.meta), about
        )
        return new, y if labels is None else labels.put_back()

    @property
    def moves_stars(self) -> bool:
        """Whether stars get velocities that they did not have."""
        return "frame" in self._forgets

    def _spoilt(self, spectra):
        """Pixels (P,) that the augmentation spoils in some star, to be masked in all; None for none."""

    def _beyond_ends(self, sight, spectra, low, high):
        """Pixels (P,) that some shift in ln(wavelength) fills from beyond the end of a segment.

        A segment ends where the pixels of all stars are bad: such as others have spoilt before.
        """
        seen = None if spectra.ivar is None else spectra.good.any(axis=0)
        seen = seen if np.any(seen) else None  # blind stars have their ends at those of the grid
        inside = sight.covers(np.array([low]), np.array([high]), seen)[0]
        if not inside.any():
            raise ValueError(
                f"{self!r} reaches up to {C_KMS * max(-low, high):.0f} km/s and leaves no pixel of the "
                "spectra (or of each order): give a narrower range."
            )
        return ~inside

    def _changed_label(self, y):
        """Which of the labels `y` is changed; None for none."""
        label = getattr(self, "label", None)
        if y is None or label is None:
            return None
        if isinstance(label, Integral):
            return label
        return label if label in (label_names(y) or []) else None


def _generator(state):
    """A numpy Generator; a RandomState goes on by one number."""
    if isinstance(state, np.random.Generator):
        return state
    return np.random.default_rng(check_random_state(state).randint(2**32, size=4, dtype=np.uint32))


def _wide_enough(ivar, new):
    """`ivar`, in double precision where `new` has numbers beyond single precision."""
    most = np.finfo(ivar.dtype).max
    if new.dtype == ivar.dtype or not np.any((new > most) & np.isfinite(new)):
        return ivar
    return ivar.astype(new.dtype)


def put(values, rows, new):
    """A copy of `values` with other values in some rows; `new` itself where these are all."""
    if len(rows) == len(values):
        return new
    out = np.array(values)
    out[rows] = new
    return out


class _Column:
    """A column of labels, to be changed in a copy of them."""

    def __init__(self, y, label):
        self._y, self._label = y, label
        if hasattr(y, "columns"):
            self._label = label if isinstance(label, Integral) else label_names(y).index(label)
            self.values = np.array(filled(y.iloc[:, self._label], "y"))
        else:
            self._all = np.array(label_values(y))
            self.values = self._all if self._all.ndim == 1 else self._all[:, label]

    def put_back(self):
        """All labels, in the form in which they came."""
        y = self._y
        if hasattr(y, "columns"):
            y = y.copy()
            y.isetitem(self._label, self.values)
            return y
        return type(y)(self._all, index=y.index, name=y.name) if hasattr(y, "iloc") else self._all


def limits(value, name, low=-np.inf, high=np.inf):
    """A parameter that is one number or a range, as (lowest, highest).

    Raises
    ------
    ValueError
        When it is neither, or not within `low` and `high`.
    """
    pair = np.asarray(value, dtype=float)
    pair = np.repeat(pair, 2) if pair.ndim == 0 else pair
    if pair.shape != (2,) or not low <= pair[0] <= pair[1] <= high:
        raise ValueError(
            f"{name} must be a number or a range (lowest, highest) within [{low:g}, {high:g}], "
            f"not {value!r}."
        )
    return float(pair[0]), float(pair[1])


def uniform(rng, pair, n, log=False):
    """`n` numbers between two limits; with `log`, uniform in the logarithm."""
    low, high = np.log(pair) if log else pair
    drawn = low + (high - low) * rng.random(n)
    return np.exp(drawn) if log else drawn


def like(observed, spectra, name):
    """The `Spectra` of an observed set, on the pixels of `spectra`.

    Raises
    ------
    ValueError
        When there are none, or on other pixels.
    """
    if not isinstance(observed, Spectra):
        raise ValueError(f"{name} takes its observed set as Spectra(flux, ivar=...).")
    if observed.shape[1] == spectra.shape[1] and len(observed):
        check_same_pixels(spectra, observed, f"{name}: the spectra and the observed set")
    else:
        raise ValueError(
            f"{name}: the observed set ({observed!r}) must hold stars on the pixels of the spectra "
            f"({spectra!r}); skspec.preprocessing.Resampler takes them there."
        )
    return observed


def drawn_stars(observed, n, rng, usable, refusal):
    """Rows of `n` observed stars drawn at random among those that are usable.

    ``usable(spectra)`` is a boolean array; `refusal` is the sentence where none is.
    """
    rows = rng.integers(len(observed), size=n)
    again = ~usable(observed[rows])
    if again.any():  # only then is the whole set looked at, which may be large
        among = np.flatnonzero(usable(observed))
        if not len(among):
            raise ValueError(refusal)
        rows[again] = rng.choice(among, size=again.sum())
    return rows
