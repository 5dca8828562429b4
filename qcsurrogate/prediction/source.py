"""Where a prediction comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qcsurrogate.basis import BasisSet
from qcsurrogate.models.files import ModelMetadata
from qcsurrogate.reference.atoms import FreeAtoms, free_atoms_from_dict, free_atoms_to_dict
from qcsurrogate.reference.calibration import EnergyCalibration
from qcsurrogate.reference.settings import Method


@dataclass(frozen=True, repr=False)
class Source:
    """The model that made a prediction, and what it stands for.

    Attributes:
        method: Kohn-Sham calculation that the model stands for; None where its labels are of another program.
        level: level of theory in words; empty where it is not known.
        orbital_basis: of the method; None of a model that needs none.
        atoms: free atoms of that method by atomic number; none without a method.
        data: name, licence, citation and hash of the training data.
        versions: of the packages that the model was trained with.
        file: name of the model file; empty for a model that was not loaded from one.
        sha256: of the model file.
        energy_calibration: of what one Fock build says of the energy; None where the model has none.
    """

    kind: str
    method: Method | None
    level: str
    orbital_basis: BasisSet | None
    atoms: FreeAtoms = field(compare=False)
    data: Mapping[str, str]
    versions: Mapping[str, str]
    file: str = ""
    sha256: str = ""
    energy_calibration: EnergyCalibration | None = field(default=None, compare=False)

    @classmethod
    def of(cls, metadata: ModelMetadata, orbital_basis: BasisSet | None, atoms: FreeAtoms) -> Source:
        """From what a model file says."""
        data: dict[str, str] = {
            name: str(metadata.spec[name]) for name in ("name", "licence", "citation") if name in metadata.spec
        }
        data["hash"] = metadata.dataset_hash
        return cls(
            metadata.kind,
            metadata.method,
            metadata.level,
            orbital_basis,
            atoms,
            data,
            metadata.versions,
            energy_calibration=metadata.energy_calibration,
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Source:
        """From :meth:`to_dict` and :meth:`basis_to_dict` together.

        Raises:
            KeyError, TypeError, ValueError: if something is missing or of another kind.
        """
        model, method, basis = data["model"], data["method"], data["orbital_basis"]
        return cls(
            str(model["kind"]),
            None if method is None else Method.model_validate(method),
            str(model["level"]),
            None if basis is None else BasisSet.from_dict(basis),
            free_atoms_from_dict(data["free_atoms"]),
            {str(name): str(text) for name, text in model["training_data"].items()},
            {str(name): str(text) for name, text in model["versions"].items()},
            str(model["file"]),
            str(model["sha256"]),
            None if (found := model["energy_calibration"]) is None else EnergyCalibration.model_validate(found),
        )

    def to_dict(self) -> dict[str, Any]:
        """Model and method as plain data for JSON."""
        found = self.energy_calibration
        return {
            "model": {
                "kind": self.kind,
                "file": self.file,
                "sha256": self.sha256,
                "training_data": dict(self.data),
                "level": self.level,
                "versions": dict(self.versions),
                "energy_calibration": found and found.model_dump(mode="json"),
            },
            "method": None if self.method is None else self.method.model_dump(mode="json"),
        }

    def basis_to_dict(self) -> dict[str, Any]:
        """Orbital basis and free atoms as plain data for JSON."""
        basis = None if self.orbital_basis is None else self.orbital_basis.to_dict()
        return {"orbital_basis": basis, "free_atoms": free_atoms_to_dict(self.atoms)}
