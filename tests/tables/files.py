# ruff: noqa: E501 - lines as they are published
"""Small files in exactly the forms in which QM9 is published; the numbers are those of its molecules."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np

METHANE, AMMONIA, WATER, FLUOROMETHANE, FORMAMIDE = (
    """\
5
gdb 1\t157.7118\t157.70997\t157.70699\t0.\t13.21\t-0.3877\t0.1171\t0.5048\t35.3641\t0.044749\t-40.47893\t-40.476062\t-40.475117\t-40.498597\t6.469\t
C\t-0.0126981359\t 1.0858041578\t 0.0080009958\t-0.535689
H\t 0.002150416\t-0.0060313176\t 0.0019761204\t 0.133921
H\t 1.0117308433\t 1.4637511618\t 0.0002765748\t 0.133922
H\t-0.540815069\t 1.4475266138\t-0.8766437152\t 0.133923
H\t-0.5238136345\t 1.4379326443\t 0.9063972942\t 0.133923
1341.307\t1341.3284\t1341.365\t1562.6731\t1562.7453\t3038.3205\t3151.6034\t3151.6788\t3151.7078
C\tC\t
InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4
""",
    """\
4
gdb 2\t293.60975\t293.54111\t191.39397\t1.6256\t9.46\t-0.257\t0.0829\t0.3399\t26.1563\t0.034358\t-56.525887\t-56.523026\t-56.522082\t-56.544961\t6.316\t
N\t-0.0404260543\t 1.0241077531\t 0.0625637998\t-0.707143
H\t 0.0172574639\t 0.0125452063\t-0.0273771593\t 0.235712
H\t 0.9157893661\t 1.3587451948\t-0.0287577581\t 0.235712
H\t-0.5202777357\t 1.3435321258\t-0.7755426124\t 0.235712
1103.8733\t1684.1158\t1684.3072\t3458.7145\t3579.6436\t3579.6763
N\tN\t
InChI=1S/H3N/h1H3\tInChI=1S/H3N/h1H3
""",
    """\
3
gdb 3\t799.58812\t437.90386\t282.94545\t1.8511\t6.31\t-0.2928\t0.0687\t0.3615\t19.0002\t0.021375\t-76.404702\t-76.401867\t-76.400922\t-76.422349\t6.002\t
O\t-0.0343604951\t 0.9775395708\t 0.0076015923\t-0.589706
H\t 0.0647664923\t 0.0205721989\t 1.5346341*^-3\t 0.294853
H\t 0.8717903737\t 1.3007924048\t 0.0006931336\t 0.294853
1671.4222\t3803.6305\t3907.698
O\tO\t
InChI=1S/H2O/h1H2\tInChI=1S/H2O/h1H2
""",
    """\
5
gdb 21\t154.0\t25.5\t25.5\t1.7193\t16.1\t-0.31\t0.11\t0.42\t61.7\t3.9*^-2\t-139.73\t-139.727\t-139.726\t-139.752\t7.0\t
C\t0.0\t0.0\t0.0\t0.1
F\t0.0\t0.0\t1.385\t-0.2
H\t1.03\t0.0\t-0.35\t0.03
H\t-0.515\t0.892\t-0.35\t0.03
H\t-0.515\t-0.892\t-0.35\t0.03
1000.0
CF\tCF\t
InChI=1S/CH3F/c1-2/h1H3\tInChI=1S/CH3F/c1-2/h1H3
""",
    """\
6
gdb 22\t75.0\t11.3\t9.8\t3.7286\t23.0\t-0.2543\t0.0302\t0.2845\t145.3\t0.045279\t-169.860788\t-169.856903\t-169.855958\t-169.885594\t10.89\t
N\t-0.0259\t1.3461\t0.0088\t-0.5
C\t0.0463\t-0.0117\t0.0023\t0.4
O\t1.0651\t-0.6696\t-0.0043\t-0.3
H\t-0.9506\t-0.4860\t0.0036\t0.1
H\t0.8162\t1.8978\t0.0079\t0.2
H\t-0.9109\t1.8200\t0.0149\t0.2
300.0
C(=O)N\tC(=O)N\t
InChI=1S/CH3NO/c2-1-3/h1H,(H2,2,3)\tInChI=1S/CH3NO/c2-1-3/h1H,(H2,2,3)
""",
)
"""Files of the archive; the last two follow its form with numbers of about the right size."""

FILES = {1: METHANE, 2: AMMONIA, 3: WATER, 21: FLUOROMETHANE, 22: FORMAMIDE}

UNCHARACTERISED = """\
Consistency check of QM9 molecules. The following 3054 molecules
of the 133885 in the database failed it: the InChI of the relaxed geometry
is another one than that of the SMILES.

List of molecules:

========================================================================
 Index  Corina InChI     B3LYP InChI
========================================================================
    21  InChI=1S/CH3F    InChI=1S/CH3F
  3461  InChI=1S/C5H5NO  InChI=1S/C5H5NO

3054 compounds
"""


def write_archive(path: Path, files: dict[int, str] | None = None) -> Path:
    """``dsgdb9nsd.xyz.tar.bz2``."""
    with tarfile.open(path, "w:bz2") as archive:
        for index, text in (files or FILES).items():
            content = text.encode()
            entry = tarfile.TarInfo(f"dsgdb9nsd_{index:06d}.xyz")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def atoms_of(text: str) -> list[tuple[str, list[float]]]:
    """Symbols and positions, Angstrom."""
    lines = text.splitlines()
    rows = [line.split() for line in lines[2 : 2 + int(lines[0])]]
    return [(row[0], [float(x.replace("*^", "e")) for x in row[1:4]]) for row in rows]


def raw(text: str) -> list[float]:
    """The 15 numbers of a comment line."""
    return [float(x.replace("*^", "e")) for x in text.splitlines()[1].split()[2:]]


ATOMS = {"H": 0, "C": 1, "N": 2, "O": 3, "F": 4}
PUBLISHED = np.array(
    [
        [-0.500273, -37.846772, -54.583861, -75.064579, -99.718730],
        [-0.498857, -37.845355, -54.582445, -75.063163, -99.717314],
        [-0.497912, -37.844411, -54.581501, -75.062219, -99.716370],
        [-0.510927, -37.861317, -54.598897, -75.079532, -99.733544],
    ]
)


def raw_19(text: str) -> list[float]:
    """A row of ``gdb9.sdf.csv``: the same, and four energies of atomisation in kcal/mol."""
    values = raw(text)
    counts = np.zeros(5)
    for symbol, _ in atoms_of(text):
        counts[ATOMS[symbol]] += 1
    return [*values, *(627.509474 * (np.array(values[10:14]) - PUBLISHED @ counts)).tolist()]


CSV_HEADER = "mol_id,A,B,C,mu,alpha,homo,lumo,gap,r2,zpve,u0,u298,h298,g298,cv,u0_atom,u298_atom,h298_atom,g298_atom"


def write_pyg(folder: Path, files: dict[int, str] | None = None) -> Path:
    """``gdb9.sdf`` and ``gdb9.sdf.csv`` as PyTorch Geometric unpacks them."""
    folder.mkdir(exist_ok=True)
    blocks, rows = [], [CSV_HEADER]
    for index, text in (files or FILES).items():
        atoms = atoms_of(text)
        lines = [f"gdb_{index}", " -OEChem-03231823243D", "", f"{len(atoms):3d}  0  0     0  0  0  0  0  0999 V2000"]
        lines += [
            "".join(f"{x:10.4f}" for x in position) + f" {symbol:<3} 0  0  0  0  0  0  0  0  0  0  0  0"
            for symbol, position in atoms
        ]
        blocks.append("\n".join([*lines, "M  END", "$$$$"]))
        rows.append(",".join([f"gdb_{index}", *(repr(x) for x in raw_19(text))]))
    (folder / "gdb9.sdf").write_text("\n".join(blocks) + "\n")
    (folder / "gdb9.sdf.csv").write_text("\n".join(rows) + "\n")
    return folder


def write_npz(path: Path, files: dict[int, str] | None = None, **changes: np.ndarray) -> Path:
    """Flat arrays, targets (n, 19) in raw units."""
    chosen = files or FILES
    atoms = [atoms_of(text) for text in chosen.values()]
    numbers = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
    arrays = {
        "gdb_index": np.array(list(chosen), dtype=np.int32),
        "num_atoms": np.array([len(a) for a in atoms], dtype=np.int16),
        "atomic_numbers": np.array([numbers[s] for a in atoms for s, _ in a], dtype=np.int8),
        "positions_angstrom": np.array([p for a in atoms for _, p in a]),
        "targets": np.array([raw_19(text) for text in chosen.values()]),
        "target_names": np.array(CSV_HEADER.split(",")[1:]),
    }
    np.savez(path, **{key: value for key, value in (arrays | changes).items() if value is not None})
    return path
