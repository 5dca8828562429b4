"""A predicted Hamiltonian and what its orbitals say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcsurrogate.basis import BasisSet
from qcsurrogate.density.cube import write_cube
from qcsurrogate.density.densities import OrbitalDensity, as_points
from qcsurrogate.errors import BasisError, SpecError
from qcsurrogate.prediction.results import MOMENTS, PredictionWithOrbitals, read_only
from qcsurrogate.prediction.uncertainty import Uncertainty
from qcsurrogate.quantities.hamiltonian.uncertainty import FIGURES, matrix_estimate, orbital_estimates, shares
from qcsurrogate.reference.evaluation import OneShot, evaluate_once
from qcsurrogate.reference.orbitals import MolecularOrbitals

if TYPE_CHECKING:
    from pyscf.gto import Mole


@dataclass(frozen=True, eq=False, repr=False)
class HamiltonianPrediction(PredictionWithOrbitals):
    """A Kohn-Sham Hamiltonian and what its orbitals say.

    Restricted, both spins share their orbitals.  Unrestricted, the Hamiltonian and everything of its
    orbitals has a first axis of length 2, alpha and beta, as in PySCF's UKS.

    Attributes:
        orbital_basis: the basis of all matrices.
        hamiltonian: ([2,] n_ao, n_ao) Fock matrix in Hartree, PySCF AO order, symmetric.
        baseline: (n_ao, n_ao) H0 that the network has corrected, Hartree.

    Raises:
        BasisError: if the matrix is not that of a molecule in this basis.
    """

    orbital_basis: BasisSet
    hamiltonian: NDArray[np.float64]
    baseline: NDArray[np.float64]

    units: ClassVar[Mapping[str, str]] = {
        "hamiltonian": "hartree",
        "baseline": "hartree",
        "overlap": "1",
        "mo_energy": "hartree",
        "mo_coeff": "1",
        "mo_occ": "1",
        "density_matrix": "1",
        "dipole": "e bohr",
        "quadrupole": "e bohr^2",
    }
    summary_units: ClassVar[Mapping[str, str]] = {
        "homo": "hartree",
        "lumo": "hartree",
        "gap": "hartree",
        "dipole": "e bohr",
        "quadrupole": "e bohr^2",
    }

    error_units: ClassVar[Mapping[str, str]] = dict.fromkeys(FIGURES, "hartree")

    conventions: ClassVar[tuple[str, ...]] = (
        "All matrices are over 'orbital_basis'; H C = S C e. 'baseline' is H0, which the network has corrected. The "
        "density matrix holds two electrons in each occupied orbital; where 'hamiltonian' and what follows from it "
        "have a first axis of length 2 (alpha, beta; unrestricted), one. HOMO and LUMO are then the highest occupied "
        "and the lowest empty orbital of either spin.",
        "'expected_block_errors' are those of elements of S^(-1/2) H S^(-1/2).",
        MOMENTS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        n = self.orbital_basis.n_functions(self.structure.atomic_numbers)
        shapes = [(n, n), (2, n, n)][self.structure.spin > 0 :]  # one set of orbitals has no unpaired electrons
        self._require_shape("Hamiltonian", self.hamiltonian, shapes)
        self._require_shape("baseline", self.baseline, [(n, n)])

    def _require_shape(self, what: str, matrix: NDArray[np.float64], expected: Sequence[tuple[int, ...]]) -> None:
        if matrix.shape not in expected:
            raise BasisError(
                f"the {what} of {self.structure.label} has the shape {matrix.shape}; expected "
                f"{' or '.join(map(str, expected))}, the functions of '{self.orbital_basis.name}'"
            )

    @property
    def unrestricted(self) -> bool:
        """Whether each spin has its own orbitals."""
        return self.hamiltonian.ndim == 3

    @cached_property
    def mol(self) -> Mole:
        """The PySCF ``Mole`` whose orbitals the matrices refer to."""
        return self.orbital_basis.build_mol(self.structure)

    @cached_property
    def overlap(self) -> NDArray[np.float64]:
        """(n_ao, n_ao) overlap matrix, PySCF AO order."""
        return read_only(self.mol.intor_symmetric("int1e_ovlp"))

    @cached_property
    def _orbitals(self) -> MolecularOrbitals:
        return MolecularOrbitals.of(self.hamiltonian, self.overlap, self.structure)

    @cached_property
    def mo_energy(self) -> NDArray[np.float64]:
        """([2,] n_ao) orbital energies in Hartree, ascending: H C = S C e."""
        return read_only(self._orbitals.energies)

    @cached_property
    def mo_coeff(self) -> NDArray[np.float64]:
        """([2,] n_ao, n_mo) orbital coefficients, C^T S C = 1; the largest one of each orbital is positive."""
        return read_only(self._orbitals.coefficients)

    @cached_property
    def mo_occ(self) -> NDArray[np.float64]:
        """([2,] n_ao) occupations, 2 (unrestricted: 1) for the lowest orbitals and 0 above."""
        return read_only(self._orbitals.occupations)

    @property
    def homo(self) -> float:
        """Energy of the highest occupied orbital (of either spin), Hartree; NaN without electrons."""
        return self._orbitals.homo

    @property
    def lumo(self) -> float:
        """Energy of the lowest empty orbital (of either spin), Hartree; NaN where the basis has none."""
        return self._orbitals.lumo

    @property
    def gap(self) -> float:
        """LUMO less HOMO energy, Hartree."""
        return self._orbitals.gap

    @cached_property
    def density_matrix(self) -> NDArray[np.float64]:
        """([2,] n_ao, n_ao) one-particle density matrix of the orbitals: what an SCF starts from, as ``dm0``."""
        return read_only(self._orbitals.density_matrix)

    @cached_property
    def spin_density_matrix(self) -> NDArray[np.float64]:
        """(n_ao, n_ao) density matrix of alpha less that of beta; zero if restricted."""
        return read_only(self._orbitals.spin_density_matrix)

    @property
    def spin_square(self) -> float:
        """<S^2> of the determinant; 0 if restricted."""
        return self._orbitals.spin_square(self.overlap)

    def _raw_errors(self, uncertainty: Uncertainty) -> Mapping[str, float]:
        counts = np.diff(self.orbital_basis.offsets(self.structure.atomic_numbers))
        estimates = matrix_estimate(uncertainty.blocks, counts)
        if "homo_error" not in uncertainty.calibration:
            return estimates
        values, vectors = np.linalg.eigh(self.overlap)
        orthogonal = (vectors * np.sqrt(values)) @ (vectors.T @ self.mo_coeff)
        occupied = self.structure.n_electrons // 2
        return estimates | orbital_estimates(uncertainty.blocks, shares(orthogonal, counts), occupied)

    @property
    def electron_density(self) -> OrbitalDensity:
        """The density of both spins together."""
        return OrbitalDensity(self.mol, self._orbitals.total_density_matrix)

    def spin_density(self, points: ArrayLike) -> NDArray[np.float64]:
        """Density of alpha less that of beta on points; zero if restricted.

        Args:
            points: (n, 3) in bohr, any number of them.

        Returns:
            (n,) electrons / bohr^3.

        Raises:
            StructureError: if the points are not finite numbers of shape (n, 3).
        """
        return OrbitalDensity(self.mol, self.spin_density_matrix).on_points(as_points(points))

    def write_spin_cube(self, path: str | Path, *, resolution: float = 0.2, margin: float = 4.0) -> None:
        """Write the spin density as a Gaussian cube file; arguments and errors are those of :meth:`write_cube`."""
        name = self.structure.name or self.structure.formula
        comment = f"spin density of {name}, predicted by qcsurrogate"
        write_cube(path, self.structure, self.spin_density, comment=comment, resolution=resolution, margin=margin)

    def check(self, *, threads: int = 1) -> OneShot:
        """Total energy of the density matrix, and how far it is from self-consistency: one Fock build, no reference.

        Raises:
            SpecError: if nobody knows the method, because no model made this prediction.
        """
        if self.source is None or self.source.method is None:
            raise SpecError(
                f"the prediction for {self.structure.label} has no source, and so no method to evaluate it with; "
                "expected one that a model made"
            )
        return evaluate_once(self.structure, self.source.method, self.density_matrix, threads=threads)
