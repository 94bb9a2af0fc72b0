"""The templates of docs/cluster: their commands, what they do when a job ends, and a run that loses a host."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny_training import arguments, assert_identical, state_of
from helpers.xla_flags import quick_flags

from jaxseg import train
from jaxseg.config import command
from jaxseg.sweep import __main__ as sweep

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = ROOT / "docs" / "cluster"
RECORDING = """#!/usr/bin/env bash
printf '%s\\n' "$@" > "$RECORD.$(basename "$0")"
exit "$STATUS"
"""
# Starts its command as Slurm's srun does, one process a task, and kills the task $KILLED at the line that it waits for.
SRUN = f"""#!{sys.executable}
import os, re, signal, subprocess, sys, time
wait, command = int(sys.argv[1].removeprefix("--wait=")), sys.argv[2:]
tasks = []
for i in range(4):
    place = dict(SLURM_STEP_NODELIST="localhost", SLURM_NTASKS="4", SLURM_STEP_NUM_NODES="4", SLURM_PROCID=str(i))
    tasks.append(subprocess.Popen(command, env=os.environ | place | dict(SLURM_LOCALID="0"), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True) if i == 0 else subprocess.Popen(command, env=os.environ | place |
        dict(SLURM_LOCALID="0")))
for line in tasks[0].stdout:
    print(line, end="", flush=True)
    if os.environ["SLURM_RESTART_COUNT"] == "0" and re.search(os.environ["AT"], line):
        tasks[2].send_signal(int(os.environ["SIGNAL"]))
        if int(os.environ["SIGNAL"]) == signal.SIGTERM:
            for task in (tasks[0], tasks[1], tasks[3]):
                task.terminate()
        break
while all(task.poll() is None for task in tasks):
    time.sleep(0.1)
end = time.monotonic() + wait
while any(task.poll() is None for task in tasks) and time.monotonic() < end:
    time.sleep(0.1)
for task in tasks:
    task.kill()
print(tasks[0].stdout.read(), end="")
statuses = [task.wait() for task in tasks]
sys.exit(max(s if s >= 0 else 128 - s for s in statuses))
"""


def tool(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def submit(place: Path, template: str, *words: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs a template with the tools of `place` in front; returns the finished process."""
    slurm = {
        "SLURM_JOB_ID": "7",
        "SLURM_ARRAY_TASK_ID": "2",
        "SLURM_ARRAY_TASK_MAX": "5",
        "RECORD": str(place / "said"),
    }
    path = f"{place / 'tools'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", str(TEMPLATES / template), *words],
        cwd=ROOT,
        env={**os.environ, **slurm, "RECORD": str(place / "said"), "PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


def recorded(place: Path, tool: str) -> list[str]:
    path = place / f"said.{tool}"
    words = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return words


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("srun", "scontrol"):
        tool(tmp_path / "tools", name, RECORDING)
    return tmp_path


def test_the_command_of_the_training_job_is_one_of_training(place: Path) -> None:
    words = ("experiments/cnn.py", str(place / "run"), "--config.steps=3")
    assert submit(place, "train.slurm", *words, STATUS="0").returncode == 0
    wait, *start = recorded(place, "srun")
    assert wait == "--wait=60" and start[:3] == ["python", "-m", "jaxseg.train"]
    options, config = command.parse_command_line(start[3:], "program", "", train._add_options)
    assert (options.coordinator, options.workdir, options.stopped_status) == ("auto", str(place / "run"), 75)
    assert config.steps == 3 and config.model.name == "cnn"
    assert recorded(place, "scontrol") == []


def test_what_the_training_job_does_when_it_ends(place: Path) -> None:
    job = lambda status: submit(place, "train.slurm", "F", str(place / "run"), STATUS=str(status))  # noqa: E731
    tool(place / "tools", "scontrol", RECORDING.replace('exit "$STATUS"', "exit 0"))
    for status in (75, 143, 75, 143):  # stopped by a signal, also before the first step: again and again
        assert job(status).returncode == 0 and recorded(place, "scontrol") == ["requeue", "7"]
    for _ in range(2):  # a failure: twice more
        assert job(137).returncode == 0 and recorded(place, "scontrol") == ["requeue", "7"]
    last = job(1)
    assert last.returncode == 1 and recorded(place, "scontrol") == []
    assert last.stdout == "The run failed with status 1, for the last of 3 times.\n"
    assert job(0).returncode == 0 and not list(place.glob("run.failures*"))


def test_the_job_of_a_sweep(place: Path) -> None:
    tool(place / "tools", "scontrol", RECORDING.replace('exit "$STATUS"', "exit 0"))
    words = ("experiments/ablations/residual.py", str(place / "sweep"), "--config.steps=3")
    for status, ended, requeued in ((0, 0, []), (1, 1, []), (143, 0, ["requeue", "7"])):
        assert submit(place, "sweep.slurm", *words, STATUS=str(status)).returncode == ended
        assert recorded(place, "scontrol") == requeued
    start = recorded(place, "srun")
    assert start[:3] == ["python", "-m", "jaxseg.sweep"]
    options, rest = sweep._parser("program").parse_known_args(start[3:])
    assert options.shard == (2, 5) and options.workdir == words[1] and rest == ["--config.steps=3"]


@pytest.mark.parametrize("template", ["train.slurm", "sweep.slurm"])
def test_a_job_has_its_environment_and_a_log_file_to_append_to(place: Path, template: str) -> None:
    words = ("experiments/cnn.py", str(place / "run"))
    (place / "env").write_text('touch "$RECORD.env"\necho $UNSET_IN_CONDA\n')
    assert submit(place, template, *words, STATUS="0", JAXSEG_ENV=str(place / "env")).returncode == 0
    assert (place / "said.env").exists() and recorded(place, "srun")
    missing = submit(place, template, *words, STATUS="0", JAXSEG_ENV=str(place / "none"))
    assert missing.returncode == 1 and recorded(place, "srun") == []
    assert missing.stdout == f"JAXSEG_ENV={place / 'none'} cannot be read; give a file such as VENV/bin/activate.\n"
    tool(place / "tools", "python", "#!/usr/bin/env bash\nexit 1\n")
    without = submit(place, template, *words, STATUS="0")
    assert without.returncode == 1 and recorded(place, "srun") == recorded(place, "scontrol") == []
    assert without.stdout == f"This python has no jaxseg: {place / 'tools' / 'python'}; see JAXSEG_ENV.\n"
    options = re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", (TEMPLATES / template).read_text(), re.M)
    assert dict(options)["open-mode"] == "append" and dict(options)["output"].startswith("%x-%")


def test_the_pods_of_kubernetes_start_the_training() -> None:
    yaml = pytest.importorskip("yaml")
    jobset = yaml.safe_load((TEMPLATES / "jobset.yaml").read_text())
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["completionMode"] == "Indexed" and job["completions"] == job["parallelism"] == 4
    (container,) = job["template"]["spec"]["containers"]
    start = [word.replace("$(JOB_COMPLETION_INDEX)", "3") for word in container["command"]]
    options, config = command.parse_command_line(start[3:], "program", "", train._add_options)
    assert (options.processes, options.process, options.stopped_status) == (4, 3, 75)
    name, group = jobset["metadata"]["name"], jobset["spec"]["replicatedJobs"][0]["name"]
    assert options.coordinator == f"{name}-{group}-0-0.{name}:12345"
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in job["template"]["spec"]["volumes"]
    }
    assert options.workdir.startswith("/shared/") and config.data.dir.startswith("/shared/")


def test_a_stopped_run_has_the_status_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "train", lambda *_, started: None)  # as after a signal
    assert train.main(arguments(tmp_path)) == 0
    assert train.main([*arguments(tmp_path), "--stopped-status", "75"]) == 75


@pytest.mark.slow  # four processes, each started twice or thrice
@pytest.mark.parametrize("signal", ["SIGKILL", "SIGTERM"])
def test_a_job_that_loses_a_host_ends_as_one_that_does_not(tmp_path: Path, signal: str) -> None:
    from signal import Signals

    tool(tmp_path / "tools", "srun", SRUN)
    tool(tmp_path / "tools", "scontrol", RECORDING)
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs"), "XLA_FLAGS": quick_flags(devices=1)}
    here = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "STATUS": "0", **cache}
    job = arguments("unused", log__images=0, checkpoint__keep=3, eval__every=2)[4:]
    requeued = {}
    for name, killed in (("whole", ""), ("broken", signal)):
        for restart in range(4):
            lost = {"AT": r"^step 4/6  loss" if killed else "never", "SIGNAL": str(int(Signals[killed or "SIGKILL"]))}
            done = submit(
                tmp_path,
                "train.slurm",
                "experiments/resunet.py",
                str(tmp_path / name),
                *job,
                SLURM_RESTART_COUNT=str(restart),
                **lost,
                **here,
                SLURM_JOB_ID=str(60 + 2 * restart + len(killed)),
            )
            assert done.returncode == 0, done.stdout + done.stderr
            requeued[name] = restart
            if recorded(tmp_path, "scontrol")[:1] != ["requeue"]:
                break
            said = done.stdout
    assert requeued == {"whole": 0, "broken": 1}
    assert re.search("was stopped" if signal == "SIGTERM" else r"failed with status", said)
    assert_identical(state_of(tmp_path / "whole"), state_of(tmp_path / "broken"))
