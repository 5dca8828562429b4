"""Collect the structures that a spec names, from files and samplers."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np

from qcsurrogate.errors import SpecError, StructureError, suggestion
from qcsurrogate.sampling import sample_displacements, sample_thermal
from qcsurrogate.store.sources import DisplacementSource, FileSource, PackagedSource, ThermalSource
from qcsurrogate.store.spec import DataSpec
from qcsurrogate.structure_files import read_structures
from qcsurrogate.structures import Structure


def collect_structures(spec: DataSpec) -> tuple[list[Structure], list[str] | None]:
    """All structures that a spec names, and their group labels if the source has any.

    Raises:
        StructureError: for a file or geometry that cannot be used.
        SpecError: for packaged geometries that do not exist.
    """
    source, method = spec.structures, spec.method
    if isinstance(source, ThermalSource):
        from qcsurrogate.reference.normal_modes import harmonic_modes

        modes = harmonic_modes(source.equilibrium.structure(method.charge, method.spin), method)
        sampled = sample_thermal(modes, source.temperature_kelvin, source.count, source.seed, source.statistics)
        return sampled, [source.equilibrium.name] * len(sampled)
    if isinstance(source, DisplacementSource):
        equilibrium = source.equilibrium.structure(method.charge, method.spin)
        sampled = sample_displacements(equilibrium, source.sigma_angstrom, source.count, source.seed)
        return sampled, [source.equilibrium.name] * len(sampled)
    path = Path(source.path) if isinstance(source, FileSource) else packaged_file(source)
    structures = read_structures(path, method.charge, method.spin)
    groups = _read_groups(path, len(structures))
    chosen = _choose(source, len(structures))
    return [structures[i] for i in chosen], None if groups is None else [groups[i] for i in chosen]


def packaged_file(source: PackagedSource) -> Path:
    """The file of packaged geometries.

    Raises:
        SpecError: if there are none of that name.
    """
    folder = Path(str(resources.files("qcsurrogate.resources")))
    path = folder / f"{source.name}.npz"
    if not path.is_file():
        names = sorted(p.stem for p in folder.glob("*.npz"))
        raise SpecError(
            f"structures.name: no packaged geometries '{source.name}'; expected one of {', '.join(names)}"
            f"{suggestion(source.name, names)}"
        )
    return path


def _choose(source: FileSource | PackagedSource, n: int) -> list[int]:
    chosen = np.arange(0, n, source.stride if isinstance(source, FileSource) else 1)
    if source.limit is not None and source.limit < len(chosen):
        if source.seed is None:
            chosen = chosen[: source.limit]
        else:
            generator = np.random.default_rng(source.seed)
            chosen = np.sort(generator.choice(chosen, source.limit, replace=False))
    return [int(i) for i in chosen]


def _read_groups(path: Path, n: int) -> list[str] | None:
    if path.suffix != ".npz":
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            if "groups" not in archive:
                return None
            groups = archive["groups"]
    except (OSError, ValueError, EOFError) as error:
        raise StructureError(f"cannot read 'groups' of '{path}': {error}") from error
    if groups.shape != (n,):
        raise StructureError(f"'{path}': groups has shape {groups.shape}; expected ({n},), one label per structure")
    return [str(label) for label in groups]
