"""GPU4PySCF by a stand-in: no device is needed to show that its arrays stay behind the boundary."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pyscf import dft
from pyscf.scf.hf import SCF

from qcsurrogate.errors import SpecError
from qcsurrogate.reference.atoms import free_atoms
from qcsurrogate.reference.backend import host
from qcsurrogate.reference.compute import compute_reference
from qcsurrogate.reference.kohn_sham import build_molecule, build_scf, run_kohn_sham
from qcsurrogate.reference.record import FIELDS
from qcsurrogate.reference.settings import Method, Targets
from tests.molecules import WATER

CPU = Method(basis="sto-3g", auxiliary_basis="def2-universal-jfit", grid_level=0)
GPU = CPU.model_copy(update={"backend": "gpu4pyscf"})


class DeviceArray:
    """As strict as CuPy's: it becomes a NumPy array only when told to."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = np.asarray(values)

    def get(self) -> np.ndarray:
        return self._values

    def __array__(self, *arguments: Any, **options: Any) -> np.ndarray:
        raise TypeError("implicit conversion to a NumPy array is not allowed; use .get()")


def to_device(value: Any) -> Any:
    if isinstance(value, SCF):
        return DeviceSCF(value)
    if isinstance(value, np.ndarray):
        return DeviceArray(value)
    return tuple(to_device(v) for v in value) if isinstance(value, tuple) else value


def from_device(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("a NumPy array was handed to the device")
    return value.get() if isinstance(value, DeviceArray) else value


class DeviceSCF:
    """PySCF's object behind glass: every array that comes out is on the device, every one that goes in has to be."""

    built = 0

    def __init__(self, cpu: SCF) -> None:
        object.__setattr__(self, "cpu", cpu)

    def __getattr__(self, name: str) -> Any:
        if name == "_eri":
            raise AttributeError(name)
        value = getattr(self.cpu, name)
        if name in ("mol", "grids", "with_df"):
            return value
        if not callable(value):
            return to_device(value)
        if name == "gen_response":
            return value

        def call(*arguments: Any, **options: Any) -> Any:
            inside = [from_device(a) for a in arguments]
            return to_device(value(*inside, **{key: from_device(v) for key, v in options.items()}))

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "post_kernel":  # GPU4PySCF never calls it
            setattr(self.cpu, name, value)

    def nuc_grad_method(self) -> Any:
        return DeviceGradient(self.cpu.nuc_grad_method())


class DeviceGradient:
    """As the SCF object: settings go in, arrays come out on the device."""

    grid_response = False

    def __init__(self, cpu: Any) -> None:
        self._cpu = cpu

    def kernel(self) -> Any:
        self._cpu.grid_response = self.grid_response
        return to_device(np.asarray(self._cpu.kernel()))


def fake_class(cpu_class: Callable[..., SCF]) -> Callable[..., DeviceSCF]:
    def build(mol: Any, xc: str) -> DeviceSCF:
        DeviceSCF.built += 1
        return DeviceSCF(cpu_class(mol, xc=xc))

    return build


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Fake modules; ``devices`` may be set to 0 or to an error."""
    state = types.SimpleNamespace(devices=1)

    def count() -> int:
        if isinstance(state.devices, Exception):
            raise state.devices
        return state.devices

    cupy, package, module = (types.ModuleType(name) for name in ("cupy", "gpu4pyscf", "gpu4pyscf.dft"))
    cupy.cuda = types.SimpleNamespace(runtime=types.SimpleNamespace(getDeviceCount=count))  # type: ignore[attr-defined]
    cupy.asarray = DeviceArray  # type: ignore[attr-defined]
    module.RKS, module.UKS = fake_class(dft.RKS), fake_class(dft.UKS)  # type: ignore[attr-defined]
    package.dft = module  # type: ignore[attr-defined]
    for name, value in (("cupy", cupy), ("gpu4pyscf", package), ("gpu4pyscf.dft", module)):
        monkeypatch.setitem(sys.modules, name, value)
    monkeypatch.setattr(DeviceSCF, "built", 0)
    return state


def test_the_stand_in_is_strict() -> None:
    with pytest.raises(TypeError, match="implicit conversion"):
        np.asarray(DeviceArray(np.zeros(2)))
    np.testing.assert_array_equal(host((DeviceArray(np.zeros(2)), DeviceArray(np.ones(2)))), [[0, 0], [1, 1]])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"spin_treatment": "unrestricted"},
        {"density_fit": True},
        {"search": "lowest"},
        {"spin_treatment": "unrestricted", "search": "lowest"},
    ],
    ids=str,
)
def test_records_from_the_device_hold_numpy_arrays(gpu: types.SimpleNamespace, changes: dict[str, Any]) -> None:
    targets = Targets(core_hamiltonian=True, forces=True)
    atoms = free_atoms([1, 8], CPU)
    expected = compute_reference(WATER, CPU.model_copy(update=changes), targets, atoms)
    assert DeviceSCF.built == 0
    record = compute_reference(WATER, GPU.model_copy(update=changes), targets, atoms)
    assert DeviceSCF.built > 0
    assert (record.on_gpu, expected.on_gpu) == (True, None)
    assert record.energy == pytest.approx(expected.energy, abs=1e-8)
    for field in FIELDS:
        value, reference = record.value(field.name), expected.value(field.name)
        if isinstance(reference, np.ndarray):
            assert type(value) is np.ndarray, field.name
            np.testing.assert_allclose(value, reference, atol=1e-5, err_msg=field.name)


def test_an_scf_for_users_stays_on_the_cpu(gpu: types.SimpleNamespace) -> None:
    assert isinstance(build_scf(build_molecule(WATER, GPU), GPU), dft.rks.RKS)
    assert DeviceSCF.built == 0


def test_without_gpu4pyscf_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(SpecError, match=r"backend is gpu4pyscf, but it cannot be imported here") as e:
        run_kohn_sham(WATER, GPU)
    assert "pip install gpu4pyscf-cuda12x" in str(e.value)
    assert "method.allow_cpu_fallback: true" in str(e.value)


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        (0, "no CUDA device was found"),
        (RuntimeError("driver too old"), r"no CUDA device can be used \(driver too old\)"),
    ],
)
def test_without_a_device_nothing_runs_unless_asked(gpu: types.SimpleNamespace, devices: Any, words: str) -> None:
    gpu.devices = devices
    with pytest.raises(SpecError, match=words):
        run_kohn_sham(WATER, GPU)
    allowed = GPU.model_copy(update={"allow_cpu_fallback": True})
    with pytest.warns(RuntimeWarning, match=f"the SCF runs on the CPU: {words}"):
        record = compute_reference(WATER, allowed, Targets(density_coefficients=False), free_atoms([1, 8], CPU))
    assert record.on_gpu is False
    assert DeviceSCF.built == 0
