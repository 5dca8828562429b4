"""Structures that a spec's samplers make."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, assert_never

from qcsurrogate.errors import SpecError, StructureError
from qcsurrogate.reference.settings import Method
from qcsurrogate.sources.chosen import Collected
from qcsurrogate.sources.kinds import (
    CalculatorName,
    ConformerSource,
    DisplacementSource,
    DynamicsSource,
    Sampler,
    ThermalSource,
    TorsionSource,
)
from qcsurrogate.sources.samplers.conformers import sample_conformers
from qcsurrogate.sources.samplers.dynamics import sample_dynamics
from qcsurrogate.sources.samplers.torsions import rotatable_dihedrals, scan_torsions
from qcsurrogate.sources.samplers.vibrations import sample_displacements, sample_thermal
from qcsurrogate.structures import Structure

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


def sampled(source: Sampler, starts: Collected | None, method: Method) -> Collected:
    """Geometries around the molecule of a source, or around each of ``starts``.

    The geometries of one molecule are a group. A molecule with nothing to sample (an atom,
    or for a torsion one without a rotatable bond) is left out and counted. With ``starts``, each molecule has a seed
    of its own, made from the source's seed and the molecule, so that leaving one out
    changes nothing for the others.
    """
    seed = 0 if isinstance(source, TorsionSource) else source.seed
    report = {}
    if source.equilibrium is not None:
        molecules = [(source.equilibrium.structure(method.charge, method.spin), source.equilibrium.name, seed)]
    else:
        starts = starts or Collected([], None, {})
        molecules = [
            (s, label, _own_seed(seed, s)) for s, label in zip(starts.structures, _labels(starts), strict=True)
        ]
        report = {f"molecules {what}": count for what, count in starts.report.items()}
    structures: list[Structure] = []
    groups: list[str] = []
    clashes = empty = 0
    for start, label, own_seed in molecules:
        made, lost = _around(source, start, method, own_seed)
        structures.extend(made)
        groups.extend([label] * len(made))
        clashes += lost
        empty += not (made or lost)
    if empty:
        what = "no rotatable bond" if isinstance(source, TorsionSource) else "an atom, nothing to move"
        report[f"molecules left out: {what}"] = empty
    if source.equilibrium is None:
        report["molecules"] = len(molecules) - empty
    report["sampled"] = len(structures) + clashes
    if clashes:
        report["left out: clash"] = clashes
    return Collected(structures, groups, report)


def conformers(source: ConformerSource) -> Collected:
    """Conformers of every SMILES, each a group."""
    all_smiles = (source.smiles,) if isinstance(source.smiles, str) else source.smiles
    structures: list[Structure] = []
    groups: list[str] = []
    for number, smiles in enumerate(all_smiles):
        made = sample_conformers(
            smiles,
            source.count,
            source.seed,
            optimise=source.optimise,
            rmsd_angstrom=source.rmsd_angstrom,
            name="" if len(all_smiles) == 1 else f"smiles{number:0{len(str(len(all_smiles) - 1))}d}",
        )
        structures.extend(made)
        groups.extend([smiles] * len(made))
    tried = source.count * len(all_smiles)
    report = {"sampled": tried}
    if tried > len(structures):
        report["left out: conformer like another"] = tried - len(structures)
    return Collected(structures, groups, report)


def _around(source: Sampler, start: Structure, method: Method, seed: int) -> tuple[list[Structure], int]:
    """Geometries around one molecule, none if it has nothing to sample, and how many were left out for clashes."""
    if len(start) == 1:
        return [], 0
    match source:
        case ThermalSource():
            from qcsurrogate.reference.normal_modes import harmonic_modes

            modes = harmonic_modes(start, method)
            return sample_thermal(modes, source.temperature_kelvin, source.count, seed, source.statistics), 0
        case DisplacementSource():
            return sample_displacements(start, source.sigma_angstrom, source.count, seed), 0
        case TorsionSource():
            dihedrals = rotatable_dihedrals(start) if source.dihedrals == "all" else source.dihedrals
            if not dihedrals:
                return [], 0
            scan = scan_torsions(start, dihedrals, source.steps, grid=source.grid)
            return list(scan.structures), scan.clashes
        case DynamicsSource():
            return _trajectory(source, start, method, seed), 0
        case _:
            assert_never(source)


def _trajectory(source: DynamicsSource, start: Structure, method: Method, seed: int) -> list[Structure]:
    try:
        calculator = _calculator(source.calculator, start, method)
        return sample_dynamics(start, calculator, source.model_copy(update={"seed": seed}))
    except (NotImplementedError, RuntimeError) as error:
        raise StructureError(
            f"{start.label}: the calculator '{source.calculator}' failed ({error}); choose another, or start from "
            "another geometry"
        ) from error


def _calculator(name: CalculatorName, structure: Structure, method: Method) -> Calculator:
    match name:
        case "method":
            from qcsurrogate.reference.normal_modes import KohnShamForces

            return KohnShamForces(structure, method)
        case "emt":
            from ase.calculators.emt import EMT

            return EMT()
        case "gfn1-xtb" | "gfn2-xtb":
            try:
                from tblite.ase import TBLite
            except ImportError as error:
                raise SpecError(
                    f"structures.calculator: '{name}' needs tblite; install it with: pip install tblite"
                ) from error
            return TBLite(
                method=f"GFN{name[3]}-xTB", charge=structure.charge, multiplicity=structure.spin + 1, verbosity=0
            )


def _labels(starts: Collected) -> list[str]:
    """A group label for every molecule: its own, or its name, made unique."""
    if starts.groups is not None:
        return list(starts.groups)
    names = [structure.name for structure in starts.structures]
    repeated = {name for name, count in Counter(names).items() if count > 1 or not name}
    return [f"{name}#{i}" if name in repeated else name for i, name in enumerate(names)]


def _own_seed(seed: int, structure: Structure) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {structure.key}".encode()).digest()[:4], "big")
