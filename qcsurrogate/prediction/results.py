"""What a surrogate gives back: NumPy float64 arrays in atomic units and PySCF's order.

What costs something is computed when it is first asked for, and kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcsurrogate.basis import BasisSet
from qcsurrogate.density.cube import write_cube
from qcsurrogate.density.densities import ElectronDensity, as_points
from qcsurrogate.density.moments import ChargeMoments, Moments, charge_moments
from qcsurrogate.domain import UNKNOWN, DomainVerdict
from qcsurrogate.prediction.source import Source
from qcsurrogate.prediction.uncertainty import ExpectedError, Uncertainty
from qcsurrogate.structures import Structure

if TYPE_CHECKING:
    from pyscf.gto import Mole

    from qcsurrogate.prediction.pyscf import Policy

MOMENTS: Final = (
    "Dipoles refer to the origin (0, 0, 0) and point from minus to plus; quadrupoles are traceless (Buckingham) and "
    "refer to the centre of nuclear charge."
)


def read_only(array: ArrayLike) -> NDArray[np.float64]:
    """An array that refuses to be written into: what follows from it is computed once, and would not follow."""
    kept = np.asarray(array)
    kept.flags.writeable = False
    return kept


@dataclass(frozen=True, eq=False, repr=False)
class Prediction(ABC):
    """A prediction for one structure; its arrays cannot be written into, copy them to change them.

    Fields that a kind of prediction adds are bases, or entries of ``units``: a file then holds
    what makes the prediction again.

    Attributes:
        structure: what was predicted for.
        domain: what of it lies outside of the training data.
        source: the model that it comes from; None where it was put together by hand.
        uncertainty: how wrong its parts are expected to be; None where the model does not say.
        error_units: unit of every figure of :attr:`expected_errors`.
        units: unit of every quantity that :func:`qcsurrogate.save_predictions` writes.
        summary_units: unit of every quantity of the JSON summary.
        conventions: sentences for whoever reads the arrays without this package.
    """

    structure: Structure
    domain: DomainVerdict = field(default=UNKNOWN, kw_only=True)
    source: Source | None = field(default=None, kw_only=True)
    uncertainty: Uncertainty | None = field(default=None, kw_only=True)

    units: ClassVar[Mapping[str, str]]
    summary_units: ClassVar[Mapping[str, str]]
    conventions: ClassVar[tuple[str, ...]] = ()
    error_units: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        if self.uncertainty is not None:
            self.uncertainty.check(len(self.structure))
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, np.ndarray):
                object.__setattr__(self, entry.name, read_only(value.copy()))

    @cached_property
    def expected_errors(self) -> Mapping[str, ExpectedError]:
        """Figures of this molecule that a comparison would report, and what is expected of them without a reference.

        They are learned from the errors of the model's validation molecules: what holds for molecules like those
        holds less and less for others.  Empty where the model says nothing of its errors.
        """
        if self.uncertainty is None:
            return {}
        found = {}
        for name, raw in self._raw_errors(self.uncertainty).items():
            if (row := self.uncertainty.calibration.get(name)) is not None:
                value = row[0] * raw
                found[name] = ExpectedError(
                    value, self.error_units[name], (value * row[1], value * row[2], value * row[3])
                )
        return found

    @property
    def array_units(self) -> Mapping[str, str]:
        """Unit of every array that a file of this prediction holds."""
        return self.units

    @property
    def figure_units(self) -> Mapping[str, str]:
        """Unit of every quantity of its JSON summary."""
        return self.summary_units

    def value(self, name: str) -> NDArray[np.float64]:
        """An array or a figure by its name."""
        return np.asarray(getattr(self, name))

    @classmethod
    def own_fields(cls) -> list[str]:
        """What this kind of prediction is made of beside its structure: bases, and entries of ``units``."""
        common = {entry.name for entry in fields(Prediction)}
        return [entry.name for entry in fields(cls) if entry.name not in common]

    @property
    def stored(self) -> list[str]:
        """Names of the arrays from which it is made again."""
        return [name for name in self.own_fields() if name in self.units]

    @property
    def shared(self) -> Mapping[str, Any]:
        """What it has in common with other predictions of its model, for the header of a file: bases, plain data."""
        values = {name: getattr(self, name) for name in self.own_fields()}
        return {name: value for name, value in values.items() if isinstance(value, BasisSet)}

    @classmethod
    def read_shared(cls, header: Mapping[str, Any]) -> dict[str, Any]:
        """The inverse of :attr:`shared`: fields by name.

        Raises:
            KeyError, BasisError: if something is missing or damaged.
        """
        return {name: BasisSet.from_dict(header[name]) for name in cls.own_fields() if name not in cls.units}

    @classmethod
    def restored(
        cls, structure: Structure, shared: Mapping[str, Any], read: Callable[[str], Any], **known: Any
    ) -> Self:
        """A prediction of a file.

        Args:
            structure: of it.
            shared: of :meth:`read_shared`.
            read: gives a stored array by its name.
            known: of the fields that all predictions have.
        """
        own = (shared[name] if name in shared else read(name) for name in cls.own_fields())
        return cls(structure, *own, **known)

    def _raw_errors(self, uncertainty: Uncertainty) -> Mapping[str, float]:
        """Estimates of figures' errors before they are calibrated."""
        return {}

    def __repr__(self) -> str:
        structure = self.structure
        state = f"charge {structure.charge}, spin {structure.spin}"
        return f"<{type(self).__name__} of {structure.formula}: {state}; {self.domain.summary}>"


@dataclass(frozen=True, eq=False, repr=False)
class PredictionWithDensity(Prediction):
    """A prediction with an electron density, and everything that follows from one."""

    @property
    @abstractmethod
    def electron_density(self) -> ElectronDensity:
        """The density as an object: points, moments, Hartree energy."""

    def density(self, points: ArrayLike) -> NDArray[np.float64]:
        """Electron density on points.

        Args:
            points: (n, 3) in bohr, any number of them.

        Returns:
            (n,) electrons / bohr^3.

        Raises:
            StructureError: if the points are not finite numbers of shape (n, 3).
        """
        return self.electron_density.on_points(as_points(points))

    @cached_property
    def _moments(self) -> Moments:
        return self.electron_density.moments()

    @cached_property
    def _charge_moments(self) -> ChargeMoments:
        return charge_moments(self.structure, self._moments)

    @property
    def electron_count(self) -> float:
        """Integral of the density over space (analytic), electrons."""
        return self._moments.count

    @cached_property
    def dipole(self) -> NDArray[np.float64]:
        """(3,) dipole moment (analytic) in e bohr, origin at (0, 0, 0), pointing from minus to plus."""
        return read_only(self._charge_moments.dipole)

    @cached_property
    def quadrupole(self) -> NDArray[np.float64]:
        """(3, 3) traceless quadrupole moment (analytic) in e bohr^2 about the centre of nuclear charge.

        See :class:`qcsurrogate.density.moments.ChargeMoments`.
        """
        return read_only(self._charge_moments.quadrupole)

    def write_cube(self, path: str | Path, *, resolution: float = 0.2, margin: float = 4.0) -> None:
        """Write the density as a Gaussian cube file (bohr, electrons / bohr^3).

        Args:
            path: where to; an older file stays until the new one is complete.
            resolution: distance of neighbouring points, bohr.
            margin: least distance from a nucleus to the edge of the box, bohr.

        Raises:
            SpecError: if resolution or margin cannot be used.
            OutputError: if the file cannot be written.
        """
        name = self.structure.name or self.structure.formula
        write_cube(
            path,
            self.structure,
            self.electron_density.on_points,
            comment=f"electron density of {name}, predicted by qcsurrogate",
            resolution=resolution,
            margin=margin,
        )


@dataclass(frozen=True, eq=False, repr=False)
class PredictionWithOrbitals(PredictionWithDensity):
    """A prediction with orbitals: those that both spins share, or alpha and beta along a first axis of length 2."""

    @property
    @abstractmethod
    def mol(self) -> Mole:
        """The PySCF ``Mole`` whose functions the orbitals are made of."""

    @property
    @abstractmethod
    def mo_energy(self) -> NDArray[np.float64]:
        """([2,] n_ao) orbital energies, Hartree, ascending."""

    @property
    @abstractmethod
    def mo_coeff(self) -> NDArray[np.float64]:
        """([2,] n_ao, n_mo) orbital coefficients, orthonormal."""

    @property
    @abstractmethod
    def mo_occ(self) -> NDArray[np.float64]:
        """([2,] n_ao) electrons in each orbital."""

    @property
    @abstractmethod
    def density_matrix(self) -> NDArray[np.float64]:
        """([2,] n_ao, n_ao) one-particle density matrix of the orbitals."""

    def to_pyscf(
        self, *, policy: Policy = "surrogate", steps: int = 1, tolerance: float = 1e-3, threads: int = 1
    ) -> Any:
        """A PySCF mean field with these orbitals: :func:`qcsurrogate.prediction.pyscf.surrogate_ks` has the details."""
        from qcsurrogate.prediction.pyscf import mean_field

        return mean_field(self, policy=policy, steps=steps, tolerance=tolerance, threads=threads)
