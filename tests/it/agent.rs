//! The daemon through the binary: what it takes it runs once, whatever becomes of it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::eventually;

const PROGRAM: &str = env!("CARGO_BIN_EXE_firelane");

/// A daemon; killed when it is dropped. Its tasks are not.
struct Daemon {
    child: Child,
    state: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended.
        let _gone = self.child.kill();
        self.child.wait().unwrap();
    }
}

impl Daemon {
    fn start(dir: &Path) -> Daemon {
        let state = dir.join("state");
        let log = fs::File::options().create(true).append(true).open(dir.join("agent.log")).unwrap();
        let child = Command::new(PROGRAM)
            .args(["agent", "--state"])
            .arg(&state)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let daemon = Daemon { child, state };
        eventually("the daemon answers", || (daemon.ask(&["ps"]).status.success()).then_some(()));
        daemon
    }

    fn ask(&self, words: &[&str]) -> Output {
        let (first, rest) = words.split_first().unwrap();
        Command::new(PROGRAM).args(["agent", first, "--state"]).arg(&self.state).args(rest).output().unwrap()
    }

    /// What it prints, when it succeeds.
    fn says(&self, words: &[&str]) -> String {
        let output = self.ask(words);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{words:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    fn tasks(&self, words: &[&str]) -> Vec<Value> {
        let text = self.says(&[&["ps", "--json"], words].concat());
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn view(&self) -> Value {
        self.tasks(&["--all"]).remove(0)["view"].clone()
    }
}

fn definition(dir: &Path, script: &str, log: &Value) -> String {
    let file = dir.join("task.json");
    let router = json!({"name": "log_router", "image": "x", "memory": 64, "firelensConfiguration": {"type": "fluentbit"}});
    let app = json!({"name": "app", "image": "x", "memory": 64, "entryPoint": ["/bin/sh", "-c"], "command": [script],
        "logConfiguration": log});
    let mut containers = vec![app];
    if log["logDriver"] == "awsfirelens" {
        containers.push(router);
    }
    fs::write(&file, json!({"family": "it", "containerDefinitions": containers}).to_string()).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn a_daemon_killed_while_an_app_writes_finds_the_same_processes_and_every_line_arrives_once() {
    let dir = tempfile::tempdir().unwrap();
    let (out, more, end) = (dir.path().join("out"), dir.path().join("go on"), dir.path().join("end"));
    // At its end docker's driver discards what is queued, so it ends when all has arrived.
    let script = format!(
        "wait() {{ until [ -e \"$1\" ]; do sleep 0.1; done; }}
        i=0; while [ $i -lt 100000 ]; do echo line $i; i=$((i+1)); [ $i = 50000 ] && wait '{}'; done
        wait '{}'; exit 7",
        more.display(),
        end.display()
    );
    let log = json!({"logDriver": "awsfirelens", "options":
        {"Name": "file", "Path": out, "File": "app.log", "Format": "plain", "mkdir": "true"}});
    let daemon = Daemon::start(dir.path());
    let arn = daemon.says(&["run", "--runtime", "process", &definition(dir.path(), &script, &log)]);
    let lines = || fs::read_to_string(out.join("app.log")).map_or(0, |text| text.lines().count());
    eventually("the first lines are there", || (lines() > 0).then_some(()));
    let pids = |view: &Value| -> Vec<Value> {
        view["containers"].as_array().unwrap().iter().map(|c| c["pid"].clone()).collect()
    };
    let before = daemon.view();
    drop(daemon);
    let daemon = Daemon::start(dir.path());
    eventually("the second daemon sees the task running", || {
        (daemon.view()["lastStatus"] == "RUNNING").then_some(())
    });
    assert_eq!(pids(&before), pids(&daemon.view()));
    assert!(pids(&before).iter().all(Value::is_i64), "{before}");
    fs::write(more, "").unwrap();
    eventually("all lines are there", || (lines() == 100_000).then_some(()));
    fs::write(end, "").unwrap();
    eventually("the task has ended", || (!daemon.tasks(&["--all"])[0]["stoppedAt"].is_null()).then_some(()));
    let view = daemon.view();
    assert_eq!(
        (&view["containers"][0]["exitCode"], &view["containers"][1]["exitCode"]),
        (&json!(7), &json!(0))
    );
    let text = fs::read_to_string(out.join("app.log")).unwrap();
    let log = |line: &str| serde_json::from_str::<Value>(line).unwrap()["log"].as_str().unwrap().to_owned();
    assert!(text.lines().map(log).eq((0..100_000).map(|n| format!("line {n}"))));
    let state: Value = daemon.tasks(&["--all"]).remove(0);
    assert_eq!(state["arn"].as_str().unwrap(), arn.trim());
    // The values of secrets go with the task.
    let record =
        fs::read_to_string(daemon.state.join(format!("records/{}.json", state["id"].as_str().unwrap())))
            .unwrap();
    assert!(record.contains("\"planned\":null"), "{record}");
}

#[test]
fn a_task_whose_supervisor_died_with_the_daemon_is_not_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path());
    let starts = dir.path().join("starts");
    let script = format!("echo once >> '{}'; sleep 600", starts.display());
    daemon.says(&["run", "--runtime", "process", &definition(dir.path(), &script, &Value::Null)]);
    eventually("the app runs", || {
        (starts.exists() && daemon.view()["lastStatus"] == "RUNNING").then_some(())
    });
    let pid = i32::try_from(daemon.view()["containers"][0]["pid"].as_i64().unwrap()).unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status.lines().find_map(|l| l.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    drop(daemon);
    let parent = rustix::process::Pid::from_raw(parent).unwrap();
    rustix::process::kill_process(parent, rustix::process::Signal::KILL).unwrap();
    let daemon = Daemon::start(dir.path());
    eventually("the task has ended", || (!daemon.tasks(&["--all"])[0]["stoppedAt"].is_null()).then_some(()));
    let view = daemon.view();
    assert!(
        view["containers"][0]["reason"].as_str().unwrap().starts_with("ContainerVanishedError"),
        "{view}"
    );
    assert_eq!(fs::read_to_string(starts).unwrap(), "once\n");
    // Whoever inherits it may take a while to collect it.
    let status = || fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    eventually("the app has gone with its supervisor", || {
        (status().is_empty() || status().contains("State:\tZ")).then_some(())
    });
}

#[test]
fn tasks_are_listed_followed_and_stopped_and_a_wish_outlives_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path());
    let file = definition(dir.path(), "echo hello; echo again; exec sleep 600", &Value::Null);
    let arn = daemon.says(&["run", "--runtime", "process", &file, "--count", "2"]);
    let ids: Vec<&str> = arn.lines().map(|l| l.rsplit('/').next().unwrap()).collect();
    assert_eq!(ids.len(), 2);
    eventually("both run", || {
        (daemon.tasks(&[]).iter().all(|t| t["view"]["lastStatus"] == "RUNNING")).then_some(())
    });
    eventually("the lines are there", || (daemon.says(&["logs", ids[0]]).lines().count() == 2).then_some(()));
    assert_eq!(daemon.says(&["logs", ids[0], "app"]), "app | hello\napp | again\n");
    let refused = daemon.ask(&["logs", ids[0], "other"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("it has app"));
    let refused = daemon.ask(&["stop", "nothing"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("there is no task nothing"));
    assert_eq!(refused.status.code(), Some(1));
    let table = daemon.says(&["ps"]);
    assert!(table.lines().count() == 3 && table.contains("app=RUNNING"), "{table}");
    daemon.says(&["stop", "--reason", "no longer wanted", ids[0]]);
    assert_eq!(daemon.tasks(&[]).len(), 1);
    let stopped = daemon.tasks(&["--all"]).into_iter().find(|t| t["id"] == ids[0]).unwrap();
    assert_eq!(stopped["view"]["stoppedReason"], "no longer wanted");
    // The next daemon finds the wish on disk.
    daemon.says(&["stop", "--no-wait", ids[1]]);
    drop(daemon);
    let daemon = Daemon::start(dir.path());
    eventually("nothing runs", || (daemon.tasks(&[]).is_empty()).then_some(()));
    let output = daemon.ask(&[
        "run",
        "--runtime",
        "process",
        "--wait",
        &definition(dir.path(), "exit 5", &Value::Null),
    ]);
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stdout));
}

/// An app that writes down where it may ask for metadata, and ends when `end` is there.
fn asking(told: &Path, end: &Path) -> String {
    format!(
        "echo \"$ECS_CONTAINER_METADATA_URI_V4\" > '{0}.new'; mv '{0}.new' '{0}'; until [ -e '{1}' ]; do sleep 0.1; done",
        told.display(),
        end.display()
    )
}

/// What a metadata endpoint says.
fn get(address: &str, what: &str) -> Value {
    let (host, path) = address.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "GET /{path}/{what} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[test]
fn tags_are_such_as_ecs_takes_and_are_seen_with_the_task_where_they_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (told, end) = (dir.path().join("told"), dir.path().join("end"));
    let script = asking(&told, &end);
    let daemon = Daemon::start(dir.path());
    let file = definition(dir.path(), &script, &json!({"logDriver": "none"}));
    let run = |tags: &[String]| {
        let tags = tags.iter().flat_map(|tag| ["--tag", tag]);
        let words: Vec<&str> = ["run", "--runtime", "process", &file].into_iter().chain(tags).collect();
        daemon.ask(&words)
    };
    let many: Vec<String> = (0..51).map(|n| format!("k{n}=v")).collect();
    for (tags, why) in [
        (&["team".to_owned()][..], "it must be NAME=VALUE"),
        (&["=shop".to_owned()], "its name is empty"),
        (&["AWS:team=shop".to_owned()], "its key must not begin with aws:"),
        (&[format!("{}=shop", "k".repeat(129))], "its key must have at most 128 characters, not 129"),
        (&[format!("team={}", "v".repeat(257))], "its value must have at most 256 characters, not 257"),
        (
            &["team=shop".to_owned(), "team=bakery".to_owned()],
            "--tag team=bakery: the task has a tag of this key",
        ),
        (&many, "a task has at most 50 tags, not 51"),
    ] {
        let output = run(tags);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(why), "{why}: {text}");
    }
    assert!(daemon.tasks(&["--all"]).is_empty());

    assert!(run(&["team=shop = bakery".to_owned(), "empty=".to_owned()]).status.success());
    let address = eventually("the app is told where to ask", || fs::read_to_string(&told).ok());
    let task = get(address.trim(), "taskWithTags");
    assert_eq!(task["TaskTags"], json!({"team": "shop = bakery", "empty": ""}));
    assert_eq!(get(address.trim(), "task").get("TaskTags"), None);
    fs::write(end, "").unwrap();
    eventually("the task has ended", || (daemon.view()["lastStatus"] == "STOPPED").then_some(()));
}

#[test]
fn containers_find_the_next_daemon_where_the_last_one_was() {
    let dir = tempfile::tempdir().unwrap();
    let (told, end) = (dir.path().join("told"), dir.path().join("end"));
    let script = asking(&told, &end);
    let daemon = Daemon::start(dir.path());
    let arn = daemon.says(&["run", &definition(dir.path(), &script, &json!({"logDriver": "none"}))]);
    let address = eventually("the app is told where to ask", || fs::read_to_string(&told).ok());
    let task = || get(address.trim(), "task");
    // The app speaks as soon as it runs, the daemon hears of it a moment later.
    let running = || Some(task()).filter(|task| task["KnownStatus"] == "RUNNING");
    let before = eventually("the first daemon knows that it runs", running);
    assert_eq!(before["TaskARN"], json!(arn.trim()));
    drop(daemon);
    let daemon = Daemon::start(dir.path());
    let after = eventually("the second daemon knows the task", running);
    assert_eq!(before, after);
    fs::write(end, "").unwrap();
    eventually("the task has ended", || (daemon.view()["lastStatus"] == "STOPPED").then_some(()));
}

/// A task that ends with 3, with a field that has no effect here, and a container with another.
fn privileged(dir: &Path) -> String {
    let file = definition(dir, "echo a line; exit 3", &Value::Null);
    let mut task: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    task["containerDefinitions"][0]["privileged"] = json!(true);
    task["tags"] = json!([{"key": "team", "value": "shop"}]);
    fs::write(&file, task.to_string()).unwrap();
    file
}

#[test]
fn what_is_not_as_on_ecs_is_told_to_who_runs_a_task_and_in_the_log_of_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path());
    let file = privileged(dir.path());
    let before = "--exec nope: the task definition has no such container";
    let of_the_file = "tags: has no effect on one machine";
    let at_work = "container app: privileged has no effect";
    let said = |words: &[&str]| {
        let words =
            [&["run", "--runtime", "process", "--exec", "nope=x", "--image", "app=x", &file], words].concat();
        let output = daemon.ask(&words);
        let code = if words.contains(&"--wait") || words.contains(&"--follow") { 3 } else { 0 };
        assert_eq!(output.status.code(), Some(code));
        String::from_utf8(output.stderr).unwrap()
    };
    let plain = said(&["--count", "2"]);
    assert_eq!(plain.matches(&format!("warning: {before}\n")).count(), 1, "{plain}");
    assert!(plain.contains("warning: --router-image and --image have no effect"), "{plain}");
    assert_eq!(plain.matches(of_the_file).count(), 1, "{plain}");
    for flag in ["--wait", "--follow"] {
        let text = said(&[flag]);
        assert!(text.contains(&format!("warning: {before}\n")), "{text}");
        assert_eq!(text.matches(&format!("warning: {at_work}")).count(), 1, "{text}");
    }
    let log = fs::read_to_string(dir.path().join("agent.log")).unwrap();
    assert!([of_the_file, before, at_work].iter().all(|warning| log.contains(warning)), "{log}");
}

#[test]
fn json_of_a_task_stands_alone_on_standard_output() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path());
    let file = privileged(dir.path());
    for (flags, code) in
        [(&[][..], 0), (&["--wait"], 3), (&["--follow"], 3), (&["--wait", "--count", "2"], 3)]
    {
        let words = [&["run", "--runtime", "process", "--json", &file], flags].concat();
        let output = daemon.ask(&words);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        let records: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{words:?}: {e}: {text}")))
            .collect();
        assert_eq!(records.len(), if flags.contains(&"2") { 2 } else { 1 }, "{text}");
        let arn = records[0]["arn"].as_str().unwrap();
        assert!(arn.starts_with("arn:aws:ecs:"), "{text}");
        let aside = String::from_utf8(output.stderr).unwrap();
        assert_eq!(aside.contains(arn), code == 3, "who waits knows what for: {aside}");
        assert_eq!(aside.contains("app | a line"), flags.contains(&"--follow"), "{aside}");
    }
}
