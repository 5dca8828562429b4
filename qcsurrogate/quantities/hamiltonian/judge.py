"""Measures predicted Hamiltonians: elements, orbitals, and the density of their density matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from qcsurrogate.comparison import pictures
from qcsurrogate.comparison.figures import SPIN_DENSITY_NMAE, Figure
from qcsurrogate.comparison.headline import CHEMICAL_ACCURACY_HARTREE, Rule
from qcsurrogate.comparison.judge import Judge, finite, spin_mismatch
from qcsurrogate.comparison.measure import MeasuredDensity, Reference, Values, density_values
from qcsurrogate.comparison.metrics import occupied_subspace_defect, orbital_cosine_defects
from qcsurrogate.comparison.page import Picture, Section, Table, distribution_table, figure_table, titled
from qcsurrogate.comparison.schema import Breakdown, Comparison, DistanceSummary, PairSummary
from qcsurrogate.comparison.text import readable
from qcsurrogate.density.densities import OrbitalDensity
from qcsurrogate.quantities.hamiltonian.breakdown import SHELL_LETTERS, BlockErrors
from qcsurrogate.quantities.hamiltonian.prediction import HamiltonianPrediction
from qcsurrogate.quantities.hamiltonian.surrogate import HamiltonianSurrogate
from qcsurrogate.reference.kohn_sham import spin_square
from qcsurrogate.reference.orbitals import MolecularOrbitals
from qcsurrogate.store.store import Store
from qcsurrogate.units import EV_PER_HARTREE

Array = NDArray[np.float64]

MATRIX = (
    Figure("hamiltonian_mae", "Mean error", "hartree", "mean over all elements of |H_pred - H_ref|"),
    Figure("hamiltonian_largest_error", "Largest error", "hartree", "max over all elements of |H_pred - H_ref|"),
    Figure(
        "hamiltonian_frobenius_per_sqrt_n",
        "Frobenius norm of the Hamiltonian error / sqrt(N)",
        "hartree",
        "sqrt(sum_ij (H_pred - H_ref)_ij^2 / N), N electrons: a norm, no mean; not diluted as molecules grow; of two "
        "spins the mean square",
    ),
    Figure("baseline_mae", "Mean error of H0, no network", "hartree", "mean over all elements of |H_0 - H_ref|"),
)
ORBITALS = (
    Figure(
        "occupied_energy_mae", "Occupied energies", "hartree", "mean over occupied |e_pred - e_ref|, HC = SCe", "eV"
    ),
    Figure("homo_error", "HOMO energy", "hartree", "|HOMO_pred - HOMO_ref|; the highest of either spin", "eV"),
    Figure("lumo_error", "LUMO energy", "hartree", "|LUMO_pred - LUMO_ref|; the lowest of either spin", "eV"),
    Figure("gap_error", "HOMO-LUMO gap", "hartree", "|gap_pred - gap_ref|", "eV"),
    Figure(
        "occupied_subspace_defect",
        "Occupied space missed",
        "1",
        "1 - |C_ref^T S C_pred|_F^2 / n_occ over occupied orbitals; 0 is perfect",
        "share",
    ),
    Figure(
        "orbital_cosine_defect",
        "Orbital shapes, fragile under degeneracy",
        "1",
        "mean over occupied orbitals of 1 - |c_ref^T S c_pred|; read only beside the occupied space",
        "share",
    ),
)
SPIN = (
    SPIN_DENSITY_NMAE,
    Figure("spin_square_error", "<S^2>", "1", "|<S^2>_pred - <S^2>_ref| of the Kohn-Sham determinants"),
)

_LEVELS = (
    (CHEMICAL_ACCURACY_HARTREE / 10, CHEMICAL_ACCURACY_HARTREE),
    (
        "Far below what one functional differs from the next.",
        "Within 1 kcal/mol (43 meV).",
        "Beyond 1 kcal/mol (43 meV): use with care.",
    ),
)


@dataclass(frozen=True, eq=False)
class Levels:
    """Reference and predicted orbital energies (n_ao,), Hartree, of one molecule, or of one of its spins."""

    name: str
    n_occupied: int
    reference: Array
    predicted: Array
    spin: str = ""


class HamiltonianJudge(Judge):
    """See :class:`qcsurrogate.comparison.judge.Judge`."""

    figures: ClassVar[Sequence[Figure]] = (*MATRIX, *ORBITALS, *SPIN)
    rules: ClassVar[Sequence[Rule]] = (
        Rule("hamiltonian_mae", "Hamiltonian error", (50e-6, 500e-6), beats=("baseline_mae", "H0 alone")),
        Rule("occupied_energy_mae", "Orbital-energy error", *_LEVELS),
        Rule("gap_error", "HOMO-LUMO gap error", *_LEVELS),
    )
    starts_scf: ClassVar[bool] = True

    def __init__(self, surrogate: HamiltonianSurrogate) -> None:
        self.blocks = BlockErrors(surrogate.orbital_basis)
        self.method, self.unrestricted = surrogate.method, surrogate.method.unrestricted
        self.levels: list[tuple[Levels, ...]] = []
        self.shown: tuple[Levels, ...] = ()

    def mismatches(self, store: Store, elements: Sequence[int]) -> list[str]:
        return spin_mismatch(self.method, store)

    def measure(self, prediction: HamiltonianPrediction, reference: Reference, *, on_grid: bool) -> Values:
        hamiltonian, truth = finite(prediction.hamiltonian, "Hamiltonian"), reference.record.fock
        orbitals = self.orbitals(prediction, reference)
        levels = self._levels(orbitals, reference)
        values = matrix_values(hamiltonian, truth, reference.n_electrons) | orbital_values(levels)
        values["baseline_mae"] = float(np.abs(prediction.baseline - truth).mean())
        values |= space_values(orbitals, reference)
        density = MeasuredDensity(OrbitalDensity(reference.mol, orbitals.total_density_matrix), reference.structure)
        values |= density_values(density, reference, on_grid=on_grid)
        if self.unrestricted:
            values |= spin_values(orbitals, reference, on_grid=on_grid)
        self.blocks.add(reference.structure, hamiltonian, truth)
        self.levels.append(levels)
        return values

    def orbitals(self, prediction: HamiltonianPrediction, reference: Reference) -> MolecularOrbitals:
        return reference.orbitals_of(prediction.hamiltonian)

    def density(self, prediction: HamiltonianPrediction, reference: Reference) -> OrbitalDensity:
        return OrbitalDensity(reference.mol, self.orbitals(prediction, reference).total_density_matrix)

    def breakdown(self) -> Breakdown:
        return self.blocks.summary()

    def show(self, prediction: HamiltonianPrediction, reference: Reference, name: str) -> None:
        self.shown = self._levels(self.orbitals(prediction, reference), reference, name)

    def _levels(self, orbitals: MolecularOrbitals, reference: Reference, name: str = "") -> tuple[Levels, ...]:
        spins = ("alpha", "beta") if self.unrestricted else ("",)
        return tuple(
            Levels(name, ours.n_occupied, truth.energies, ours.energies, spin)
            for spin, ours, truth in zip(spins, orbitals.sets, reference.orbitals.sets, strict=True)
        )

    def sections(self, comparison: Comparison, label: str) -> list[Section]:
        return [self._orbital_section(comparison, label), self._matrix_section(comparison, label)]

    def _orbital_section(self, comparison: Comparison, label: str) -> Section:
        """Parity of orbital energies and gap, and the levels of one molecule."""
        metrics = comparison.metrics[label]
        sets = [levels for molecule in self.levels for levels in molecule]
        reference = np.concatenate([s.reference[: s.n_occupied] for s in sets])
        predicted = np.concatenate([s.predicted[: s.n_occupied] for s in sets])
        valence = reference > pictures.CORE_HARTREE
        valence = valence if valence.any() else ~valence
        shown = [
            Picture(
                "Occupied orbital energies",
                pictures.parity(reference[valence], predicted[valence], "occupied orbital energy"),
                "Scatter plot of predicted against reference occupied orbital energies, with the errors below.",
                f"Every occupied valence orbital of every molecule ({valence.sum()} points). On the line is right; the "
                "lower panel shows how far off. The numbers in the table include the core.",
            )
        ]
        pairs = [np.diff(frontier(molecule), axis=0)[0] for molecule in self.levels]
        if gaps := [pair for pair in pairs if np.isfinite(pair).all()]:
            shown.append(
                Picture(
                    "HOMO-LUMO gap",
                    pictures.parity(np.array(gaps)[:, 0], np.array(gaps)[:, 1], "HOMO-LUMO gap"),
                    "Scatter plot of predicted against reference HOMO-LUMO gaps, with the errors below.",
                    f"One point per molecule ({len(gaps)}).",
                )
            )
        shown += [_level_picture(levels) for levels in self.shown]
        return Section(
            titled("Orbitals", label, comparison.breakdowns),
            (
                "Energies from HC = SCe with the predicted Hamiltonian and the exact overlap. Orbital shapes are "
                "fragile, because nearly degenerate orbitals mix freely; the occupied space is not.",
            ),
            tables=(figure_table(metrics[f.name] for f in (*ORBITALS, *SPIN) if f.name in metrics),),
            pictures=shown,
        )

    def _matrix_section(self, comparison: Comparison, label: str) -> Section:
        """Where in the matrix the error sits."""
        metrics, found = comparison.metrics[label], comparison.breakdowns[label]
        distance = [_distance_picture(self.blocks, found.distances)] if found.distances else []
        return Section(
            titled("Hamiltonian matrix", label, comparison.breakdowns),
            (
                "Absolute errors of the Kohn-Sham matrix, per kind of matrix element. H0 is what is known without a "
                "network; the network predicts the rest.",
            ),
            tables=(figure_table(metrics[f.name] for f in MATRIX if f.name in metrics),),
            pictures=(_element_picture(found.element_pairs), *distance, *_shell_pictures(found.shell_pairs)),
        )


def matrix_values(predicted: Array, reference: Array, n_electrons: int) -> Values:
    """Errors of ([2,] n_ao, n_ao) matrices over all their elements."""
    difference = np.abs(predicted - reference)
    of_one = (difference**2).mean() * difference.shape[-1] ** 2
    return {
        "hamiltonian_mae": float(difference.mean()),
        "hamiltonian_largest_error": float(difference.max()),
        "hamiltonian_frobenius_per_sqrt_n": float(np.sqrt(of_one / n_electrons)),
    }


def orbital_values(sets: Sequence[Levels]) -> Values:
    """Errors of the orbital energies of a molecule, those of both spins together."""
    occupied = np.concatenate([np.abs(s.predicted - s.reference)[: s.n_occupied] for s in sets])
    (homo, reference_homo), (lumo, reference_lumo) = frontier(sets)
    values = {"occupied_energy_mae": float(occupied.mean()), "homo_error": abs(homo - reference_homo)}
    if np.isfinite(lumo):
        values["lumo_error"] = abs(lumo - reference_lumo)
        values["gap_error"] = abs((lumo - homo) - (reference_lumo - reference_homo))
    return {name: float(value) for name, value in values.items()}


def frontier(sets: Sequence[Levels]) -> Array:
    """(2, 2) HOMO and LUMO of either spin, each predicted and of the reference; infinite where there is none."""
    both = [[(s.predicted, s.n_occupied) for s in sets], [(s.reference, s.n_occupied) for s in sets]]
    homo = [max(energies[:n].max(initial=-np.inf) for energies, n in one) for one in both]
    lumo = [min(energies[n:].min(initial=np.inf) for energies, n in one) for one in both]
    return np.array([homo, lumo])


def space_values(orbitals: MolecularOrbitals, reference: Reference) -> Values:
    """How far the occupied orbitals are from those of the reference, those of both spins together."""
    missed, cosines = 0.0, []
    for ours, truth in zip(orbitals.sets, reference.orbitals.sets, strict=True):
        if ours.n_occupied:
            spaces = truth.coefficients, ours.coefficients, reference.record.overlap, ours.n_occupied
            missed += occupied_subspace_defect(*spaces) * ours.n_occupied
            cosines.append(orbital_cosine_defects(*spaces))
    every = np.concatenate(cosines)
    return {"occupied_subspace_defect": missed / len(every), "orbital_cosine_defect": float(every.mean())}


def spin_values(orbitals: MolecularOrbitals, reference: Reference, *, on_grid: bool) -> Values:
    """Errors of what alpha has more than beta."""
    record = reference.record
    truth = record.density_matrix_alpha, record.density_matrix_beta
    found = orbitals.spin_square(record.overlap)
    values = {"spin_square_error": abs(found - spin_square(*truth, record.overlap))}
    if on_grid:
        spin = MeasuredDensity(OrbitalDensity(reference.mol, orbitals.spin_density_matrix), reference.structure)
        values[SPIN_DENSITY_NMAE.name] = spin.nmae(reference.spin_density, reference.grid)
    return values


def _level_picture(levels: Levels) -> Picture:
    n, difference = levels.n_occupied, levels.predicted - levels.reference
    rows = range(min(len(difference), n + 6))
    unit = readable(difference[rows], "eV")
    table = [
        (
            f"{i + 1}" + {n - 1: " HOMO", n: " LUMO"}.get(i, ""),
            ("1" if levels.spin else "2") if i < n else "0",
            f"{levels.reference[i] * EV_PER_HARTREE:.4f}",
            f"{levels.predicted[i] * EV_PER_HARTREE:.4f}",
            unit.number(difference[i], sign=True),
        )
        for i in rows
    ]
    return Picture(
        f"Orbital levels of one molecule{f', {levels.spin}' if levels.spin else ''}",
        pictures.level_diagram(levels.reference, levels.predicted, n),
        "Orbital-level diagram: reference levels left, surrogate levels right, with their differences.",
        f"{levels.name}, the molecule of median Hamiltonian error. Full lines are occupied, dashed lines empty; core "
        "levels are in the table only.",
        Table(("orbital", "electrons", "reference (eV)", "surrogate (eV)", unit.label("difference")), table),
    )


def _means(pairs: Sequence[PairSummary]) -> dict[tuple[str, str, str], float]:
    return {(p.first, p.second, p.atoms): p.mean for p in pairs}


def _element_picture(pairs: Sequence[PairSummary]) -> Picture:
    mean = _means(pairs)
    elements = sorted({name for p in mean for name in p[:2]}, key=lambda e: atomic_numbers[e])
    one_atom = np.array([mean.get((e, e, "same"), np.nan) for e in elements])
    rows, values = [*elements, "one atom"], np.vstack([_triangle(mean, elements), one_atom])
    return Picture(
        "Error by element pair",
        pictures.heat_map(rows, elements, values, rule=len(elements)),
        "Heat map of the mean Hamiltonian error for every pair of elements, and for single atoms.",
        "Mean absolute error of the matrix elements between two atoms, and (last row) on one atom.",
        _pair_table(pairs),
    )


def _distance_picture(blocks: BlockErrors, found: Sequence[DistanceSummary]) -> Picture:
    distances, errors = np.concatenate(blocks.distances), np.concatenate(blocks.errors)
    unit = readable(errors, "hartree")
    bars = [(d.start_angstrom, d.stop_angstrom, d.mean * unit.factor) for d in found]
    axes = ("distance (Å)", unit.label("mean error of the block"))
    return Picture(
        "Error by distance",
        pictures.scatter(distances, errors * unit.factor, axes, logarithmic="y", bars=bars),
        "Scatter plot of the Hamiltonian error of each pair of atoms over their distance.",
        f"{len(distances):,} pairs of atoms; bars are means, each over one peak of the distances.",
        distribution_table(
            ("distance (Å)",), [(f"{d.start_angstrom:.2f} to {d.stop_angstrom:.2f}", d) for d in found], "pairs"
        ),
    )


def _triangle(means: Mapping[tuple[str, str, str], float], names: Sequence[str]) -> Array:
    """(n, n) means of pairs on two atoms, lower triangle; NaN where there is none."""
    matrix = np.full((len(names), len(names)), np.nan)
    for (first, second, atoms), mean in means.items():
        if atoms == "different":
            i, j = sorted((names.index(first), names.index(second)), reverse=True)
            matrix[i, j] = mean
    return matrix


def _shell_pictures(pairs: Sequence[PairSummary]) -> list[Picture]:
    """Shells of one atom in a table of shells by kind of shell, those of two in a triangle of all shells."""
    mean = _means(pairs)
    shells = sorted({name for p in mean for name in p[:2]}, key=_place)
    kinds = sorted({name.split(" ")[1] for name in shells}, key=lambda kind: _place(f"H {kind}"))
    one_atom = np.array([[_same(mean, shell, f"{shell.split(' ')[0]} {kind}") for kind in kinds] for shell in shells])
    numbered = "Shells are numbered as in the basis: 2p is the first p shell, 3p the second."
    drawn = [("one atom", "same", pictures.heat_map(shells, kinds, one_atom), False)]
    if any(p.atoms == "different" for p in pairs):
        two_atoms = pictures.heat_map(shells, shells, _triangle(mean, shells))
        drawn.append(("two atoms", "different", two_atoms, len(shells) > 10))
    return [
        Picture(
            f"Error by shell pair, {title}",
            source,
            f"Heat map of the mean Hamiltonian error for every pair of shells, {title}.",
            numbered,
            _pair_table([p for p in pairs if p.atoms == atoms], worst=30),
            wide,
        )
        for title, atoms, source, wide in drawn
    ]


def _same(means: Mapping[tuple[str, str, str], float], first: str, second: str) -> float:
    return means.get((first, second, "same"), means.get((second, first, "same"), np.nan))


def _place(shell: str) -> tuple[int, int, int]:
    """Shells by element, then s, p, d, then number."""
    element, name = shell.split(" ")
    return atomic_numbers[element], SHELL_LETTERS.index(name[-1]), int(name[:-1])


def _pair_table(pairs: Sequence[PairSummary], worst: int | None = None) -> Table:
    """Pairs by falling error, all or only the worst."""
    ordered = sorted(pairs, key=lambda p: p.mean, reverse=True)[:worst]
    caption = "" if worst is None or len(pairs) <= worst else f"The worst {worst} of {len(pairs)}"
    return distribution_table(
        ("pair", "atoms"), [(f"{p.first} - {p.second}", p.atoms, p) for p in ordered], "blocks", caption
    )
