"""A molecule's geometry, and its ways in from and out to ASE, PySCF and files."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import ArrayLike, NDArray

from qcsurrogate.errors import StructureError
from qcsurrogate.units import ANGSTROM_PER_BOHR, BOHR_PER_ANGSTROM

if TYPE_CHECKING:
    from ase import Atoms
    from pyscf.gto import Mole

MINIMUM_DISTANCE_BOHR = 0.6
"""Two nuclei nearer than this are a mistake: H2 at half its bond length has 0.7 bohr."""

_KEY_DECIMALS = 8


@dataclass(frozen=True, eq=False)
class Structure:
    """A molecule: nuclei, charge and spin.

    Attributes:
        atomic_numbers: (n_atoms,) nuclear charges.
        positions: (n_atoms, 3) in bohr.
        charge: total charge.
        spin: number of unpaired electrons, n_alpha - n_beta (PySCF's convention).
        name: what messages and tables call it.

    Raises:
        StructureError: on wrong shapes, unknown elements, positions that are not
            finite, atoms on top of each other, or a spin that the number of electrons
            does not allow.
    """

    atomic_numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    charge: int = 0
    spin: int = 0
    name: str = field(default="")

    def __post_init__(self) -> None:
        numbers = np.array(self.atomic_numbers, dtype=np.int64)
        positions = np.array(self.positions, dtype=np.float64)
        numbers.setflags(write=False)
        positions.setflags(write=False)
        object.__setattr__(self, "atomic_numbers", numbers)
        object.__setattr__(self, "positions", positions)
        self._check()

    def _check(self) -> None:
        numbers, positions = self.atomic_numbers, self.positions
        if numbers.ndim != 1 or len(numbers) == 0 or positions.shape != (len(numbers), 3):
            raise StructureError(
                f"{self.label}: expected (n_atoms,) atomic numbers and (n_atoms, 3) positions, "
                f"got {numbers.shape} and {positions.shape}"
            )
        if numbers.min() < 1 or numbers.max() >= len(chemical_symbols):
            bad = numbers[(numbers < 1) | (numbers >= len(chemical_symbols))][0]
            raise StructureError(f"{self.label}: {bad} is not an atomic number; expected 1 to 118")
        if not np.isfinite(positions).all():
            atom = int(np.argmin(np.isfinite(positions).all(axis=1)))
            raise StructureError(
                f"{self.label}: the position of atom {atom} ({self.symbols[atom]}) is "
                f"{positions[atom].tolist()}; expected finite numbers"
            )
        self._check_distances()
        if (self.n_electrons - self.spin) % 2 or not 0 <= self.spin <= self.n_electrons:
            raise StructureError(
                f"{self.label}: {self.n_electrons} electrons (charge {self.charge}) cannot have spin "
                f"{self.spin} (unpaired electrons); give a charge or a spin that fits"
            )

    def _check_distances(self) -> None:
        if len(self) < 2:
            return
        from scipy.spatial import cKDTree

        pairs = cKDTree(self.positions).query_pairs(MINIMUM_DISTANCE_BOHR, output_type="ndarray")
        if len(pairs):
            i, j = (int(k) for k in pairs[0])
            distance = float(np.linalg.norm(self.positions[i] - self.positions[j])) * ANGSTROM_PER_BOHR
            raise StructureError(
                f"{self.label}: atoms {i} ({self.symbols[i]}) and {j} ({self.symbols[j]}) are "
                f"{distance:.4f} Angstrom apart; expected at least "
                f"{MINIMUM_DISTANCE_BOHR * ANGSTROM_PER_BOHR:.2f} (are the units right?)"
            )

    def __len__(self) -> int:
        return len(self.atomic_numbers)

    @property
    def label(self) -> str:
        """What messages call it: its name in quotes, or its formula."""
        return f"structure '{self.name}'" if self.name else f"structure with {len(self.atomic_numbers)} atoms"

    @property
    def symbols(self) -> list[str]:
        """Chemical symbols of the atoms."""
        return [chemical_symbols[z] for z in self.atomic_numbers]

    @property
    def formula(self) -> str:
        """Hill formula, such as ``C2H6O``."""
        from ase.formula import Formula

        return Formula.from_list(self.symbols).format("hill")

    @property
    def n_electrons(self) -> int:
        """Number of electrons."""
        return int(self.atomic_numbers.sum()) - self.charge

    @property
    def key(self) -> str:
        """A hash of what a calculation sees: elements, positions, charge, spin.

        Positions enter rounded to 1e-8 bohr, in the frame and the order they are
        given in, because a Hamiltonian depends on both; the name does not enter.
        """
        rounded = np.round(self.positions, _KEY_DECIMALS) + 0.0  # -0.0 becomes 0.0
        digest = hashlib.sha256(np.array([self.charge, self.spin], dtype="<i8").tobytes())
        digest.update(self.atomic_numbers.astype("<i8").tobytes())
        digest.update(rounded.astype("<f8").tobytes())
        return digest.hexdigest()[:32]

    def moved(self, positions: ArrayLike, name: str | None = None) -> Structure:
        """The same molecule at other positions (n_atoms, 3) in bohr."""
        return replace(self, positions=np.asarray(positions), name=self.name if name is None else name)

    @classmethod
    def from_ase(cls, atoms: Atoms, charge: int = 0, spin: int = 0, name: str = "") -> Structure:
        """From ASE ``Atoms`` (Angstrom); periodic cells are refused."""
        if np.any(atoms.pbc):
            raise StructureError(
                f"structure '{name or atoms.get_chemical_formula()}' is periodic (pbc={atoms.pbc.tolist()}); "
                "expected a molecule: set atoms.pbc = False"
            )
        info: dict[str, Any] = atoms.info
        return cls(
            atoms.numbers,
            atoms.positions * BOHR_PER_ANGSTROM,
            int(info.get("charge", charge)),
            int(info.get("spin", spin)),
            str(info.get("name", name)),
        )

    def to_ase(self) -> Atoms:
        """As ASE ``Atoms`` (Angstrom)."""
        from ase import Atoms

        info = {"name": self.name, "charge": self.charge, "spin": self.spin}
        return Atoms(self.atomic_numbers, self.positions * ANGSTROM_PER_BOHR, info=info)

    @classmethod
    def from_pyscf(cls, mol: Mole, name: str = "") -> Structure:
        """From a built PySCF ``Mole``; its basis is not part of a structure."""
        from ase.data import atomic_numbers

        symbols = [mol.atom_pure_symbol(i) for i in range(mol.natm)]
        unknown = [s for s in symbols if s not in atomic_numbers]
        if unknown:
            raise StructureError(f"a PySCF Mole holds '{unknown[0]}'; expected real atoms, no ghosts")
        numbers = [atomic_numbers[s] for s in symbols]
        return cls(np.asarray(numbers), mol.atom_coords(), int(mol.charge), int(mol.spin), name)


def read_structures(path: str | Path, charge: int = 0, spin: int = 0) -> list[Structure]:
    """Every structure of an xyz, extxyz or npz file, in the order of the file.

    An npz file holds ``positions_angstrom`` and ``atomic_numbers``, either
    (n_frames, n_atoms, 3) with (n_atoms,), or flat (n_all, 3) with (n_all,) and
    ``num_atoms`` (n_structures,).  It is opened without pickle.

    Raises:
        StructureError: if the file is missing, malformed, or holds a bad geometry.
    """
    path = Path(path)
    if not path.is_file():
        raise StructureError(f"cannot find the structure file '{path}'; expected an xyz, extxyz or npz file")
    if path.suffix == ".npz":
        return _read_npz(path, charge, spin)
    if path.suffix not in (".xyz", ".extxyz"):
        raise StructureError(f"cannot read '{path}': expected the ending .xyz, .extxyz or .npz, got '{path.suffix}'")
    frames = _read_xyz(path)
    return [
        Structure.from_ase(atoms, charge, spin, name=f"{path.stem}_{i}" if len(frames) > 1 else path.stem)
        for i, atoms in enumerate(frames)
    ]


def _read_xyz(path: Path) -> list[Atoms]:
    import ase.io

    problems = []
    for style in ("extxyz", "xyz"):
        try:
            frames = ase.io.read(path, index=":", format=style)
        except (OSError, ValueError, KeyError, IndexError, UnicodeDecodeError, ase.io.ParseError) as error:
            problems.append(f"{type(error).__name__}: {error}")
            continue
        if frames:
            return list(frames)
        problems.append("no frame found")
    raise StructureError(
        f"cannot read '{path}' as xyz ({problems[0]}); expected, per structure: a line with the number of atoms, "
        "a comment line, then one line 'symbol x y z' in Angstrom for each atom"
    )


def _read_npz(path: Path, charge: int, spin: int) -> list[Structure]:
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as members:
            present = {name.removesuffix(".npy") for name in members.namelist()}
            known = present & {"positions_angstrom", "atomic_numbers", "num_atoms", "names"}
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in known}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise StructureError(f"cannot read '{path}' as npz: {error}") from error
    missing = {"positions_angstrom", "atomic_numbers"} - arrays.keys()
    if missing:
        raise StructureError(f"'{path}' lacks {sorted(missing)}; expected positions_angstrom and atomic_numbers")
    for key, kinds in (("positions_angstrom", "fiu"), ("atomic_numbers", "iu"), ("num_atoms", "iu")):
        if key in arrays and (arrays[key].dtype.kind not in kinds or arrays[key].size == 0):
            expected = "numbers" if "f" in kinds else "integers"
            raise StructureError(
                f"'{path}': {key} is {arrays[key].dtype} of shape {arrays[key].shape}; expected {expected}"
            )
    positions = np.asarray(arrays["positions_angstrom"], dtype=np.float64) * BOHR_PER_ANGSTROM
    numbers = np.asarray(arrays["atomic_numbers"])
    split_positions: Sequence[NDArray[np.float64]]
    if "num_atoms" in arrays:
        stops = np.cumsum(arrays["num_atoms"])
        if positions.ndim != 2 or len(positions) != stops[-1] or len(numbers) != stops[-1]:
            raise StructureError(
                f"'{path}': num_atoms adds up to {stops[-1]}, positions are {positions.shape}, "
                f"atomic_numbers {numbers.shape}; expected flat arrays of that length"
            )
        split_positions = np.split(positions, stops[:-1])
        split_numbers = np.split(numbers, stops[:-1])
    elif positions.ndim == 3 and numbers.shape == positions.shape[1:2]:
        split_positions = list(positions)
        split_numbers = [numbers] * len(positions)
    else:
        raise StructureError(
            f"'{path}': positions_angstrom {positions.shape} and atomic_numbers {numbers.shape} do not fit; "
            "expected (n_frames, n_atoms, 3) with (n_atoms,), or flat arrays with num_atoms"
        )
    names = arrays.get("names", [f"{path.stem}_{i}" for i in range(len(split_positions))])
    if len(names) != len(split_positions):
        raise StructureError(f"'{path}': names has {len(names)} entries; expected {len(split_positions)}")
    return [
        Structure(z, x, charge, spin, str(name))
        for z, x, name in zip(split_numbers, split_positions, names, strict=True)
    ]
