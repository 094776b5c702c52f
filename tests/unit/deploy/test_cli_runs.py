"""Runs: started, shown, stopped, resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from contracts.errors import PlatformError
from deploy.cli.machine.subprocesses import interrupts_wait
from deploy.cli.runs.resume import plan_resume
from deploy.cli.runs.run_files import find_run, list_runs, process_start
from deploy.cli.runs.workflow import RunOptions, execute, plan_scoring
from deploy.cli.terminal.advice import pasteable, resume_command
from pipelines.run import Run
from pipelines.task import dump_config
from pipelines.tasks import get_task, recipe_config

FAILING = """
import json, sys
print(json.dumps({"event": "step_started", "step": "ingest"}))
print("a library prints")
print(json.dumps({"event": "step_failed", "step": "ingest", "seconds": 0.1}))
error = {"headline": "row 7 is bad", "detail": "got x", "fix": "mend row 7", "code": "bad_data", "context": {"row": 7}}
print(json.dumps({"event": "run_failed", "error": error}))
sys.exit(1)
"""


def request(endpoints, **changes) -> Run:
    return Run(run_id="fraud-1", task="fraud", recipe="base", endpoints=endpoints, **changes)


def test_a_failed_run_says_why_and_how_to_resume(endpoints, workflow) -> None:
    workflow(FAILING)
    seen = []
    with pytest.raises(PlatformError) as caught:
        execute(request(endpoints), seen.append)
    assert caught.value.headline == "row 7 is bad"
    assert caught.value.fix == "mend row 7; then: fairlead run --resume fraud-1"
    assert caught.value.context == {"row": 7, "run": "fraud-1"}
    assert [event["event"] for event in seen] == ["step_started", "log", "step_failed", "run_failed"]


def test_a_run_that_dies_without_a_word_shows_the_end_of_its_stderr(endpoints, workflow) -> None:
    workflow("import sys; sys.exit('out of luck')")
    with pytest.raises(PlatformError) as caught:
        execute(request(endpoints))
    assert "out of luck" in caught.value.detail
    assert "--resume fraud-1" in caught.value.fix


def test_the_run_gets_task_recipe_config_source_and_addresses(endpoints, workflow, tmp_path) -> None:
    workflow(
        f"import json, sys; open({str(tmp_path / 'argv')!r}, 'w').write(json.dumps(sys.argv[1:]))\n"
        'print(json.dumps({"event": "run_finished"}))'
    )
    execute(request(endpoints, source="/x.csv", nonce="n-1"))
    (document,) = json.loads((tmp_path / "argv").read_text())
    given = json.loads(document)
    assert (given["task"], given["recipe"], given["source"]) == ("fraud", "base", "/x.csv")
    assert (given["endpoints"]["home"], given["nonce"]) == (endpoints.home, "n-1")


def test_ctrl_c_stops_the_run_and_its_steps_and_says_how_to_resume(home, workflow, tmp_path, write_run) -> None:
    write_run("fraud-9")
    pid_file = tmp_path / "pid"
    workflow(
        "import subprocess, sys, time\n"
        "step = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(pid_file)!r}, 'w').write(str(step.pid))\n"
        "time.sleep(60)\n"
    )
    script = str(tmp_path / "workflow.py")
    code = "import sys; from deploy.cli.runs import workflow_process; "
    code += f"workflow_process.COMMAND = (sys.executable, {script!r})\n"
    code += "sys.argv = ['fairlead', 'run', '--resume', 'fraud-9']; from deploy.cli.app import main; main()"
    command = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (pid_file.exists() and pid_file.read_text()):
        assert command.poll() is None, command.communicate()
        time.sleep(0.02)
    command.send_signal(signal.SIGINT)
    _, complaint = command.communicate(timeout=120)
    assert command.returncode == 130, complaint
    assert "fairlead run --resume fraud-9" in complaint
    assert _ended(int(pid_file.read_text()))


def _ended(pid: int) -> bool:
    """Whether a process that sleeps for long ends now; init may not have collected it yet."""
    for _ in range(600):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.1)
    return False


def test_runs_are_listed_newest_first_and_a_run_without_process_is_dead(endpoints, write_run) -> None:
    write_run("fraud-1", started="2026-01-01T00:00:00+00:00")
    write_run("fraud-2", started="2026-01-02T00:00:00+00:00", status="running", pid=2**22 + 1, finished=None)
    (endpoints.path("runs") / "fraud-3").mkdir()
    assert [(run["run_id"], run["status"]) for run in list_runs(endpoints)] == [
        ("fraud-2", "dead"),
        ("fraud-1", "failed"),
    ]


def test_a_process_number_that_another_program_has_now_is_not_the_run(endpoints, write_run) -> None:
    write_run("fraud-1", status="running", pid=os.getpid(), process_started="1")
    write_run("fraud-2", status="running", pid=os.getpid(), process_started=process_start(os.getpid()))
    assert find_run(endpoints, "fraud-1")["status"] == "dead"
    assert find_run(endpoints, "fraud-2")["status"] == "running"


def test_a_run_is_found_by_a_unique_start(endpoints, write_run) -> None:
    write_run("fraud-1")
    write_run("news-1")
    assert find_run(endpoints, "ne")["run_id"] == "news-1"


@pytest.mark.parametrize("bad", ["", "fraud", "../home", "nothing"])
def test_an_ambiguous_or_unknown_run_is_refused(endpoints, write_run, bad) -> None:
    write_run("fraud-1")
    write_run("fraud-2")
    with pytest.raises(PlatformError) as caught:
        find_run(endpoints, bad)
    assert caught.value.code == "unknown_run"


@pytest.mark.parametrize("status", ["succeeded", "refused"])
def test_a_run_that_ended_is_not_resumed(endpoints, write_run, status) -> None:
    write_run("fraud-1", status=status)
    with pytest.raises(PlatformError, match="cannot resume"):
        plan_resume(endpoints, "fraud-1")


def fraud(**overrides) -> dict:
    task = get_task("fraud")
    return json.loads(dump_config(recipe_config(task, None, overrides)))


def test_resuming_takes_everything_from_the_run(endpoints, write_run) -> None:
    asked = {"source": "/x.csv", "nonce": "n-1", "workflow": "training", "dataset": "d1", "promote": False}
    write_run("fraud-1", status="running", pid=None, **asked)
    made = plan_resume(endpoints, "fraud-1")
    assert (made.run_id, made.task, made.source, made.nonce) == ("fraud-1", "fraud", "/x.csv", "n-1")
    assert (made.workflow, made.dataset, made.promote) == ("training", "d1", False)
    assert made.config == {"recipe": "lightgbm"}


def test_a_run_of_an_earlier_version_that_used_no_cache_finds_its_own_steps(endpoints, write_run) -> None:
    write_run("fraud-1", no_cache=True)
    assert plan_resume(endpoints, "fraud-1").nonce == "fraud-1"


def test_resuming_changes_what_is_given_and_keeps_the_rest(endpoints, write_run, tmp_path) -> None:
    write_run("fraud-1", config=fraud(seed=3), source="/x.csv", nonce="n-1")
    (tmp_path / "y.csv").write_text("")
    options = RunOptions(overrides=["data.drop=[a, b c]", "model.rounds=9"], source="y.csv", no_cache=True)
    made = plan_resume(endpoints, "fraud-1", options)
    config = made.config
    assert (config["seed"], config["data"]["drop"], config["model"]["rounds"]) == (3, ["a", "b c"], 9)
    assert made.changed == {"data.drop": ["a", "b c"], "model.rounds": 9}
    assert (made.run_id, made.source) == ("fraud-1", str(tmp_path / "y.csv"))
    assert made.nonce not in ("", "n-1")


def test_a_run_of_a_version_that_knew_fewer_settings_takes_todays(endpoints, write_run) -> None:
    config = fraud(seed=3)
    del config["data"]["quoted"], config["split"]
    write_run("fraud-1", config=config)
    made = plan_resume(endpoints, "fraud-1", RunOptions(overrides=["data.quoted=false"]))
    assert made.changed == {"data.quoted": False}
    assert made.config == fraud(seed=3) | {"data": fraud()["data"] | {"quoted": False}}


@pytest.mark.parametrize("bad", ["data.nothing=1", "model.rounds=many", "recipe=logistic"])
def test_a_setting_that_the_task_does_not_have_is_refused_before_the_run_goes_on(endpoints, write_run, bad) -> None:
    write_run("fraud-1", config=fraud())
    with pytest.raises(PlatformError) as caught:
        plan_resume(endpoints, "fraud-1", RunOptions(overrides=[bad]))
    assert caught.value.code == "bad_config"


def test_a_scoring_is_resumed_with_its_model_its_folder_and_how_the_file_is_read(
    endpoints, write_run, tmp_path
) -> None:
    asked = {"workflow": "batch_scoring", "task": "", "recipe": "", "model": "fraud:3", "source": str(tmp_path)}
    write_run("score-1", **asked, config={"data.delimiter": ";"}, out=str(tmp_path / "scored"))
    made = plan_resume(endpoints, "score-1", RunOptions(overrides=["data.header=false"]))
    assert (made.workflow, made.model, made.out) == ("batch_scoring", "fraud:3", str(tmp_path / "scored"))
    assert made.config == {"data.delimiter": ";", "data.header": False}
    assert made.changed == {"data.header": False}
    with pytest.raises(PlatformError, match="unknown key 'rounds'"):
        plan_resume(endpoints, "score-1", RunOptions(overrides=["data.rounds=1"]))


def test_a_resume_names_no_task_and_says_how_to_write_it(fairlead, write_run) -> None:
    write_run("fraud-1")
    said = fairlead("run", "fraud", "--resume", "fraud-1", "--set", "data.drop=[a b]", "--no-cache")
    assert said.code == 1
    assert "fairlead run --resume fraud-1 --set 'data.drop=[a b]' --no-cache" in said.err


def test_a_run_that_measures_by_nothing_goes_on_with_a_metric_that_there_is(endpoints, write_run) -> None:
    config = fraud(seed=3)
    write_run("fraud-1", config={**config, "gate": {**config["gate"], "primary": "nothing"}})
    assert plan_resume(endpoints, "fraud-1", RunOptions(overrides=["gate.primary=macro_f1"])).changed == {
        "gate.primary": "macro_f1"
    }
    with pytest.raises(PlatformError, match=r"gate.primary 'nothing' is not measured for task fraud"):
        plan_resume(endpoints, "fraud-1", RunOptions(overrides=["gate.champion_tolerance=0.1"]))


def test_settings_for_a_run_that_ended_are_those_of_a_new_one(endpoints, write_run) -> None:
    write_run("fraud-1", status="refused", config=fraud(seed=3), source="/a file.csv")
    with pytest.raises(PlatformError) as caught:
        plan_resume(endpoints, "fraud-1", RunOptions(overrides=["gate.primary=cost"]))
    command = "fairlead run fraud --recipe lightgbm --source '/a file.csv' --set seed=3 --set gate.primary=cost"
    assert caught.value.fix == f"start a new one: {command}"


@pytest.mark.parametrize(
    ("fix", "printed"),
    [
        ("mend row 7", "mend row 7; then: RESUME"),
        ("", "correct it, then: RESUME"),
        ("choose one: --set gate.primary=f1", "choose one: RESUME --set gate.primary=f1"),
        ("give more, or --set a=1, say", "give more, or RESUME --set a=1, say"),
        ("--set 'a=[x, y]' --set b=2; or --set c=3", "RESUME --set 'a=[x, y]' --set b=2; or RESUME --set c=3"),
        ("make it again: --no-cache", "make it again: RESUME --no-cache"),
        ("""--set 'a=it'"'"'s; so'; or leave it""", """RESUME --set 'a=it'"'"'s; so'; or leave it"""),
        ("fairlead run fraud --set seed=1", "fairlead run fraud --set seed=1; then: RESUME"),
        ("helm upgrade x --set a.b=1", "helm upgrade x --set a.b=1; then: RESUME"),
    ],
)
def test_a_cure_is_printed_as_commands_to_paste(fix, printed) -> None:
    resume = "fairlead run --resume fraud-1"
    assert pasteable(fix, resume) == printed.replace("RESUME", resume)


def test_a_command_names_the_profile_that_is_not_the_usual_one(monkeypatch) -> None:
    assert resume_command("r", "local") == "fairlead run --resume r"
    assert resume_command("r", "my profile.yaml") == "fairlead run --resume r --profile 'my profile.yaml'"
    monkeypatch.setenv("FAIRLEAD_CLI_PROFILE", "other")
    assert resume_command("r", "other") == "fairlead run --resume r"
    assert resume_command("r", "local") == "fairlead run --resume r --profile local"


def test_a_scoring_into_a_folder_that_exists_is_refused(endpoints, tmp_path) -> None:
    with pytest.raises(PlatformError, match="exists"):
        plan_scoring(endpoints, "fraud", "", {}, str(tmp_path))


def test_runs_table_fits_and_names_the_failure(fairlead, write_run) -> None:
    write_run("fraud-20260102-030405-9f3c", error={"headline": "validate: 900 of 1000 rows are bad in payments.csv"})
    said = fairlead("runs")
    assert "fraud-20260102-030405-9f3c" in said.out
    assert "failed" in said.out
    assert max(map(len, said.out.splitlines())) <= 100


def test_one_run_shows_steps_error_and_the_way_on(fairlead, write_run) -> None:
    write_run("fraud-1", error={"headline": "row 7 is bad", "detail": "got x", "fix": "mend row 7"})
    said = fairlead("runs", "fraud-1")
    assert "ingest" in said.out
    assert "mend row 7" in said.out
    assert "fairlead run --resume fraud-1" in said.out


def test_runs_as_json_are_a_list(fairlead, write_run) -> None:
    write_run("fraud-1")
    assert [run["run_id"] for run in fairlead("runs", "--json").json] == ["fraud-1"]
    assert fairlead("runs", "--limit", "1", "--json").json[0]["seconds"] == 60.0


def test_runs_that_made_no_model_are_shown_beside_those_that_did(fairlead, write_run) -> None:
    asked = {"workflow": "batch_scoring", "task": "", "recipe": "", "model": "fraud:3", "out": "/scored"}
    result = {"model": "fraud:3", "rows": 1200, "labels": {"fraud": 3}}
    write_run("score-1", status="succeeded", **asked, config={"data.delimiter": ";"}, result=result)
    write_run("fraud-1", status="succeeded", workflow="ingestion", result={"views": 2})
    listed = fairlead("runs")
    assert listed.code == 0
    assert "1,200 rows" in listed.out
    said = fairlead("runs", "score-1")
    assert "scores of fraud:3, in /scored" in said.out
    assert "Settings --set 'data.delimiter=;'" in said.out
    assert fairlead("runs", "fraud-1").code == 0


def test_a_listed_error_has_a_cure_that_can_be_pasted(fairlead, write_run) -> None:
    write_run("fraud-1", error={"headline": "row 7 is bad", "fix": "say so: --set data.header=false"})
    command = "fairlead run --resume fraud-1 --set data.header=false"
    assert command in fairlead("runs", "fraud-1").out
    assert fairlead("runs", "fraud-1", "--json").json["error"]["fix"] == f"say so: {command}"
    assert fairlead("runs", "--json").json[0]["error"]["fix"] == f"say so: {command}"


@pytest.mark.parametrize("step", ["validate", "build_dataset"])
def test_a_run_shows_the_rows_that_it_left_out_although_it_made_no_model(fairlead, write_run, step) -> None:
    group = {"step": "validate", "reason": "content: byte 0xe9 is not UTF-8", "rows": 4, "where": "/q.csv"}
    result = {"left_out": {"rows_read": 200, "rows_left_out": 4, "groups": [group], "classes": []}}
    write_run("fraud-1", steps={step: {"status": "finished", "seconds": 1.0, "result": result}})
    said = fairlead("runs", "fraud-1").out
    assert "4 of 200 rows left out: content: byte 0xe9 is not UTF-8 (4); see /q.csv" in said


def test_a_run_of_another_process_is_followed_and_its_steps_output_is_shown(fairlead, write_run) -> None:
    steps = {"ingest": {"status": "finished", "seconds": 1.5}, "train": {"status": "failed", "seconds": 0.5}}
    error = {"headline": "row 7 is bad", "detail": "got x", "fix": "mend row 7"}
    folder = write_run("fraud-1", steps=steps | {"gate": {"status": "waiting"}}, error=error)
    lines = [{"event": "step_started", "step": step} for step in ("ingest", "train")]
    (folder / "log.txt").write_text(f"begin\n{json.dumps(lines[0])}\nreads\n    {json.dumps(lines[1])}\ntrains\n")
    assert fairlead("runs", "fraud-1", "--logs", "train").out.splitlines()[-1] == "trains"
    assert "reads" not in fairlead("runs", "fraud-1", "--logs", "train", "--json").json["log"]
    assert fairlead("runs", "fraud-1", "--logs", "gate", "--json").json["error"]["detail"] == "it is waiting"
    assert fairlead("runs", "fraud-1", "--logs", "x", "--json").json["error"]["code"] == "unknown_step"
    followed = fairlead("runs", "fraud-1", "--follow")
    assert (followed.code, " x train" in followed.out, "row 7 is bad" in followed.err) == (1, True, True)
    assert "fairlead run --resume fraud-1" in followed.err


def test_a_run_is_cancelled_with_its_steps(fairlead, write_run, tmp_path) -> None:
    pid_file = tmp_path / "pid"
    code = "import subprocess, sys, time\n"
    code += "step = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    code += f"open({str(pid_file)!r}, 'w').write(str(step.pid))\ntime.sleep(60)\n"
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    while not (pid_file.exists() and pid_file.read_text()):
        time.sleep(0.05)
    write_run("fraud-1", status="running", pid=child.pid, process_started=process_start(child.pid))
    threading.Thread(target=child.wait, daemon=True).start()  # as the process that started it would
    assert fairlead("runs", "fraud-1", "--cancel").code == 0
    assert _ended(int(pid_file.read_text()))
    assert find_run_status(fairlead) == "dead"
    assert fairlead("runs", "fraud-1", "--cancel", "--json").json["error"]["code"] == "ended"


def find_run_status(fairlead) -> str:
    return str(fairlead("runs", "fraud-1", "--json").json["status"])


def test_an_interrupt_waits_until_what_must_be_stopped_is_known() -> None:
    seen = []

    def start() -> None:
        with interrupts_wait():
            os.kill(os.getpid(), signal.SIGINT)
            seen.append("started")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert seen == ["started"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
