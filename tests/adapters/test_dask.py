"""Events made by the workers of Dask clusters are those made here, whatever happens to these."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from hepgen_ml import EventSample, Generator, merge, read, write
from hepgen_ml.cli import app
from hepgen_ml.config import Config
from hepgen_ml.errors import OutputError, UsageError
from hepgen_ml.generation import blocks, clusters
from tests.samples import toy_top_pairs
from tests.scans import point

distributed = pytest.importorskip("distributed")
pytest.importorskip("dask_awkward")

from hepgen_adapters.dask import Dask, from_generator  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dask") / "model"
    config = Config().with_(
        network__width=16, network__blocks=1, network__heads=2, network__mixtures=4,
        training__batch_size=256, training__max_steps=30,
    )  # fmt: skip
    Generator.train(toy_top_pairs(2000), out=out, config=config, device="cpu")
    return out


@pytest.fixture(scope="module")
def scheduler() -> Iterator[Any]:
    """A scheduler whose workers are threads of this process."""
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0",
        protocol="tcp", host="127.0.0.1",
    ) as cluster:  # fmt: skip
        yield cluster


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin also where the package was installed before it had one."""
    monkeypatch.setattr(clusters, "open_cluster", lambda name, *address: Dask(*address))


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def assert_equal(a: EventSample, b: EventSample) -> None:
    np.testing.assert_array_equal(a.offsets, b.offsets)
    for group in ("particles", "events", "weights"):
        assert list(getattr(a, group)) == list(getattr(b, group))
        for name, values in getattr(a, group).items():
            np.testing.assert_array_equal(values, getattr(b, group)[name], err_msg=name)


@pytest.mark.parametrize("npartitions", [1, 3])
def test_an_array_holds_the_events_of_the_generator(model: Path, npartitions: int) -> None:
    import awkward as ak

    array = from_generator(model, 100, npartitions, seed=5)
    assert array.npartitions == npartitions
    found = array.compute(scheduler="threads")
    assert ak.array_equal(found, Generator.load(model).sample(100, seed=5).to_awkward())
    assert array.fields == found.fields


def test_an_array_behaves_as_vectors_do(model: Path) -> None:
    array = from_generator(model, 60, 2, seed=5)
    sample = Generator.load(model).sample(60, seed=5)
    pt = array.particles[array.particles.status == 1].pt
    expected = np.hypot(sample.px, sample.py)[sample.status == 1]
    np.testing.assert_allclose(pt.compute(scheduler="threads").layout.content.data, expected)


def test_without_a_seed_an_array_is_the_same_every_time_and_others_differ(model: Path) -> None:
    array, other = from_generator(model, 20), from_generator(model, 20)
    first = array.particles.E.compute(scheduler="threads").to_list()
    assert array.particles.E.compute(scheduler="threads").to_list() == first
    assert other.particles.E.compute(scheduler="threads").to_list() != first


def test_more_partitions_than_events(model: Path) -> None:
    with pytest.raises(UsageError, match="partitions are more than 3 events"):
        from_generator(model, 3, 4)


def test_the_command_line_writes_one_file(
    model: Path, scheduler: Any, tmp_path: Path, plugin: None
) -> None:
    out, here = tmp_path / "all.lhe", tmp_path / "here.lhe"
    common = ("generate", "--model", model, "-n", 25_000, "--seed", 4, "--out")
    done = run(*common, out, "--dask", scheduler.scheduler_address)
    assert done.exit_code == 0, done.output
    assert run(*common, here, "--workers", 1).exit_code == 0
    assert out.read_bytes() == here.read_bytes()


def test_the_command_line_writes_partitions(
    model: Path, scheduler: Any, tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    common = ("generate", "--model", model, "-n", 50, "--seed", 4, "--dask")
    done = run(*common, scheduler.scheduler_address, "--out", "part-{shard}.lhe", "--partitions", 3)
    assert done.exit_code == 0, done.output
    assert sorted(os.listdir()) == ["part-0.lhe", "part-1.lhe", "part-2.lhe"]
    merge(["part-*.lhe"], "all.lhe")
    whole = Generator.load(model).sample(50, seed=4)
    assert np.array_equal(read("all.lhe").px, whole.px)
    again = run(
        *common, scheduler.scheduler_address, "--out", "part-{shard}.lhe", "--partitions", 3
    )
    assert again.exit_code == OutputError.exit_code
    one = run(*common, scheduler.scheduler_address, "--out", "part.lhe", "--partitions", 3)
    assert one.exit_code == UsageError.exit_code
    assert "{shard}" in one.output


def test_an_error_of_a_worker_is_one_line(
    model: Path, scheduler: Any, tmp_path: Path, plugin: None
) -> None:
    address = scheduler.scheduler_address
    out = tmp_path / "nowhere" / "part-{shard}.lhe"
    done = run(
        "generate", "--model", model, "-n", 50, "--dask", address, "--out", out, "--partitions", 2
    )
    assert done.exit_code == OutputError.exit_code
    assert "its directory does not exist" in done.output


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "no address", ""])
def test_a_scheduler_that_does_not_answer(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hepgen_adapters.dask._ANSWER", 0.5)
    with pytest.raises(UsageError, match="no Dask scheduler answers"):
        Dask(address)
    # The destructor of a client that is left over could wait for ever for the next one.
    clients = [thing for thing in gc.get_objects() if type(thing) is distributed.Client]
    assert all(client.status == "closed" for client in clients)


def test_a_batch_system_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dask_jobqueue")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="jobs cannot be submitted to slurm"):
        Dask("slurm", 2)


def _fatal_once(maker: str, arguments: tuple[Any, ...], block: Any) -> Any:
    """Blocks of a worker that is killed the first time that it makes the third one."""
    marker = Path(os.environ["HEPGEN_ML_TEST_KILLED"])
    if block.index == 2 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return _true_block(maker, arguments, block)


_true_block = clusters._block


@pytest.mark.slow
def test_the_blocks_of_a_killed_worker_are_made_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEPGEN_ML_TEST_KILLED", str(tmp_path / "killed"))
    monkeypatch.setattr(clusters, "_block", _fatal_once)
    generator = Generator.load(model, device="cpu")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as some,
        Dask(some.scheduler_address) as cluster,
    ):
        events = list(generator.stream(60_000, seed=2, cluster=cluster))
    assert (tmp_path / "killed").exists()
    for a, b in zip(events, generator.stream(60_000, seed=2), strict=True):
        assert_equal(a, b)


@pytest.mark.slow
def test_a_scheduler_that_dies_leaves_nothing(model: Path, tmp_path: Path, plugin: None) -> None:
    local = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0"
    )
    threading.Timer(3.0, local.close).start()
    done = run(
        "generate", "--model", model, "-n", 10_000_000, "--seed", 4,
        "--dask", local.scheduler_address, "--out", tmp_path / "all.lhe",
    )  # fmt: skip
    assert done.exit_code == OutputError.exit_code
    assert "connection to the Dask scheduler was lost" in done.output
    assert not os.listdir(tmp_path)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two points of a scan."""
    out = tmp_path_factory.mktemp("scan") / "model"
    config = Config().with_(
        model="jetgpt", conditions=["mass:32"], network__width=16, network__blocks=1,
        network__heads=2, network__mixtures=4, training__max_steps=20,
    )  # fmt: skip
    files = [out.parent / f"{mass}.lhe" for mass in (600, 1400)]
    for mass, path in zip((600, 1400), files, strict=True):
        write(point(mass, 500, mass), path)
    Generator.train(files, out=out, config=config, device="cpu")
    return out


@pytest.mark.parametrize("given", ["mass:32=900", "masses.txt"])
def test_conditions_reach_the_workers(
    scan: Path, scheduler: Any, tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch,
    given: str,
) -> None:  # fmt: skip
    """A value for all events, and one for each, go to blocks, partitions and arrays."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(blocks, "BLOCK", 40)
    Path("masses.txt").write_text("700\n900\n1200\n")
    common = ("generate", "--model", scan, "-n", 100, "--seed", 4, "--condition", given, "--out")
    address = scheduler.scheduler_address
    assert run(*common, "here.lhe", "--workers", 1).exit_code == 0
    done = run(*common, "there.lhe", "--dask", address)
    assert done.exit_code == 0, done.output
    assert Path("here.lhe").read_bytes() == Path("there.lhe").read_bytes()
    done = run(*common, "part-{shard}.lhe", "--dask", address, "--partitions", 3)
    assert done.exit_code == 0, done.output
    merge("part-*.lhe", "merged.lhe")
    assert Path("here.lhe").read_bytes() == Path("merged.lhe").read_bytes()
    values = {"mass:32": 900.0 if "=" in given else np.array([700.0, 900.0, 1200.0])}
    array = from_generator(scan, 100, 3, seed=4, condition=values)
    pz = array.particles.pz.compute(scheduler="threads")
    np.testing.assert_allclose(pz.layout.content.data, read("here.lhe").pz)
