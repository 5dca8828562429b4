"""Where a PySCF calculation stood: mean-field objects of predictions, and SCFs that start from them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pyscf import lib
from pyscf.gto import Mole
from pyscf.scf import dhf, ghf, hf, uhf

from qcsurrogate.basis import basis_of_mol, same_functions
from qcsurrogate.density.densities import GaussianDensity
from qcsurrogate.domain import DomainVerdict
from qcsurrogate.errors import BasisError, ConvergenceError, SpecError, StructureError
from qcsurrogate.prediction.results import Prediction, PredictionWithDensity, PredictionWithOrbitals
from qcsurrogate.reference.evaluation import OneShot, count_builds, evaluate_with
from qcsurrogate.reference.kohn_sham import build_scf
from qcsurrogate.reference.starts import occupied_in_density, projected_orbitals
from qcsurrogate.structures import Structure

if TYPE_CHECKING:
    from qcsurrogate.prediction.surrogate import Surrogate

Array = NDArray[np.float64]
Policy = Literal["surrogate", "refine", "fallback"]
M = TypeVar("M", bound=hf.SCF)

POLICIES: Final = ("surrogate", "refine", "fallback")
GUESS: Final = "surrogate"
"""Name of the initial guess that :func:`accelerate` registers."""


@dataclass(frozen=True)
class Origin:
    """What a mean-field object of :func:`surrogate_ks` was when it was handed over: its attribute ``surrogate``.

    Attributes:
        prediction: whose orbitals it holds, or has begun with.
        check: energy and self-consistency of the predicted density matrix.
        policy: what was asked for.
        done: what was done: ``predicted``, ``refined`` or ``converged``.
        reason: why, where the policy had to decide.
        fock_builds: evaluations of the potential that it took.
        self_consistent: whether the object was a converged SCF.
    """

    prediction: Prediction
    check: OneShot
    policy: Policy
    done: Literal["predicted", "refined", "converged"]
    reason: str
    fock_builds: int
    self_consistent: bool

    @property
    def domain(self) -> DomainVerdict:
        """What of the molecule lies outside of the training data."""
        return self.prediction.domain


def surrogate_ks(
    molecule: object,
    surrogate: Surrogate[Any],
    *,
    policy: Policy = "surrogate",
    steps: int = 1,
    tolerance: float = 1e-3,
    threads: int = 1,
) -> Any:
    """A PySCF ``RKS`` (``UKS``) object of a prediction, for everything that takes a converged one.

    It has the settings of the model's reference calculations, the predicted orbitals, and the functional's
    energy of their density matrix, which costs one Fock build.  It says ``converged``, so that nothing that
    comes after refuses it; whether it is self-consistent stands in its attribute ``surrogate``
    (:class:`Origin`).  ``kernel()`` iterates from there.  ``get_fock()`` is the Fock matrix of its density
    matrix, not the predicted one, which is ``surrogate.prediction.hamiltonian``.

    Args:
        molecule: one of what :meth:`Surrogate.predict` accepts.  A ``Mole`` becomes that of the object.
        surrogate: a Hamiltonian model.
        policy: ``surrogate`` takes the prediction as it is; ``refine`` runs ``steps`` SCF cycles from it;
            ``fallback`` converges where the molecule lies outside of the training data, or where more than
            ``tolerance`` of the energy is estimated to remain.
        steps: of ``refine``.
        tolerance: of ``fallback``, Hartree.
        threads: of PySCF.

    Raises:
        SpecError: for an unknown policy, steps below one, or a model that predicts no orbitals.
        StructureError, DomainError: as :meth:`Surrogate.predict`; a ``Mole`` with symmetry is refused.
        ConvergenceError: if a fallback does not converge.
    """
    _require(policy, steps)
    prediction = surrogate.predict(molecule)
    if isinstance(prediction, list):
        raise StructureError(f"surrogate_ks got {len(prediction)} structures; expected one molecule: call it for each")
    mol = molecule if isinstance(molecule, Mole) else None
    return mean_field(prediction, mol, policy=policy, steps=steps, tolerance=tolerance, threads=threads)


def mean_field(
    prediction: Prediction,
    mol: Mole | None = None,
    *,
    policy: Policy = "surrogate",
    steps: int = 1,
    tolerance: float = 1e-3,
    threads: int = 1,
) -> Any:
    """:func:`surrogate_ks` of a prediction that is there already."""
    _require(policy, steps)
    if not isinstance(prediction, PredictionWithOrbitals):
        raise SpecError(
            f"a {type(prediction).__name__} holds no orbitals; expected that of a hamiltonian model. A density model "
            "starts an SCF: accelerate(mf, surrogate)"
        )
    if prediction.source is None or prediction.source.method is None:
        raise SpecError(
            f"the prediction for {prediction.structure.label} has no source, and so no method to make an SCF object "
            "with; expected one that a model made"
        )
    mol = prediction.mol if mol is None else mol
    if mol.symmetry:
        raise StructureError(
            f"the Mole of {prediction.structure.label} has symmetry='{mol.groupname}'; predicted orbitals carry no "
            "irreducible representations: build it with symmetry=False"
        )
    method = prediction.source.method
    with lib.with_omp_threads(threads):
        scf = build_scf(mol, method)
        check = evaluate_with(scf, np.array(prediction.density_matrix))
        check = replace(check, calibration=prediction.source.energy_calibration)
        scf.mo_energy, scf.mo_coeff, scf.mo_occ = (
            np.array(getattr(prediction, name)) for name in ("mo_energy", "mo_coeff", "mo_occ")
        )
        scf.e_tot, scf.converged = check.energy, True
        origin = Origin(prediction, check, policy, "predicted", "", 1, self_consistent=False)
        if policy == "refine":
            origin = _refined(scf, origin, steps)
        elif policy == "fallback":
            origin = _fallen_back(scf, origin, tolerance)
    scf.surrogate = origin
    scf._keys = scf._keys | {"surrogate"}
    return scf


def _require(policy: str, steps: int) -> None:
    if policy not in POLICIES:
        raise SpecError(f"policy = '{policy}'; expected {', '.join(POLICIES[:-1])} or {POLICIES[-1]}")
    if steps < 1:
        raise SpecError(f"steps = {steps}; expected 1 or more")


def _refined(scf: Any, origin: Origin, steps: int) -> Origin:
    most, scf.max_cycle = scf.max_cycle, steps
    builds = count_builds(scf, scf.make_rdm1())
    scf.max_cycle = most
    consistent, scf.converged = bool(scf.converged), True
    reason = f"{int(scf.cycles)} SCF cycles were run of {steps} asked for"
    return replace(
        origin,
        done="refined",
        reason=reason,
        fock_builds=origin.fock_builds + builds,
        self_consistent=consistent,
    )


def _fallen_back(scf: Any, origin: Origin, tolerance: float) -> Origin:
    remaining = origin.check.remaining_energy
    if not origin.domain.inside:
        reason = origin.domain.summary
    elif remaining > tolerance:
        reason = f"{remaining:.1e} Hartree of the energy are estimated to remain, more than {tolerance:g}"
    else:
        return replace(origin, reason=f"inside the training data; {remaining:.1e} Hartree are estimated to remain")
    builds = count_builds(scf, scf.make_rdm1())
    if not scf.converged:
        raise ConvergenceError(
            f"the SCF of {origin.prediction.structure.label} that was to replace a prediction ({reason}) did not "
            f"converge in {scf.max_cycle} cycles; converge it by hand, e.g. with .newton()"
        )
    return replace(
        origin,
        done="converged",
        reason=reason,
        fock_builds=origin.fock_builds + builds,
        self_consistent=True,
    )


@dataclass(frozen=True)
class Start:
    """What an accelerated SCF began with, kept as its attribute ``surrogate_start``.

    Attributes:
        route: kind of the model whose density matrix was taken.
        energies: energy of each model's density matrix, Hartree, where there were several to choose from.
        fock_builds: evaluations of the potential that the choice took.
        seconds: wall time of the start, prediction included.
        domain: what of the molecule lies outside of the training data of the model taken.
    """

    route: str
    energies: dict[str, float]
    fock_builds: int
    seconds: float
    domain: DomainVerdict


def accelerate(mf: M, *surrogates: Surrogate[Any], state: tuple[int, int] | None = None) -> M:
    """Let an SCF of one's own start from a surrogate's density; everything else of it stays as it is.

    The object gets an initial guess named ``surrogate``, which is its ``init_guess`` from then on: ``kernel()``
    predicts for the geometry that the object then has, and notes in ``surrogate_start`` (:class:`Start`) what it
    did.  Any functional will do, Hartree-Fock too, and any basis: orbitals are projected.  With several models
    the one whose density matrix has the lowest energy is taken; each costs a Fock build.

    Args:
        mf: a PySCF mean field of real orbitals that both spins share or do not share (RHF, UHF, ROHF, RKS, UKS,
            ROKS; with density fitting, solvent, dispersion, second order).
        surrogates: Hamiltonian or density models.
        state: (charge, spin) to predict for, where the models do not know those of the molecule: the
            molecule's own number of electrons then fills the orbitals of that prediction.

    Returns:
        ``mf`` itself.

    Raises:
        SpecError: without a model, or for objects that are no such mean field.
        StructureError: for effective core potentials, ghost atoms or periodic cells.
    """
    if not surrogates:
        raise SpecError("accelerate got no model; expected one or more, as qcsurrogate.load(path) gives them")
    if not isinstance(mf, hf.SCF) or isinstance(mf, (ghf.GHF, dhf.DHF)) or not isinstance(mf.mol, Mole):
        raise SpecError(
            f"cannot accelerate a {type(mf).__module__}.{type(mf).__name__}; expected a molecular RHF, UHF, ROHF, RKS, "
            "UKS or ROKS of PySCF"
        )
    Structure.from_pyscf(mf.mol)  # refuses what no model can predict, now instead of in kernel()
    if isinstance(mf, _FromSurrogate):
        mf._surrogates, mf._surrogate_state = surrogates, state
        mf.init_guess = GUESS
        return mf
    accelerated: M = lib.set_class(mf, (_FromSurrogate, mf.__class__))
    accelerated._surrogates, accelerated._surrogate_state = surrogates, state
    accelerated.surrogate_start = None
    accelerated.init_guess = GUESS
    return accelerated


class _FromSurrogate:
    """Mixed into the class of a mean field: one more initial guess."""

    __name_mixin__ = "FromSurrogate"
    _keys = frozenset({"surrogate_start"})

    mol: Mole
    init_guess: str
    surrogate_start: Start | None
    _surrogates: tuple[Surrogate[Any], ...]
    _surrogate_state: tuple[int, int] | None

    def get_init_guess(self, mol: Mole | None = None, key: Any = "minao", **kwargs: Any) -> Any:
        """PySCF's, and ``surrogate``."""
        if isinstance(key, str) and key.lower() == GUESS:
            mol = self.mol if mol is None else mol
            guess, self.surrogate_start = _start(self, mol, self._surrogates, self._surrogate_state)
            return guess
        return super().get_init_guess(mol, key, **kwargs)  # type: ignore[misc]


def _start(
    mf: Any, mol: Mole, surrogates: Sequence[Surrogate[Any]], state: tuple[int, int] | None
) -> tuple[Array, Start]:
    began = time.perf_counter()
    structure = Structure.from_pyscf(mol)
    if state is not None:
        structure = replace(structure, charge=state[0], spin=state[1])
    guesses: dict[str, tuple[Array, DomainVerdict]] = {}
    for k, surrogate in enumerate(surrogates):
        prediction = surrogate.predict(structure)
        if not isinstance(prediction, PredictionWithDensity):
            raise SpecError(f"a {surrogate.kind} model predicts no density; expected a hamiltonian or a density model")
        name = surrogate.kind if surrogate.kind not in guesses else f"{surrogate.kind} {k + 1}"
        guesses[name] = _density_matrix(mf, mol, prediction), prediction.domain
    energies: dict[str, float] = {}
    if len(guesses) > 1:
        core = mf.get_hcore(mol)
        for name, (guess, _) in guesses.items():
            energies[name] = float(mf.energy_tot(guess, core, mf.get_veff(mol, guess)))
    best = min(energies, key=energies.__getitem__) if energies else next(iter(guesses))
    guess, domain = guesses[best]
    return guess, Start(best, energies, len(energies), time.perf_counter() - began, domain)


def _density_matrix(mf: Any, mol: Mole, prediction: PredictionWithDensity) -> Array:
    """In the basis and the shape that an SCF wants."""
    n_alpha, n_beta = mol.nelec
    if isinstance(prediction, PredictionWithOrbitals):
        sets = prediction.mo_coeff.reshape(-1, *prediction.mo_coeff.shape[-2:])
        spins = zip((sets[0], sets[-1]), (n_alpha, n_beta), strict=True)
        occupied = [_in_basis(prediction.mol, coefficients[:, :n], mol) for coefficients, n in spins]
    else:
        density = prediction.electron_density
        if not isinstance(density, GaussianDensity):
            raise SpecError(f"cannot make orbitals of a {type(density).__name__}")
        orbitals = occupied_in_density(mol, density.mol, density.coefficients, max(n_alpha, n_beta))
        occupied = [orbitals[:, :n_alpha], orbitals[:, :n_beta]]
    alpha, beta = (c @ c.T for c in occupied)
    return np.stack([alpha, beta]) if isinstance(mf, uhf.UHF) or mol.spin else alpha + beta


def _in_basis(source: Mole, occupied: Array, target: Mole) -> Array:
    try:
        same = same_functions(basis_of_mol(target), basis_of_mol(source))
    except BasisError:  # Cartesian functions, which no model has
        same = False
    return occupied if same else projected_orbitals(source, occupied, target)
