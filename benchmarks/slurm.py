"""Generation and training under a real Slurm of one node, brought up for it and taken down again.

    apt-get install slurmd slurmctld slurm-client munge      # Debian, Ubuntu
    python benchmarks/slurm.py

Starts munged, slurmctld and slurmd of its own under a temporary directory, with this machine as the
only node. Then it runs ``generate --dask slurm --jobs 2`` into one file and into a file for each
partition, compares both with a run without Slurm, and trains a model by a batch script in two
processes that torchrun starts. Exit code 1 where something is wrong, 77 without the programs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "sinfo")

SKIPPED = 77

_CONFIGURATION = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmctldParameters=enable_configless
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""

_TRAINING = """\
#!/bin/bash
#SBATCH --nodes=1 --ntasks-per-node=1 --job-name=train --output={directory}/train.log
{python} -m torch.distributed.run --nproc-per-node 2 -m hepgen_ml train \\
    --from-lhe {sample} --out {directory}/model --device cpu --model jetgpt --max-time {seconds}s \\
    --set network.width=32 --set network.blocks=2
"""

_JOBQUEUE = """\
jobqueue:
  slurm:
    cores: 1
    memory: 1GB
    walltime: "00:10:00"
    local-directory: {directory}
    log-directory: {directory}
    death-timeout: 120
    job-extra-directives: ["--mem=0"]
"""


def missing() -> list[str]:
    """Programs of Slurm that are not here; those of daemons may lie beside the user's path."""
    place = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return [name for name in PROGRAMS if shutil.which(name, path=place) is None]


@contextmanager
def slurm(directory: Path) -> Iterator[dict[str, str]]:
    """A Slurm of one node; gives the environment in which its commands find it.

    Parameters
    ----------
    directory : Path
        Empty, for everything that it writes.
    """
    environment = {**os.environ, "SLURM_CONF": str(directory / "slurm.conf")}
    environment["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    for name in ("state", "spool"):
        (directory / name).mkdir()
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    (directory / "slurm.conf").write_text(
        _CONFIGURATION.format(
            host=socket.gethostname().split(".")[0], user=user, directory=directory,
            ports=[_free_port(), _free_port()], cpus=os.cpu_count(),
        )
    )  # fmt: skip
    key = directory / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    munge = [
        "munged", "--foreground", "--force", f"--key-file={key}",
        f"--socket={directory}/munge.socket", f"--pid-file={directory}/munged.pid",
        f"--log-file={directory}/munged.log", f"--seed-file={directory}/munge.seed",
    ]  # fmt: skip
    with ExitStack() as daemons:
        for command in (munge, ["slurmctld", "-D"], ["slurmd", "-D"]):
            log = daemons.enter_context((directory / f"{command[0]}.out").open("w"))
            daemon = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            daemons.callback(_end, daemon)
            time.sleep(1)
        _wait_for_node(environment, directory)
        try:
            yield environment
        finally:
            subprocess.run(["scancel", "--user", user], env=environment, check=False)
            time.sleep(2)


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(20)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _wait_for_node(environment: dict[str, str], directory: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = subprocess.run(
            ["sinfo", "--noheader", "--format=%t"],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if found.stdout.strip() in ("idle", "mix", "alloc"):
            return
        time.sleep(0.5)
    logs = "\n".join(p.read_text()[-1000:] for p in directory.glob("*.log"))
    raise RuntimeError(f"the node of Slurm does not answer: {found.stdout}{found.stderr}\n{logs}")


def _run(environment: dict[str, str], *arguments: object) -> float:
    """Run hepgen-ml; seconds that it took."""
    begun = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "hepgen_ml", *map(str, arguments)], env=environment, check=True
    )
    return time.monotonic() - begun


def generate(environment: dict[str, str], directory: Path, n: int) -> None:
    """Events by jobs of Slurm, in one file and in one for each partition, are those of no job."""
    (directory / "dask").mkdir()
    (directory / "dask" / "jobqueue.yaml").write_text(_JOBQUEUE.format(directory=directory))
    environment = {**environment, "DASK_CONFIG": str(directory / "dask")}
    common = ("generate", "--model", "ttbar01j", "-n", n, "--seed", 1)
    batch = ("--dask", "slurm", "--jobs", 2)
    alone = _run(environment, *common, "--workers", 1, "--out", directory / "alone.lhe")
    print(f"{n:,} events without Slurm: {alone:.1f} s", flush=True)
    seconds = _run(environment, *common, *batch, "--out", directory / "jobs.lhe")
    print(f"{n:,} events by two jobs into one file: {seconds:.1f} s", flush=True)
    seconds = _run(
        environment, *common, *batch, "--partitions", 4, "--out", directory / "part-{shard}.lhe"
    )
    print(f"{n:,} events by two jobs into four files: {seconds:.1f} s", flush=True)
    parts = sorted(directory.glob("part-?.lhe"))
    if len(parts) != 4:
        raise RuntimeError(f"{len(parts)} files of 4 partitions")
    _run(environment, "merge", *parts, "--out", directory / "merged.lhe")
    alone_text = (directory / "alone.lhe").read_bytes()
    for name in ("jobs.lhe", "merged.lhe"):
        if (directory / name).read_bytes() != alone_text:
            raise RuntimeError(f"{name}: other events than without Slurm")
    print("the same events, byte for byte, in one file and in merged partitions")


def train(environment: dict[str, str], directory: Path, sample: Path, seconds: int) -> None:
    """A model by a batch script, in two processes."""
    script = directory / "train.sh"
    script.write_text(
        _TRAINING.format(
            directory=directory, python=sys.executable, sample=sample, seconds=seconds
        )
    )
    done = subprocess.run(
        ["sbatch", "--wait", str(script)], env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    log = directory / "train.log"
    said = log.read_text() if log.exists() else ""
    if done.returncode:
        raise RuntimeError(f"sbatch: exit code {done.returncode}: {done.stderr}{said[-3000:]}")
    print(next(line for line in said.splitlines() if "learned" in line))
    from hepgen_ml import Generator

    generator = Generator.load(directory / "model", device="cpu")
    if generator.facts["processes"] != 2 or len(generator.sample(1000, seed=1)) != 1000:
        raise RuntimeError("not the model of two processes")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=float, default=100_000, help="events to generate")
    parser.add_argument("--seconds", type=int, default=60, help="of training")
    parser.add_argument("--sample", type=Path, default=ROOT / "examples" / "ttbar01j_20k.lhe.gz")
    options = parser.parse_args()
    if absent := missing():
        print(f"Slurm is not installed: no {', '.join(absent)}", file=sys.stderr)
        return SKIPPED
    with tempfile.TemporaryDirectory(prefix="hepgen-ml-slurm-") as name:
        try:
            with slurm(Path(name)) as environment:
                generate(environment, Path(name), int(options.n))
                train(environment, Path(name), options.sample.resolve(), options.seconds)
        except (RuntimeError, subprocess.CalledProcessError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
