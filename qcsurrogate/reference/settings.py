"""What a reference calculation is: functional, bases, grid, thresholds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from qcsurrogate.basis import BasisSet, auxiliary_basis, even_tempered_basis, orbital_basis
from qcsurrogate.errors import StructureError
from qcsurrogate.structures import Structure

SpinTreatment = Literal["restricted", "unrestricted"]
Backend = Literal["pyscf", "gpu4pyscf"]
Search = Literal["auto", "first", "lowest"]

_RESTRICTED_OPEN_SHELL = frozenset({"roks", "rohf", "restricted_open", "restricted_open_shell"})

_IN_EVERY_KEY = frozenset(
    {
        "xc",
        "basis",
        "auxiliary_basis",
        "grid_level",
        "conv_tol",
        "conv_tol_grad",
        "max_cycle",
        "charge",
        "spin",
    }
)
"""Settings that the first version of the format had: always part of a record's key.  Any other enters only where it
differs from its default, so that a new setting leaves the keys of old records alone; changing such a default needs a
new ``spec_version``."""

_WHERE = frozenset({"backend", "allow_cpu_fallback"})
"""Settings that say where something is computed, not what."""


def _no_restricted_open_shell(value: object) -> object:
    if isinstance(value, str) and value.lower().replace("-", "_").replace(" ", "_") in _RESTRICTED_OPEN_SHELL:
        raise ValueError(
            f"{value} (restricted open shell) has no unique Fock matrix and no orbitals of its own for each spin, so "
            "its matrices cannot be labels; use unrestricted"
        )
    return value


class EvenTempered(BaseModel):
    """An auxiliary basis made from the orbital basis; see :func:`qcsurrogate.basis.even_tempered_basis`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    even_tempered_beta: Annotated[
        float, Field(ge=1.2, le=4.0, description="Ratio of neighbouring exponents; smaller is finer.")
    ]
    diffuse: Annotated[
        int, Field(ge=0, le=4, description="By how many smaller exponents the series of each l is continued.")
    ] = 0
    higher_l: Annotated[
        int,
        Field(ge=0, le=4, description="How many l are added to those that products of orbitals on one atom have."),
    ] = 0

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What was added later is written only where it adds something: keys of older records stay as they are."""
        content: dict[str, Any] = handler(self)
        return {name: value for name, value in content.items() if name == "even_tempered_beta" or value}


class Method(BaseModel):
    """Level of theory and numerical settings of the reference."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    xc: Annotated[str, Field(description="Exchange-correlation functional, PySCF's name, as b3lyp or b3lyp-d3bj.")] = (
        "pbe"
    )
    basis: Annotated[str, Field(description="Spherical orbital basis, PySCF's name.")] = "def2-svp"
    auxiliary_basis: Annotated[
        str | EvenTempered,
        Field(
            description="Density-fitting basis by PySCF's name, or {even_tempered_beta: 1.8}; diffuse and higher_l "
            "add what the density between atoms needs: {even_tempered_beta: 1.6, diffuse: 1, higher_l: 1}."
        ),
    ] = EvenTempered(even_tempered_beta=1.8)
    grid_level: Annotated[int, Field(ge=0, le=9, description="PySCF grid level of the SCF.")] = 3
    conv_tol: Annotated[float, Field(gt=0, le=1e-5, description="SCF energy threshold, Hartree.")] = 1e-10
    conv_tol_grad: Annotated[float, Field(gt=0, le=1e-3, description="SCF orbital-gradient threshold, Hartree.")] = 1e-6
    max_cycle: Annotated[int, Field(ge=1, description="Cycles allowed to each step of the ladder.")] = 60
    charge: int = 0
    spin: Annotated[int, Field(ge=0, description="Unpaired electrons.")] = 0
    spin_treatment: Annotated[
        SpinTreatment,
        BeforeValidator(_no_restricted_open_shell),
        Field(
            description="restricted: one set of orbitals, closed shells only. unrestricted: one for each spin, any "
            "charge and spin; records then hold spin-resolved matrices and coefficients."
        ),
    ] = "restricted"
    density_fit: Annotated[
        bool | Annotated[str, Field(min_length=1)],
        Field(
            description="Density fitting of the SCF's two-electron integrals: false, true (PySCF's choice for basis "
            "and functional) or the name of an auxiliary basis."
        ),
    ] = False
    search: Annotated[
        Search,
        Field(
            description="first: the first step of the ladder that converges. lowest: every step and several initial "
            "guesses, the lowest energy wins, instabilities are followed. auto: first, unless the solution is "
            "suspicious (not by plain DIIS, more than 25 cycles, a gap below 0.05 Hartree, or found unstable); "
            "then lowest."
        ),
    ] = "auto"
    stability: Annotated[
        bool,
        Field(
            description="Examine every solution for internal instabilities (same spin treatment, real orbitals) and "
            "follow them to a lower one; what stays unstable is refused."
        ),
    ] = False
    backend: Annotated[
        Backend, Field(description="What runs the SCF; not part of a record's key. gpu4pyscf needs a CUDA device.")
    ] = "pyscf"
    allow_cpu_fallback: Annotated[
        bool, Field(description="Whether gpu4pyscf may be replaced by pyscf, with a warning, where it cannot run.")
    ] = False

    @model_validator(mode="before")
    @classmethod
    def _without_baseline(cls, data: Any) -> Any:
        if isinstance(data, dict) and (found := sorted({"baseline", "baseline_grid_level"} & set(data))):
            raise ValueError(
                f"{' and '.join(found)}: H0 belongs to the models, which fit it when they are trained, and not to the "
                "references; leave the setting out (stores that were generated with it cannot be read any more)"
            )
        return data

    @property
    def unrestricted(self) -> bool:
        """Whether each spin has its own orbitals."""
        return self.spin_treatment == "unrestricted"

    def require_spin(self, structure: Structure) -> None:
        """Refuse what the spin treatment cannot describe.

        Raises:
            StructureError: for unpaired electrons in restricted Kohn-Sham.
        """
        if structure.spin != 0 and not self.unrestricted:
            raise StructureError(
                f"{structure.label} has spin {structure.spin}; expected 0: only closed shells can be computed by "
                "restricted Kohn-Sham; set method.spin_treatment: unrestricted"
            )

    def key_content(self) -> dict[str, Any]:
        """What enters the key of a record: everything that changes its numbers, defaults added later left out."""
        fields = type(self).model_fields
        later = set(fields) - _IN_EVERY_KEY
        left_out = {name for name in later if name in _WHERE or getattr(self, name) == fields[name].default}
        return self.model_dump(mode="json", exclude=left_out)

    def orbital_basis(self, atomic_numbers: Iterable[int]) -> BasisSet:
        """The orbital basis for these elements."""
        return orbital_basis(self.basis, atomic_numbers)

    def density_basis(self, atomic_numbers: Iterable[int]) -> BasisSet:
        """The auxiliary basis for these elements."""
        if isinstance(self.auxiliary_basis, str):
            return auxiliary_basis(self.auxiliary_basis, atomic_numbers)
        made = self.auxiliary_basis
        return even_tempered_basis(
            self.orbital_basis(atomic_numbers), made.even_tempered_beta, diffuse=made.diffuse, higher_l=made.higher_l
        )


class Targets(BaseModel):
    """Which optional quantities a record holds, beside those that every record has.

    All of them are part of a record's key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    density_coefficients: bool = True
    core_hamiltonian: bool = False
    forces: bool = False

    def key_content(self) -> dict[str, Any]:
        """What enters the key of a record: forces say that they hold the response of the grid, as they once did not."""
        content = self.model_dump(mode="json")
        return content | {"forces": "with grid response"} if self.forces else content
