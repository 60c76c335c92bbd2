//! The process runtime with the binary as its supervisor and its router: what a container gets, what outlives an agent,
//! two FireLens tasks at once.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use firelane::agent::definition::{ContainerDefinition, HealthCheck, MountPoint, Volume, VolumeKind};
use firelane::agent::plan::{ContainerPlan, TaskPlan};
use firelane::agent::process::{ProcessRuntime, ProcessTask, log_path};
use firelane::agent::runtime::{ContainerState, HealthStatus, Runtime, Status, TaskHandle};
use firelane::rt::Tasks;

const PROGRAM: &str = env!("CARGO_BIN_EXE_firelane");
const PATIENCE: Duration = Duration::from_secs(60);

fn shell(name: &str, script: &str) -> ContainerPlan {
    ContainerPlan {
        definition: ContainerDefinition { name: name.into(), ..ContainerDefinition::default() },
        docker_name: format!("ecs-test-1-{name}-00"),
        exec: Some(vec!["sh".into(), "-c".into(), script.into()]),
        log_driver: "json-file".into(),
        ..ContainerPlan::default()
    }
}

fn plan(dir: &Path, id: &str) -> TaskPlan {
    TaskPlan { id: format!("{id}-{}", std::process::id()), dir: dir.join(id), ..TaskPlan::default() }
}

async fn open(plan: &TaskPlan) -> ProcessTask {
    ProcessRuntime::new(Path::new(PROGRAM), &Tasks::new()).open(plan).await.unwrap()
}

/// Waits for a state of a container.
async fn until(task: &ProcessTask, name: &str, done: impl Fn(&ContainerState) -> bool) -> ContainerState {
    let mut states = task.states();
    let waited =
        tokio::time::timeout(PATIENCE, states.wait_for(|s| s.containers.get(name).is_some_and(&done))).await;
    let states = waited.unwrap_or_else(|_| panic!("{name}: {:?}", task.states().borrow())).unwrap().clone();
    states.containers[name].clone()
}

async fn exit(task: &ProcessTask, name: &str) -> i32 {
    until(task, name, |s| s.status == Status::Exited).await.exit_code.unwrap()
}

/// Runs a container to its end: exit code and what it printed.
async fn run(task: &ProcessTask, dir: &Path, container: &ContainerPlan) -> (i32, String) {
    let name = &container.definition.name;
    task.create(container).await.unwrap();
    task.start(name).await.unwrap();
    let code = exit(task, name).await;
    let text = fs::read_to_string(log_path(dir, name)).unwrap();
    let log = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["log"].as_str().unwrap().to_owned()
    };
    (code, text.lines().map(log).collect())
}

#[tokio::test]
async fn a_container_has_dockers_environment_directory_and_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), "codes");
    let task = open(&plan).await;
    let mut app = shell("app", "pwd; env | sort; exit 3");
    app.environment = vec![("A".into(), "b c".into())];
    app.definition.hostname = Some("here".into());
    let (code, text) = run(&task, &plan.dir, &app).await;
    assert_eq!(code, 3);
    assert!(text.starts_with("/\nA=b c\nHOME="), "{text}");
    assert!(
        text.contains("\nHOSTNAME=here\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n")
    );
    assert_eq!(run(&task, &plan.dir, &shell("signal", "kill -9 $$")).await.0, 137);
    for (name, program, code) in [("none", "no-such-program", 127), ("text", "/etc/passwd", 126)] {
        let container = ContainerPlan { exec: Some(vec![program.into()]), ..shell(name, "") };
        task.create(&container).await.unwrap();
        assert_eq!(task.start(name).await.unwrap_err().name, "CannotStartContainerError");
        assert_eq!(task.states().borrow().containers[name].exit_code, Some(code));
    }
    task.close().await.unwrap();
    assert!(!plan.dir.join("supervisor.sock").exists() && log_path(&plan.dir, "app").exists());
}

#[tokio::test]
async fn mounts_are_where_they_belong_and_nothing_is_left_on_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let mut plan = plan(dir.path(), "mounts");
    plan.volumes = vec![Volume { name: "data".into(), kind: VolumeKind::Task }];
    let point = |path: &str, read_only| MountPoint {
        source_volume: "data".into(),
        container_path: path.into(),
        read_only,
    };
    let conf = dir.path().join("conf");
    fs::write(&conf, "from the agent\n").unwrap();
    let task = open(&plan).await;
    let mut writer =
        shell("writer", "echo shared > /no-such-top/data/f; cat /fluent-bit/etc/fluent-bit.conf");
    writer.definition.mount_points = vec![point("/no-such-top/data", false)];
    writer.binds = vec![(conf, "/fluent-bit/etc/fluent-bit.conf".into(), false)];
    assert_eq!(run(&task, &plan.dir, &writer).await, (0, "from the agent\n".to_owned()));
    let mut reader = shell(
        "reader",
        "cat /usr/share/no-such-dir/f; touch /usr/share/no-such-dir/g 2>&1; ls /usr/share/no-such-dir",
    );
    reader.definition.mount_points = vec![point("/usr/share/no-such-dir", true)];
    let (code, text) = run(&task, &plan.dir, &reader).await;
    assert!(code == 0 && text.starts_with("shared\n") && text.ends_with("f\n"), "{text}");
    task.close().await.unwrap();
    for path in ["/no-such-top", "/fluent-bit", "/usr/share/no-such-dir"] {
        assert!(!Path::new(path).exists(), "{path}");
    }
}

#[tokio::test]
async fn a_tmpfs_has_dockers_mount_options_and_those_of_the_definition() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), "tmpfs");
    let task = open(&plan).await;
    let options = |all: &[&str]| all.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>();
    let script = "grep ' /no-such-' /proc/self/mounts | grep -v ' /no-such-[ab][^ ]' | sort -k2; \
                  touch /no-such-b/x || echo refused";
    let mut app = shell("app", script);
    app.definition.linux_parameters.tmpfs = vec![
        ("/no-such-a".into(), 1, Vec::new()),
        ("/no-such-b".into(), 2, options(&["ro", "exec", "mode=0750"])),
    ];
    let (code, text) = run(&task, &plan.dir, &app).await;
    let mounts: Vec<&str> = text.lines().filter(|line| line.contains("tmpfs /no-such-")).collect();
    assert_eq!((code, mounts.len()), (0, 2), "{text}");
    let has = |line: &str, option: &str| {
        let all = line.split(' ').nth(3).unwrap_or_default();
        all.split(',').any(|o| o == option)
    };
    for option in ["rw", "noexec", "nosuid", "nodev", "size=1024k"] {
        assert!(has(mounts[0], option), "{option} in {text}");
    }
    for option in ["ro", "nosuid", "nodev", "size=2048k", "mode=750"] {
        assert!(has(mounts[1], option), "{option} in {text}");
    }
    assert!(!has(mounts[1], "noexec") && text.contains("refused"), "{text}");
    task.close().await.unwrap();
}

#[tokio::test]
async fn stop_is_sigterm_then_sigkill_for_all_that_a_container_has_started() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), "stop");
    let task = open(&plan).await;
    let gentle = shell("gentle", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done");
    let stubborn =
        shell("stubborn", "trap '' TERM; (setsid sleep 1000 & echo $!); while :; do sleep 0.05; done");
    for container in [&gentle, &stubborn] {
        task.create(container).await.unwrap();
        task.start(&container.definition.name).await.unwrap();
    }
    let log = |name: &str| log_path(&plan.dir, name);
    let printed = async |name: &str| {
        while fs::read_to_string(log(name)).unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::join!(printed("gentle"), printed("stubborn"));
    task.stop("gentle", PATIENCE).await.unwrap();
    task.stop("stubborn", Duration::from_millis(200)).await.unwrap();
    task.stop("stubborn", PATIENCE).await.unwrap();
    assert_eq!((exit(&task, "gentle").await, exit(&task, "stubborn").await), (5, 137));
    let text = fs::read_to_string(log("stubborn")).unwrap();
    let child: String =
        text.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
    assert!(!stat.contains("(sleep)") || stat.contains(") Z"), "{stat}");
    task.start("gentle").await.unwrap();
    assert_eq!(until(&task, "gentle", |s| s.status == Status::Running).await.starts, 2);
    task.stop("gentle", PATIENCE).await.unwrap();
    task.close().await.unwrap();
}

#[tokio::test]
async fn a_health_check_runs_where_the_container_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut plan = plan(dir.path(), "health");
    plan.volumes = vec![Volume { name: "v".into(), kind: VolumeKind::Task }];
    let task = open(&plan).await;
    let mut app = shell("app", "echo well > /only-here/state; exec sleep 1000");
    app.definition.mount_points =
        vec![MountPoint { source_volume: "v".into(), container_path: "/only-here".into(), read_only: false }];
    app.definition.health_check = Some(HealthCheck {
        command: vec!["CMD-SHELL".into(), "cat /only-here/state".into()],
        interval: 1,
        timeout: 5,
        retries: 1,
        start_period: 0,
    });
    task.create(&app).await.unwrap();
    task.start("app").await.unwrap();
    let well = |status| move |s: &ContainerState| s.health.as_ref().is_some_and(|h| h.status == status);
    let state = until(&task, "app", well(HealthStatus::Healthy)).await;
    assert_eq!(state.health.unwrap().output, "well\n");
    fs::remove_file(plan.dir.join("volumes/v/state")).unwrap();
    let state = until(&task, "app", well(HealthStatus::Unhealthy)).await;
    assert_eq!(state.health.unwrap().exit_code, Some(1));
    task.stop("app", PATIENCE).await.unwrap();
    task.close().await.unwrap();
}

/// Messages of Docker's driver on a unix socket, to the end of the connection.
fn receive(path: PathBuf) -> std::thread::JoinHandle<Vec<u8>> {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

const LINES: usize = 100_000;

/// The task that outlives its agent, in a directory that the agent is told of.
fn lasting(dir: &Path) -> (TaskPlan, ContainerPlan) {
    let plan = TaskPlan { id: "lasting".into(), dir: dir.join("lasting"), ..TaskPlan::default() };
    let script = format!("i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); done; exit 7");
    let mut app = shell("app", &script);
    app.log_driver = "fluentd".into();
    app.log_options = [
        ("fluentd-address", format!("unix://{}", dir.join("s").display())),
        ("fluentd-async", "true".into()),
        ("tag", "app-firelens-1".into()),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .into();
    (plan, app)
}

fn agent() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
#[ignore = "the agent that the next test kills; it runs as a process of its own"]
fn an_agent_to_be_killed() {
    let Some(dir) = std::env::var_os("AGENT_DIR").map(PathBuf::from) else { return };
    let (plan, app) = lasting(&dir);
    agent().block_on(async {
        let task = open(&plan).await;
        task.create(&app).await.unwrap();
        task.start("app").await.unwrap();
        let state = until(&task, "app", |s| s.status == Status::Running).await;
        fs::write(dir.join("new"), format!("{} {}", state.pid.unwrap(), state.id)).unwrap();
        fs::rename(dir.join("new"), dir.join("started")).unwrap();
        std::future::pending::<()>().await;
    });
}

#[test]
fn containers_outlive_an_agent_that_is_killed_and_every_line_comes_once() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = receive(dir.path().join("s"));
    let mut first = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process_runtime::an_agent_to_be_killed", "--ignored"])
        .env("AGENT_DIR", dir.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let before = super::support::eventually("the agent has started the container", || {
        fs::read_to_string(dir.path().join("started")).ok()
    });
    first.kill().unwrap();
    first.wait().unwrap();
    let (plan, app) = lasting(dir.path());
    agent().block_on(async {
        let task = open(&plan).await;
        let now = task.states().borrow().containers["app"].clone();
        assert_eq!(format!("{} {}", now.pid.unwrap(), now.id), before);
        assert_eq!(now.status, Status::Running, "the test is too slow for its container");
        assert!(task.create(&app).await.unwrap().is_empty(), "it is there already");
        task.start("app").await.unwrap();
        assert_eq!(exit(&task, "app").await, 7);
        assert_eq!(task.states().borrow().containers["app"].starts, 1);
        task.close().await.unwrap();
    });
    let bytes = receiver.join().unwrap();
    let (mut rest, mut next) = (bytes.as_slice(), 0);
    while let Some(at) = rest.windows(5).position(|w| w == b"line ") {
        rest = &rest[at + 5..];
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        assert_eq!(std::str::from_utf8(&rest[..digits]).unwrap(), next.to_string());
        next += 1;
    }
    assert_eq!(next, LINES);
}

#[tokio::test]
async fn containers_end_with_their_supervisor_and_the_task_can_be_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), "killed");
    let task = open(&plan).await;
    let app = shell("app", "sleep 1000 & wait");
    task.create(&app).await.unwrap();
    task.start("app").await.unwrap();
    let pid = until(&task, "app", |s| s.status == Status::Running).await.pid.unwrap();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let supervisor: i32 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(supervisor).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    task.states().wait_for(|s| s.gone).await.unwrap();
    assert_eq!(task.start("app").await.unwrap_err().name, "DockerStateError");
    let is_gone = || fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |s| s.contains(") Z"));
    while !is_gone() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let again = open(&plan).await;
    assert!(again.states().borrow().containers.is_empty());
    again.close().await.unwrap();
}

/// A container may use as much memory as it says, where this machine lets us limit it.
#[tokio::test]
async fn a_container_that_uses_up_its_memory_is_killed_and_says_so() {
    if fs::create_dir_all("/sys/fs/cgroup/memory/firelane").is_err() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path(), "oom");
    let task = open(&plan).await;
    // The shell becomes dd, whose one block is larger than all that there is.
    let mut app = shell("app", "exec dd if=/dev/zero of=/dev/null bs=200M count=1");
    app.definition.memory = Some(20);
    assert_eq!(run(&task, &plan.dir, &app).await.0, 137);
    assert!(task.states().borrow().containers["app"].oom);
    task.close().await.unwrap();
}

/// A FireLens task: its router writes what its app says into a file.
async fn firelens(dir: &Path, id: &str) -> (TaskPlan, ProcessTask) {
    let mut plan = plan(dir, id);
    plan.firelens = Some("router".into());
    let (conf, socket) = (dir.join(format!("{id}.conf")), dir.join(format!("{id}.socket")));
    fs::create_dir(&socket).unwrap();
    let out = dir.join(format!("{id}.out"));
    fs::write(
        &conf,
        format!(
            "\n[INPUT]\n    Name forward\n    unix_path /var/run/fluent.sock\n\n[INPUT]\n    Name forward\n    Listen 0.0.0.0\n    Port 24224\n\n[OUTPUT]\n    Name file\n    Match app-firelens*\n    File {}\n    Format template\n    Template {{log}}\n",
            out.display()
        ),
    )
    .unwrap();
    let task = open(&plan).await;
    let mut router = shell("router", "");
    router.exec = None;
    // What AWS's documents have stands for the task's own router.
    router.definition.health_check = Some(HealthCheck {
        command: vec!["CMD-SHELL".into(), "echo nc 127.0.0.1 8877".into()],
        interval: 1,
        timeout: 5,
        retries: 1,
        start_period: 0,
    });
    router.binds = vec![
        (conf, "/fluent-bit/etc/fluent-bit.conf".into(), false),
        (socket.clone(), "/var/run/".into(), false),
    ];
    let mut app = shell("app", &format!("i=0; while [ $i -lt 1000 ]; do echo {id} $i; i=$((i+1)); done"));
    app.log_driver = "fluentd".into();
    app.log_options = [
        ("fluentd-address", format!("unix://{}/fluent.sock", socket.display())),
        ("fluentd-async", "true".into()),
        ("fluentd-sub-second-precision", "true".into()),
        ("tag", format!("app-firelens-{id}")),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .into();
    for container in [&router, &app] {
        task.create(container).await.unwrap();
    }
    task.start("router").await.unwrap();
    while !socket.join("fluent.sock").exists() {
        assert_eq!(
            task.states().borrow().containers["router"].status,
            Status::Running,
            "{}",
            fs::read_to_string(log_path(&plan.dir, "router")).unwrap()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (plan, task)
}

#[tokio::test]
async fn two_firelens_tasks_at_once_have_each_line_at_its_own_router() {
    let dir = tempfile::tempdir().unwrap();
    let (first, one) = firelens(dir.path(), "one").await;
    let (second, two) = firelens(dir.path(), "two").await;
    assert_ne!(one.address("router").await, two.address("router").await);
    for (plan, task, id) in [(first, one, "one"), (second, two, "two")] {
        let address = task.address("router").await.unwrap();
        let asked = until(&task, "router", |s| s.health.as_ref().is_some_and(|h| !h.output.is_empty())).await;
        assert_eq!(asked.health.unwrap().output, format!("nc {address} 8877\n"));
        task.start("app").await.unwrap();
        assert_eq!(exit(&task, "app").await, 0);
        task.stop("router", PATIENCE).await.unwrap();
        assert_eq!(
            exit(&task, "router").await,
            0,
            "{}",
            fs::read_to_string(log_path(&plan.dir, "router")).unwrap()
        );
        let want: String = (0..1000).map(|n| format!("{id} {n}\n")).collect();
        assert_eq!(fs::read_to_string(dir.path().join(format!("{id}.out"))).unwrap(), want);
        task.close().await.unwrap();
    }
}
