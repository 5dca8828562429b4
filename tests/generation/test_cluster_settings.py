"""Cluster files: what they may say, and the job scripts that dask-jobqueue makes of them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from qcsurrogate.clusters.queues import _job_that_closes, cluster_options, job_queue_module, log_tail, parse_states
from qcsurrogate.clusters.settings import (
    SHIPPED,
    load_cluster,
    local_cluster,
    parse_cluster,
    running_scheduler,
)
from qcsurrogate.clusters.ssh import ssh_workers
from qcsurrogate.clusters.tls import make_keys
from qcsurrogate.errors import SpecError

QUEUE: dict[str, Any] = {"workers": 2, "memory": "8 GiB", "walltime": "24:00:00"}
KINDS = ["local", "lsf", "pbs", "scheduler", "sge", "slurm", "slurm_runner", "ssh"]


def job(words: dict[str, Any], tmp_path: Path) -> str:
    """The script as dask-jobqueue writes it, for worker ``w`` of a scheduler at ``tls://10.0.0.1:4000``."""
    keys = tmp_path / "keys"
    settings: Any = parse_cluster(QUEUE | {"tls_folder": str(keys)} | words, "test")
    module = job_queue_module("dask_jobqueue")
    name = {"slurm": "SLURM", "pbs": "PBS", "sge": "SGE", "lsf": "LSF"}[settings.kind]
    ours = cluster_options(settings, make_keys(keys) if settings.tls else None, tmp_path)
    of_clusters = ("n_workers", "scheduler_options", "shared_temp_directory", "silence_logs")
    options = {key: value for key, value in ours.items() if key not in of_clusters}
    options["protocol"] = "tls://" if settings.tls else None  # as the cluster passes it on
    job_cls = _job_that_closes(getattr(module, f"{name}Cluster"))
    return job_cls("tls://10.0.0.1:4000", name="w", **options).job_script()


DIRECTIVES = {
    "slurm": [
        "#SBATCH -J qcsurrogate",
        "#SBATCH -p long",
        "#SBATCH -A chem",
        "#SBATCH -n 1",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --mem=8G",
        "#SBATCH -t 24:00:00",
        "#SBATCH --constraint=skylake",
    ],
    "pbs": [
        "#PBS -N qcsurrogate",
        "#PBS -q long",
        "#PBS -A chem",
        "#PBS -l select=1:ncpus=4:mem=8192mb",
        "#PBS -l walltime=24:00:00",
        "#PBS --constraint=skylake",
    ],
    "sge": [
        "#$ -N qcsurrogate",
        "#$ -q long",
        "#$ -P chem",
        "#$ -l h_vmem=2G",
        "#$ -l h_rt=24:00:00",
        "#$ -pe smp 4",
        "#$ --constraint=skylake",
    ],
    "lsf": [
        "#BSUB -J qcsurrogate",
        "#BSUB -q long",
        '#BSUB -P "chem"',
        "#BSUB -n 4",
        '#BSUB -R "span[hosts=1]"',
        "#BSUB -M 8589935",
        "#BSUB -W 24:00",
        "#BSUB --constraint=skylake",
    ],
}


@pytest.mark.parametrize("kind", sorted(DIRECTIVES))
def test_job_script(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSF_ENVDIR", str(tmp_path))  # no lsf.conf there: limits are in kB
    words = {
        "kind": kind,
        "threads": 4,
        "queue": "long",
        "account": "chem",
        "extra_directives": ["--constraint=skylake"],
        "prologue": ["module load gcc", "source ~/venv/bin/activate"],
        "scratch": "/local/$USER",
        "interface": "ib0",
        "python": "/opt/venv/bin/python",
    }
    if kind == "sge":
        words |= {"parallel_environment": "smp", "resource_spec": "h_vmem=2G"}
    script = job(words, tmp_path)
    lines = script.splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert set(DIRECTIVES[kind]) <= set(lines)
    shell = [line for line in lines[1:] if line and not line.startswith("#")]
    assert shell[:2] == words["prologue"]
    assert shell[2:6] == [f"export {name}_NUM_THREADS=4" for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")]
    assert 'export TMPDIR="$(mktemp -d "/local/$USER/qcsurrogate.XXXXXX")"' in shell
    command = shell[-1]
    assert command.startswith("/opt/venv/bin/python -m distributed.cli.dask_worker tls://10.0.0.1:4000 --name w ")
    options = dict(re.findall(r"--([a-z-]+) ([^-\s]\S*)", command))
    keys = tmp_path / "keys"
    assert options == {
        "name": "w",
        "nthreads": "1",
        "memory-limit": "8.00GiB",
        "death-timeout": "600",
        "local-directory": '"$TMPDIR"',
        "lifetime": "85500s",  # 24 h less 5 minutes less the stagger
        "lifetime-stagger": "600s",
        "dashboard-address": "127.0.0.1:0",
        "interface": "ib0",
        "protocol": "tls://",
        "tls-ca-file": str(keys / "ca.pem"),
        "tls-cert": str(keys / "cert.pem"),
        "tls-key": str(keys / "key.pem"),
    }
    assert "--nanny" in command
    assert "--no-dashboard" in command
    assert "lifetime-restart" not in command
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    assert not [line for line in lines if line.startswith("#") and str(keys) in line]


@pytest.mark.parametrize("kind", sorted(DIRECTIVES))
def test_paths_with_blanks_are_quoted(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSF_ENVDIR", str(tmp_path))
    place = tmp_path / "my place"
    python = place / "bin dir" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/bash\nprintf "%s\\n" "$0" "$@" "$TMPDIR"\n')
    python.chmod(0o755)
    words = {"kind": kind, "python": str(python), "scratch": str(place / "scratch dir"), "logs": str(place / "logs")}
    script = job(words, place)
    done = subprocess.run(["bash"], input=script, text=True, capture_output=True, check=True)
    said = done.stdout.splitlines()
    assert said[:3] == [str(python), "-m", "distributed.cli.dask_worker"]
    assert said[said.index("--tls-ca-file") + 1] == str(place / "keys" / "ca.pem")
    assert said[said.index("--local-directory") + 1] == said[-1]
    assert said[-1].startswith(str(place / "scratch dir" / "qcsurrogate."))
    outputs = [line for line in script.splitlines() if re.match(r"#\S+ -[oe] ", line)]
    assert len(outputs) == 2
    assert all(shlex.split(line, comments=False)[2].startswith(str(place / "logs") + "/") for line in outputs)


def test_python_with_blanks_through_ssh(tmp_path: Path) -> None:
    words = {"kind": "ssh", "hosts": ["a"], "workers": 1, "memory": "1 GiB", "tls": False, "python": "/my place/python"}
    settings: Any = parse_cluster(words, "test")
    (worker,) = ssh_workers(settings, None).values()
    assert shlex.split(worker["options"]["remote_python"])[3:] == ["/my place/python"]


def test_job_script_without_tls(tmp_path: Path) -> None:
    script = job({"kind": "slurm", "partition": "short", "tls": False}, tmp_path)
    assert "tls-" not in script
    assert "#SBATCH -p short" in script.splitlines()
    assert "#SBATCH --cpus-per-task=1" in script.splitlines()


@pytest.mark.parametrize(
    ("walltime", "changes", "lifetime", "stagger"),
    [
        ("01:00:00", {}, 3120, 180),
        ("00:10:00", {}, 510, 30),
        ("2-00:00", {}, 172800 - 300 - 600, 600),
        ("01:00:00", {"lifetime": "50 minutes", "lifetime_stagger": "2 minutes"}, 3000, 120),
    ],
)
def test_workers_retire_before_the_walltime(
    walltime: str, changes: dict[str, str], lifetime: float, stagger: float
) -> None:
    settings: Any = parse_cluster(QUEUE | {"kind": "slurm", "walltime": walltime} | changes, "test")
    assert (settings.lifetime_seconds, settings.stagger_seconds) == (lifetime, stagger)
    assert settings.longest_seconds < settings.walltime_seconds


WRONG = {
    "kind: expected one of ['local', 'slurm', 'pbs', 'sge', 'lsf', 'ssh', 'scheduler', 'slurm_runner'], got 'slrum'; "
    "did you mean 'slurm'?": {"kind": "slrum"},
    "got nothing": {},
    "unknown key 'wallitme'; did you mean 'walltime'?": QUEUE | {"kind": "slurm", "wallitme": "1"},
    "memory: missing": {"kind": "slurm", "workers": 1, "walltime": "01:00:00"},
    "walltime: expected text in quotes, such as '24:00:00', got the number 86400": QUEUE
    | {"kind": "slurm", "walltime": 86400},
    "walltime: expected HH:MM:SS or D-HH:MM:SS, got '24h'": QUEUE | {"kind": "pbs", "walltime": "24h"},
    "walltime: expected at least one minute": QUEUE | {"kind": "pbs", "walltime": "00:00:30"},
    "memory: expected a size such as '8 GiB', got 'much'": QUEUE | {"kind": "lsf", "memory": "much"},
    "memory: expected at least 256 MiB, got '8'": QUEUE | {"kind": "lsf", "memory": "8"},
    "expected either 'workers' or 'adaptive'": QUEUE | {"kind": "slurm", "adaptive": {"maximum": 3}},
    "minimum = 4, maximum = 3; expected minimum <= maximum": {
        **QUEUE,
        "kind": "slurm",
        "workers": None,
        "adaptive": {"minimum": 4, "maximum": 3},
    },
    "lifetime + lifetime_stagger = 86700 s; expected at most the walltime of 86400 s": QUEUE
    | {"kind": "slurm", "lifetime": "24 hours", "lifetime_stagger": "5 minutes"},
    "lifetime_stagger = 600 s; expected less than the lifetime": QUEUE | {"kind": "slurm", "lifetime": "5 minutes"},
    "lifetime: expected a time such as '50 minutes', got 'long'": QUEUE | {"kind": "slurm", "lifetime": "long"},
    "expected either 'partition' or 'queue'": QUEUE | {"kind": "slurm", "partition": "a", "queue": "b"},
    "parallel_environment: missing; expected the one": QUEUE | {"kind": "sge", "threads": 2},
    "python: expected letters, digits and": QUEUE | {"kind": "slurm", "python": "python; rm -rf ~"},
    "scratch: expected a path that may hold $VARIABLES, got '/tmp/$(id)'": QUEUE
    | {"kind": "slurm", "scratch": "/tmp/$(id)"},
    "prologue.0: expected one line of text": QUEUE | {"kind": "slurm", "prologue": ["a\nb"]},
    "extra_directives.0: expected one line of text": QUEUE | {"kind": "slurm", "extra_directives": ["-x\nrm -rf ~"]},
    "threads: expected greater than or equal to 1, got 0": {"kind": "local", "threads": 0},
    "hosts: missing": {"kind": "ssh", "workers": 1, "memory": "1 GiB"},
    "address = 'tcp://10.0.0.1:8786' is not encrypted": {"kind": "scheduler", "address": "tcp://10.0.0.1:8786"},
    "address: expected tls://HOST:PORT (or tcp://HOST:PORT), got '10.0.0.1:8786'": {
        "kind": "scheduler",
        "address": "10.0.0.1:8786",
    },
    "is encrypted, but 'tls: false' is said": {"kind": "scheduler", "address": "tls://10.0.0.1:8786", "tls": False},
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_words(words: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_cluster(WRONG[words], "my.yaml")
    assert str(caught.value).startswith("my.yaml: ")
    assert words in str(caught.value)


def test_plain_tcp_only_where_it_is_harmless_or_asked_for() -> None:
    assert not running_scheduler("tcp://127.0.0.1:8786").tls
    assert running_scheduler("tls://10.0.0.1:8786", 4, tls_folder="/keys").tls
    asked: Any = parse_cluster({"kind": "scheduler", "address": "tcp://10.0.0.1:8786", "tls": False}, "test")
    assert not asked.tls
    with pytest.raises(SpecError, match=r"--scheduler: .*not encrypted: who reaches it runs programs as you"):
        running_scheduler("tcp://10.0.0.1:8786")


def test_local_options() -> None:
    settings = local_cluster(3, 2, dashboard=True)
    assert (settings.workers, settings.threads, settings.dashboard_address) == (3, 2, "127.0.0.1:8787")
    assert local_cluster().dashboard_address == "127.0.0.1:0"
    with pytest.raises(SpecError, match="options: workers: expected greater than or equal to 1, got 0"):
        local_cluster(0)


def test_shipped_files_are_complete(tmp_path: Path) -> None:
    assert SHIPPED.names() == KINDS
    folder = Path(__file__).parents[2] / "workflows" / "clusters"
    for kind in KINDS:
        settings = load_cluster(kind)
        assert settings.kind == kind
        assert load_cluster(shutil.copy(folder / f"{kind}.yaml", tmp_path)) == settings
        text = (folder / f"{kind}.yaml").read_text()
        unexplained = [line for line in text.splitlines() if ":" in line.partition("#")[0] and "#" not in line]
        assert not unexplained
        said = set(re.findall(r"^#? ?([a-z_]+):", text, flags=re.MULTILINE))
        assert said == set(type(settings).model_fields) - {"queue" if kind == "slurm" else ""}, kind
        options = re.sub(r"^# (?=[a-z_]+:)", "", text, flags=re.MULTILINE)  # what is commented out must fit too
        options = re.sub(r"^adaptive:.*\n", "", options, flags=re.MULTILINE)
        (tmp_path / "all.yaml").write_text(options)
        assert load_cluster(tmp_path / "all.yaml").kind == kind


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"cannot find the cluster file 'slum'; expected .* did you mean 'slurm'\?"):
        load_cluster("slum")


STATES = {
    "slurm": "101 RUNNING\n102 PENDING\n103 COMPLETED\n104_7 RUNNING\n",
    "pbs": """Job id            Name             User              Time Use S Queue
----------------  ---------------- ----------------  -------- - -----
101.server         qcsurrogate      somebody          00:10:01 R workq
102.server         qcsurrogate      somebody                 0 Q workq
103.server         qcsurrogate      somebody          00:10:01 C workq
104.server         qcsurrogate      somebody          00:10:01 E workq
""",
    "sge": """job-ID  prior   name       user         state submit/start at     queue          slots ja-task-ID
-------------------------------------------------------------------------------------------------
    101 0.55500 qcsurrogat somebody     r     01/01/2026 12:00:00 all.q@node1        1
    102 0.00000 qcsurrogat somebody     qw    01/01/2026 12:00:00                    1
    103 0.00000 qcsurrogat somebody     Eqw   01/01/2026 12:00:00                    1
    104 0.55500 qcsurrogat somebody     t     01/01/2026 12:00:00 all.q@node1        1
""",
    "lsf": """JOBID   USER    STAT  QUEUE      FROM_HOST   EXEC_HOST   JOB_NAME   SUBMIT_TIME
101     somebody RUN   normal     login       node1       qcsurrogate Jan  1 12:00
102     somebody PEND  normal     login                   qcsurrogate Jan  1 12:00
103     somebody EXIT  normal     login       node1       qcsurrogate Jan  1 12:00
104     somebody RUN   normal     login       node1       qcsurrogate Jan  1 12:00
""",
}


@pytest.mark.parametrize("kind", sorted(STATES))
def test_states_of_jobs(kind: str) -> None:
    expected = {"101": "running", "102": "waiting", "103": "ended", "104": "running"}
    assert parse_states(kind, STATES[kind]) == expected
    assert parse_states(kind, "") == {}
    assert parse_states(kind, "slurm_load_jobs error: no controller\n") == {}


def test_the_tail_of_a_log_ends_with_errors(tmp_path: Path) -> None:
    assert log_tail(tmp_path, None) == log_tail(tmp_path, "7") == ""
    (tmp_path / "job.e7").write_text("bad\n")
    (tmp_path / "job.o7").write_text("\n".join(map(str, range(100))))
    tail = log_tail(tmp_path, "7").splitlines()
    assert len(tail) == 15
    assert tail[-2:] == ["99", "bad"]
