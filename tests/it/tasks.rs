//! Task definitions through the binary: the examples, exit codes, order of stopping, bad input.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::strict_cloudwatch::CloudWatch;
use crate::support::cloudwatch::key;
use crate::support::eventually;

const PROGRAM: &str = env!("CARGO_BIN_EXE_firelane");
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tasks");

/// `firelane task run` with the output directory and the files of the task in `dir`.
fn command(dir: &Path, file: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["task", "run", file, "--runtime", "process", "--json", "--dir"]).arg(dir.join("d"));
    command.arg("--env").arg(format!("OUT_DIR={}", dir.join("out").display()));
    command
}

fn example(name: &str) -> String {
    format!("{EXAMPLES}/{name}.json")
}

fn view(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// The values of a field in a file of JSON lines.
fn field(dir: &Path, file: &str, field: &str) -> Vec<String> {
    let text = fs::read_to_string(dir.join("out").join(file)).unwrap();
    let value = |line: &str| {
        serde_json::from_str::<Value>(line).unwrap()[field].as_str().unwrap_or_default().to_owned()
    };
    text.lines().map(value).collect()
}

/// What the routers have said.
fn routers(dir: &Path) -> String {
    let tasks = fs::read_dir(dir.join("d")).unwrap().map(|e| e.unwrap().path());
    tasks.filter_map(|t| fs::read_to_string(t.join("logs/log_router-json.log")).ok()).collect()
}

/// Nothing of the task is left but its logs.
fn assert_clean(dir: &Path) {
    let task = fs::read_dir(dir.join("d"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| !p.ends_with("firelens"))
        .unwrap();
    assert!(!task.join("supervisor.sock").exists(), "the supervisor is there");
    assert_eq!(fs::read_dir(dir.join("d/firelens")).map_or(0, Iterator::count), 0);
}

/// A definition of one container that logs to a file of its own, with these fields.
fn alone(dir: &Path, fields: &Value) -> String {
    let mut container =
        json!({"name": "app", "image": "busybox", "memory": 32, "entryPoint": ["/bin/sh", "-c"]});
    container.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let file = dir.join("task.json");
    fs::write(&file, json!({"family": "alone", "containerDefinitions": [container]}).to_string()).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn lines_of_an_app_arrive_through_its_router_with_the_tasks_metadata() {
    let dir = tempfile::tempdir().unwrap();
    let output = command(dir.path(), &example("hello")).output().unwrap();
    let view = view(&output);
    assert_eq!(output.status.code(), Some(0), "{view}");
    // Two pipes: the order within each is known, and no more.
    let sources = field(dir.path(), "app.log", "source");
    let logs = field(dir.path(), "app.log", "log");
    let (errors, lines): (Vec<_>, Vec<_>) =
        logs.into_iter().zip(sources).partition(|(_, source)| source == "stderr");
    let text = |of: Vec<(String, String)>| of.into_iter().map(|(log, _)| log).collect::<Vec<_>>();
    assert_eq!(
        (text(lines), text(errors)),
        (vec!["hello 1".into(), "hello 2".into(), "hello 3".into()], vec!["an error".into()])
    );
    let arns = field(dir.path(), "app.log", "ecs_task_arn");
    assert!(arns.iter().all(|arn| *arn == view["taskArn"]), "{arns:?}");
    assert_eq!(field(dir.path(), "app.log", "ecs_task_definition")[0], "hello:1");
    let codes: Vec<_> =
        view["containers"].as_array().unwrap().iter().map(|c| c["exitCode"].as_i64()).collect();
    assert_eq!(codes, [Some(0), Some(0)]);
    assert_eq!(
        (&view["stopCode"], &view["lastStatus"]),
        (&json!("EssentialContainerExited"), &json!("STOPPED"))
    );
    assert_clean(dir.path());
}

#[test]
fn two_apps_have_their_own_outputs_and_patterns() {
    let dir = tempfile::tempdir().unwrap();
    let output = command(dir.path(), &example("two-apps")).output().unwrap();
    let view = view(&output);
    assert_eq!(output.status.code(), Some(0), "{view}");
    let web = field(dir.path(), "web.log", "log");
    assert_eq!(web.len(), 40);
    assert!(web.iter().all(|line| line.contains("/items/")), "{web:?}");
    let worker = fs::read_to_string(dir.path().join("out/worker.log")).unwrap();
    assert_eq!(worker.lines().filter(|l| l.ends_with(" done\"")).count(), 20, "{worker}");
    assert_eq!(view["containers"][1]["exitCode"], 7);
}

#[test]
fn the_users_own_configuration_joins_stack_traces() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path(), &example("multiline"));
    let output = command.args(["--volume", &format!("conf={EXAMPLES}")]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", view(&output));
    let logs = field(dir.path(), "java.log", "log");
    assert_eq!(logs.len(), 3, "{logs:?}");
    assert!(logs[1].starts_with("Exception in thread") && logs[1].contains("Shop.java:7"), "{logs:?}");
}

#[test]
fn a_chain_of_conditions_starts_in_order_and_stops_in_reverse() {
    let dir = tempfile::tempdir().unwrap();
    let output = command(dir.path(), &example("chain")).output().unwrap();
    let view = view(&output);
    assert_eq!(output.status.code(), Some(0), "{view}");
    assert_eq!(field(dir.path(), "chain.log", "log"), ["migrated", "app after migration with database"]);
    let finished: Vec<i64> = ["app", "db", "log_router"]
        .iter()
        .map(|name| {
            let all = view["containers"].as_array().unwrap();
            all.iter().find(|c| c["name"] == **name).unwrap()["finishedAt"].as_i64().unwrap()
        })
        .collect();
    assert!(finished.is_sorted(), "{finished:?}");
    assert_eq!(view["containers"][1]["healthStatus"], "HEALTHY");
}

#[test]
fn logs_go_to_cloudwatch_by_the_awslogs_driver_and_as_metrics_through_the_router() {
    let aws = CloudWatch::start();
    let dir = tempfile::tempdir().unwrap();
    let mut task: Value = serde_json::from_str(&fs::read_to_string(example("awslogs")).unwrap()).unwrap();
    task["containerDefinitions"][0]["logConfiguration"]["options"]["awslogs-region"] = json!("eu-west-1");
    let file = dir.path().join("awslogs.json");
    fs::write(&file, task.to_string()).unwrap();
    let mut logs = command(dir.path(), file.to_str().unwrap());
    let output = logs.envs(key()).args(["--endpoint", &aws.endpoint()]).output().unwrap();
    let view = view(&output);
    assert_eq!(output.status.code(), Some(0), "{view}");
    let id = view["taskArn"].as_str().unwrap().rsplit('/').next().unwrap();
    let stream = format!("example/app/{id}");
    let messages = eventually("the lines", || {
        let messages = aws.messages("/ecs/awslogs", &stream);
        (messages.len() >= 3).then_some(messages)
    });
    assert_eq!(messages, ["line 1", "line 2", "line 3"]);

    let file = dir.path().join("emf.json");
    fs::write(&file, fs::read_to_string(example("emf")).unwrap().replace("us-east-1", "eu-west-1")).unwrap();
    let mut emf = command(dir.path(), file.to_str().unwrap());
    for (name, value) in key() {
        emf.arg("--env").arg(format!("{name}={value}"));
    }
    emf.arg("--env").arg(format!("CLOUDWATCH_ENDPOINT={}", aws.endpoint()));
    let output = emf.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let call = aws.calls("PutLogEvents").into_iter().find(|c| c.group == "/ecs/emf").unwrap();
    assert_eq!((call.format.as_str(), call.events), ("json/emf", 1));
}

#[test]
fn the_exit_code_is_the_essential_containers_and_a_signal_shows_as_docker_shows_it() {
    let dir = tempfile::tempdir().unwrap();
    for (script, code) in [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137)] {
        let file = alone(dir.path(), &json!({"command": [script]}));
        let output = command(dir.path(), &file).output().unwrap();
        assert_eq!(
            (output.status.code(), &view(&output)["containers"][0]["exitCode"]),
            (Some(code), &json!(code))
        );
    }
}

#[test]
fn an_interrupt_stops_the_task_in_order_and_a_stubborn_container_is_killed_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let script = format!("trap '' TERM; touch {}/up; while :; do sleep 0.1; done", dir.path().display());
    let file = alone(dir.path(), &json!({"command": [script], "stopTimeout": 1}));
    let mut command = command(dir.path(), &file);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the container runs", || dir.path().join("up").exists().then_some(()));
    send(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    let view = view(&output);
    assert_eq!((output.status.code(), output.status.signal()), (Some(0), None), "{view}");
    assert_eq!(
        (&view["containers"][0]["exitCode"], &view["stopCode"]),
        (&json!(137), &json!("UserInitiated"))
    );
    assert_eq!(view["stoppedReason"], "Task stopped by user");
    assert_clean(dir.path());
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), signal).unwrap();
}

#[test]
fn the_end_of_the_terminal_stops_the_task_in_order_unless_nohup_has_said_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let (up, go) = (dir.path().join("up"), dir.path().join("go"));
    let script =
        format!("touch '{}'; until [ -e '{}' ]; do sleep 0.05; done; exit 7", up.display(), go.display());
    let file = alone(dir.path(), &json!({"command": [script]}));
    let mut plain = command(dir.path(), &file);
    let child = plain.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the container runs", || up.exists().then_some(()));
    send(&child, Signal::HUP);
    let output = child.wait_with_output().unwrap();
    let stopped = view(&output);
    assert_eq!((output.status.code(), output.status.signal()), (Some(0), None), "{stopped}");
    assert_eq!(stopped["stopCode"], "UserInitiated");

    fs::remove_file(&up).unwrap();
    let mut nohup = Command::new("/bin/sh");
    nohup.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", PROGRAM]).args(plain.get_args());
    let child = nohup.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the container runs", || up.exists().then_some(()));
    send(&child, Signal::HUP);
    fs::write(&go, "").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.status.signal()), (Some(7), None), "{}", view(&output));
}

#[test]
fn a_command_that_is_killed_takes_its_task_with_it_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (up, out) = (dir.path().join("up"), dir.path().join("out"));
    // What docker's driver has not sent when its container ends is lost, so it waits until the line has arrived.
    let script = format!(
        "trap 'echo last words; until [ -s {out}/app.log ]; do sleep 0.05; done; exit 0' TERM
        echo $$ > '{up}.new'; mv '{up}.new' '{up}'; while :; do sleep 0.05; done",
        out = out.display(),
        up = up.display()
    );
    let log = json!({"Name": "file", "Path": out, "File": "app.log", "mkdir": "true"});
    let task = json!({"family": "killed", "containerDefinitions": [
        {"name": "log_router", "image": "aws-for-fluent-bit", "memory": 64,
         "firelensConfiguration": {"type": "fluentbit"}},
        {"name": "app", "image": "busybox", "memory": 32, "entryPoint": ["/bin/sh", "-c"], "command": [script],
         "logConfiguration": {"logDriver": "awsfirelens", "options": log}}]});
    let file = dir.path().join("killed.json");
    fs::write(&file, task.to_string()).unwrap();
    let mut command = command(dir.path(), file.to_str().unwrap());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = eventually("the app runs", || fs::read_to_string(&up).ok());
    child.kill().unwrap();
    child.wait().unwrap();
    let task = fs::read_dir(dir.path().join("d"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| !p.ends_with("firelens"))
        .unwrap();
    eventually("the supervisor has ended", || (!task.join("supervisor.sock").exists()).then_some(()));
    assert!(fs::read_to_string(out.join("app.log")).unwrap().contains("last words"));
    let status = || fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap_or_default();
    eventually("the app has gone", || (status().is_empty() || status().contains("State:\tZ")).then_some(()));
    assert_clean(dir.path());
    assert!(task.join("logs").exists() && !task.join("image").exists());
    let said = fs::read_to_string(task.join("supervisor.log")).unwrap();
    assert!(said.contains("the agent of the task has gone"), "{said}");
}

#[test]
fn a_program_that_is_not_there_is_told_in_ecss_words_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = alone(dir.path(), &json!({"entryPoint": ["/no/such/program"]}));
    let output = command(dir.path(), &file).output().unwrap();
    let view = view(&output);
    assert_eq!(output.status.code(), Some(1), "{view}");
    assert_eq!(
        (&view["stopCode"], &view["stoppedReason"]),
        (&json!("TaskFailedToStart"), &json!("Task failed to start"))
    );
    let reason = view["containers"][0]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("CannotStartContainerError: ") && reason.contains("/no/such/program"),
        "{reason}"
    );
    assert_clean(dir.path());
}

#[test]
fn what_ecs_would_refuse_is_refused_whole_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let file = alone(
        dir.path(),
        &json!({"comand": ["x"], "memory": 3, "versionConsistency": "disabled", "dependsOn": [{"containerName": "db", "condition": "STARTED"}]}),
    );
    for command in [vec!["task", "check", &file], vec!["task", "run", &file], vec!["agent", "run", &file]] {
        let output = Command::new(PROGRAM).args(&command).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        for part in [
            "containerDefinitions[0].comand: unknown field; did you mean \"command\"?",
            "containerDefinitions[0].memory: must be at least 6 MiB",
            "containerDefinitions[0].dependsOn[0].condition: must be one of START",
            // Warnings do not wait until nothing is wrong.
            "warning: ",
            "containerDefinitions[0].versionConsistency: has no effect on one machine",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}

#[test]
fn the_examples_are_such_as_ecs_takes_and_plugins_that_are_not_built_are_named() {
    let files = fs::read_dir(EXAMPLES).unwrap().map(|e| e.unwrap().path());
    let files: Vec<_> = files.filter(|f| f.extension() == Some("json".as_ref())).collect();
    assert!(files.len() >= 6);
    let output = Command::new(PROGRAM).args(["task", "check"]).args(&files).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert_eq!(text.lines().count(), 1, "only the EFS volume: {text}");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("task.json");
    let task = fs::read_to_string(example("hello")).unwrap();
    fs::write(&file, task.replace("\"Name\": \"file\"", "\"Name\": \"datadog\"")).unwrap();
    let output = Command::new(PROGRAM).args(["task", "check"]).arg(&file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("containerDefinitions[0].logConfiguration.options: output \"datadog\""), "{text}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_router_that_cannot_start_says_why_at_the_end_wherever_its_log_goes() {
    let dir = tempfile::tempdir().unwrap();
    let output = json!({"Name": "firehose", "delivery_stream": "s", "region": "eu-west-1"});
    let task = json!({"family": "missing", "containerDefinitions": [
        {"name": "app", "image": "busybox", "memory": 32, "command": ["sleep", "60"],
         "logConfiguration": {"logDriver": "awsfirelens", "options": output}},
        {"name": "log_router", "image": "aws-for-fluent-bit", "memory": 64,
         "firelensConfiguration": {"type": "fluentbit"}, "logConfiguration": {"logDriver": "none"}}]});
    let file = dir.path().join("missing.json");
    fs::write(&file, task.to_string()).unwrap();
    let output = command(dir.path(), file.to_str().unwrap()).output().unwrap();
    let end = view(&output);
    assert_eq!((output.status.code(), &end["containers"][1]["exitCode"]), (Some(2), &json!(2)), "{end}");
    let words = end["containers"][1]["lastWords"].to_string();
    assert!(words.contains("output \\\"firehose\\\" of Fluent Bit is not built into firelane"), "{words}");
    assert!(end["containers"][0].get("lastWords").is_none(), "{end}");
    let run = ["task", "run", file.to_str().unwrap(), "--runtime", "process", "--dir"];
    let table = Command::new(PROGRAM).args(run).arg(dir.path().join("d")).output().unwrap();
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("\nlast words of log_router:\n  ") && table.contains("firehose"), "{table}");
    assert_clean(dir.path());
}

#[test]
fn an_essential_container_that_is_told_to_stop_does_not_give_its_code_to_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let container = |name: &str, script: &str| {
        json!({"name": name, "image": "busybox", "memory": 32,
        "entryPoint": ["/bin/sh", "-c"], "command": [script]})
    };
    // The one that is stopped stands before the one that ends.
    for (script, code) in [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)] {
        let task = json!({"family": "pair", "containerDefinitions": [
            container("first", "exec sleep 60"), container("second", script)]});
        let file = dir.path().join("pair.json");
        fs::write(&file, task.to_string()).unwrap();
        let output = command(dir.path(), file.to_str().unwrap()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", view(&output));
        assert_eq!(view(&output)["containers"][0]["exitCode"], 143);
    }
}

#[test]
fn several_tasks_at_once_have_each_their_own_router() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path(), &example("hello"));
    let output = command.args(["--count", "3"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!((output.status.code(), text.lines().count()), (Some(0), 3), "{text}");
    let mut arns = field(dir.path(), "app.log", "ecs_task_arn");
    assert_eq!(arns.len(), 12, "{text}{}", routers(dir.path()));
    arns.sort();
    arns.dedup();
    assert_eq!(arns.len(), 3);
}

#[test]
fn what_cannot_be_prepared_stops_the_task_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // A file where the directory of the router's files has to be, as a full disk would have it: nothing can be made there.
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("d/firelens"), "").unwrap();
    let output = command(dir.path(), &example("hello")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("ResourceInitializationError: unable to create firelens config file: "), "{said}");
    let left: Vec<_> = fs::read_dir(dir.path().join("d")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["firelens"]);
}

#[test]
fn every_line_is_followed_while_files_are_rotated_and_long_ones_are_whole() {
    let dir = tempfile::tempdir().unwrap();
    // Forty files and more, packed as they are rotated, all kept.
    let script = "i=0; while [ $i -lt 2000 ]; do echo line $i of many; i=$((i+1)); done
        printf %040000d 7; echo; echo the end";
    let options = json!({"max-size": "4k", "max-file": "200", "compress": "true"});
    let log = json!({"logDriver": "json-file", "options": options});
    let file = alone(dir.path(), &json!({"command": [script], "logConfiguration": log}));
    let output = command(dir.path(), &file).arg("--follow").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let logs = fs::read_dir(dir.path().join("d")).unwrap().map(|e| e.unwrap().path().join("logs"));
    let files = logs.flat_map(|d| fs::read_dir(d).into_iter().flatten()).count();
    assert!(files > 40, "{files}");
    let mut want: Vec<String> = (0..2000).map(|n| format!("app | line {n} of many")).collect();
    want.push(format!("app | {}7", "0".repeat(39_999)));
    want.push("app | the end".to_owned());
    let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("app | ")).collect();
    assert_eq!(lines.len(), want.len(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(lines == want);
}

#[test]
fn a_command_that_finds_no_engine_leaves_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    let file = alone(dir.path(), &json!({"command": ["true"]}));
    let tmp = dir.path().join("tmp");
    fs::create_dir(&tmp).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["task", "run", &file, "--runtime", "docker"]).env("TMPDIR", &tmp);
    let output = command.env("DOCKER_HOST", "unix:///no/such/docker.sock").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("/no/such/docker.sock"), "{said}");
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0);
}

#[test]
fn a_role_that_cannot_be_taken_on_is_told_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    let script = format!("until [ -e '{}' ]; do sleep 0.05; done", go.display());
    let file = alone(dir.path(), &json!({"command": [script]}));
    let mut command = command(dir.path(), &file);
    command.args(["--task-role", "shop"]).env("HOME", dir.path()).env("AWS_EC2_METADATA_DISABLED", "true");
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"] {
        command.env_remove(name);
    }
    // The SDK has a warning, or two, for each of our attempts.
    let config = dir.path().join("config");
    fs::write(&config, "[default]\ncredential_process = /bin/false\n").unwrap();
    command.env("AWS_CONFIG_FILE", &config);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap) {
        if line.contains("task role arn:aws:iam::000000000000:role/shop: ") {
            fs::write(&go, "").unwrap();
        }
        said += &line;
        said.push('\n');
    }
    assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
    assert!(said.contains("give the agent some that may take it on"), "{said}");
    assert!(!said.contains("provider failed"), "{said}");
    assert_eq!(said.lines().filter(|line| line.contains(" warn ")).count(), 1, "{said}");
}
