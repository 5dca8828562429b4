"""Question: how well does each network predict QM9's properties from the same molecules, in the same time?

    python tests/benchmarks/properties.py --data qm9.npz --train 10000 --minutes 60 --out properties
    python tests/benchmarks/properties.py --train 1600 --minutes 4 --networks naive,invariant,so2 --targets r2
    python tests/benchmarks/properties.py --data qm9.npz --train 500,2000,10000 --networks so2 --minutes 60

Every network learns all targets in one run, with the same split (seed 420), and as many steps as fit the given
CPU minutes on one thread, so that its learning rate ends at zero when they are over.  `so2+h0` has electronic inputs
(`--h0`: a hamiltonian model or a store).  Printed are mean absolute errors of the test molecules as they are published
for QM9; runs lie in `--out`, and the same command goes on.  Kernel ridge regression on bags of bonds is what the issue
of these models compares with, 10,000 training molecules; the line "no network" is composition and means alone.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch

from qcsurrogate.comparison.run import compare
from qcsurrogate.files.yaml_model import dump_yaml
from qcsurrogate.pipeline import train_surrogate
from qcsurrogate.quantities.property import QUANTITY
from qcsurrogate.tables.opening import open_set
from qcsurrogate.training.config import load_run_config
from qcsurrogate.training.optimisers import make_optimisers
from qcsurrogate.units import DEBYE_PER_ATOMIC_UNIT, EV_PER_HARTREE, KCAL_PER_MOL_PER_HARTREE

ALL = ("U0", "gap", "homo", "lumo", "mu", "alpha", "r2", "Cv")
SHOWN = {
    "U0": ("kcal/mol", KCAL_PER_MOL_PER_HARTREE),
    **dict.fromkeys(("gap", "homo", "lumo"), ("meV", 1e3 * EV_PER_HARTREE)),
    "mu": ("D", DEBYE_PER_ATOMIC_UNIT),
    "alpha": ("a0^3", 1.0),
    "r2": ("a0^2", 1.0),
    "Cv": ("cal/mol/K", 1.0),
}
KERNEL_RIDGE = {"U0": 3.1, "gap": 268, "mu": 0.62, "alpha": 0.53, "r2": 5.1, "Cv": 0.171}
ENCODERS: dict[str, dict[str, Any]] = {
    "naive": {},
    "invariant": {},
    "vector": {"message_cutoff": 6.0},
    "tensor_product": {"message_cutoff": 6.0},
    "so2": {"message_cutoff": 6.0},
    "so2+h0": {"message_cutoff": 6.0, "inputs": "electronic"},
}


def table_of(options: argparse.Namespace, size: int, out: Path) -> Path:
    """The spec of the table, with so many training molecules."""
    packaged = {"kind": "packaged", "name": "qm9_properties"}
    data = Path(options.data).resolve() if options.data else None
    n = len(open_set(data or "qm9_properties"))
    rest = (n - size) // 2
    if rest < 1:
        raise SystemExit(f"{n} molecules leave none to validate and to test on beside {size}")
    path = out / f"train_{size}.yaml"
    split = {"kind": "random", "train": size, "validation": min(rest, 1000), "test": min(rest, 5000), "seed": 420}
    path.write_text(
        dump_yaml({"structures": {"kind": "file", "path": str(data)} if data else packaged, "split": split})
    )
    return path


def settings_of(network: str, options: argparse.Namespace) -> list[str]:
    """What the network is told."""
    encoder = {"network": network.partition("+")[0], **ENCODERS[network]}
    if "+" in network:
        encoder["h0_from"] = str(Path(options.h0).resolve())
    return [
        f"model.targets=[{', '.join(options.targets)}]",
        *(f"model.encoder.{key}={value}" for key, value in encoder.items()),
        f"training.batch_size={options.batch_size}",
        f"training.seed={options.seed}",
        *options.set,
    ]


def steps_within(table: Path, settings: list[str], seconds: float) -> int:
    """Steps that so many seconds of CPU time are enough for, the validations of a run left aside."""
    run = load_run_config(QUANTITY.settings, overrides=settings)
    data = open_set(table)
    data = data.training_on(data.keys("train")[: 4 * run.training.batch_size])
    elements = sorted({int(z) for key in data.keys("train") for z in data.structure(key).atomic_numbers})
    torch.set_num_threads(1)
    (labels,) = QUANTITY.read_labels(data, ["train"], run.model, elements=elements, dtype=torch.float32)
    model = QUANTITY.new_model(run.model, labels, seed=0)
    optimisers = make_optimisers(model.parameters(), model.preconditioned_parameters(), run.training)
    times = []
    for step in range(12):
        start = time.process_time()
        first = (step % 4) * run.training.batch_size
        model.loss(labels.batch(range(first, min(first + run.training.batch_size, len(labels))))).backward()
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        times.append(time.process_time() - start)
    return max(20, int(0.93 * seconds / (sum(times[4:]) / len(times[4:]))))


def measured(network: str, table: Path, options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Train one network, or go on with it, and compare it with the test split."""
    settings = settings_of(network, options)
    if (steps := out / "steps.json").is_file():
        count = json.loads(steps.read_text())
    else:
        out.mkdir(parents=True, exist_ok=True)
        count = steps_within(table, settings, 60 * options.minutes)
        steps.write_text(json.dumps(count))
    every = max(1, math.ceil(count / 12))
    settings += [f"training.steps={count}", f"training.validate_every={every}", f"training.checkpoint_every={every}"]
    result = train_surrogate("property", table, out / "run", overrides=settings, quiet=True)
    report = compare([out / "run"], table, out / "report", quiet=True)
    model = report["models"][0]
    return {
        "steps": count,
        "cpu_minutes": result.cpu_time / 60,
        "parameters": sum(p.numel() for p in QUANTITY.build_model(_description(out / "run")).parameters()),
        "metrics": report["metrics"][model["label"]],
    }


def _description(run: Path) -> Any:
    from qcsurrogate.models.files import read_metadata

    return read_metadata(run / "model.safetensors").description


def row(name: str, size: str, values: dict[str, float], more: tuple[str, ...], targets: list[str]) -> str:
    """A line of the table."""
    shown = [f"{values[t] * SHOWN[t][1]:.3g}" if t in values else "" for t in targets]
    return f"| {name} | {size} | {' | '.join((*shown, *more))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="QM9 in any of its forms; the molecules of the package without it")
    parser.add_argument("--out", default="properties")
    parser.add_argument("--train", default="1600", help="training molecules, one number or several")
    parser.add_argument("--targets", default=",".join(ALL), type=lambda text: text.split(","))
    parser.add_argument("--networks", default="naive,invariant,vector,so2", type=lambda text: text.split(","))
    parser.add_argument("--minutes", type=float, default=4.0, help="CPU minutes of each run")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--h0", help="of so2+h0")
    parser.add_argument("--set", action="append", default=[], help="a setting of all runs")
    options = parser.parse_args()
    targets = options.targets
    head = ["network", "molecules", *(f"{t}, {SHOWN[t][0]}" for t in targets), "parameters", "steps", "CPU min"]
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for size in map(int, options.train.split(",")):
        out = Path(options.out) / str(size)
        out.mkdir(parents=True, exist_ok=True)
        table = table_of(options, size, out)
        for network in options.networks:
            found = measured(network, table, options, out / network)
            own = {t: found["metrics"][f"{t}_error"]["mean"] for t in targets}
            more = (f"{found['parameters']:,}", f"{found['steps']:,}", f"{found['cpu_minutes']:.1f}")
            print(row(network, f"{size:,}", own, more, targets), flush=True)
        without = {t: found["metrics"][f"{t}_error_no_network"]["mean"] for t in targets}
        print(row("no network", f"{size:,}", without, ("", "", ""), targets), flush=True)
    kernel = {t: value / SHOWN[t][1] for t, value in KERNEL_RIDGE.items()}
    print(row("kernel ridge, bags of bonds", "10,000", kernel, ("", "", ""), targets))


if __name__ == "__main__":
    main()
