//! The daemon without its socket: records, and how tasks are found and forgotten.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn record(id: &str, stopped_at: Option<i64>) -> Record {
    Record { id: id.to_owned(), stopped_at, planned: Some(planning::Planned::default()), ..Record::default() }
}

fn agent(dir: &Path) -> Arc<Agent> {
    let settings = Settings {
        state: dir.to_owned(),
        program: PathBuf::from("/nowhere"),
        keep: Duration::from_secs(3600),
    };
    Agent::open(settings).unwrap()
}

#[test]
fn a_directory_has_one_daemon_and_records_are_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert!(Store::open(dir.path()).unwrap_err().to_string().contains("another agent runs in"));
    store.write(&record("a", None), true).unwrap();
    let file = dir.path().join("records/a.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    drop(store);
    assert_eq!(Store::open(dir.path()).unwrap().read().unwrap(), [record("a", None)]);
}

#[test]
fn a_record_that_cannot_be_understood_is_put_aside_and_the_others_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.write(&record("a", None), false).unwrap();
    fs::write(dir.path().join("records/b.json"), "{\"id\":").unwrap();
    fs::write(dir.path().join("records/c.new"), "half").unwrap();
    assert_eq!(store.read().unwrap().len(), 1);
    assert!(dir.path().join("records/b.bad").exists());
}

#[test]
fn a_task_is_found_by_how_its_id_begins_and_by_its_arn() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for id in ["aa1", "aa2", "b1"] {
        store.write(&record(id, Some(1)), false).unwrap();
    }
    drop(store);
    let agent = agent(dir.path());
    let found = |which: &str| agent.watch(which).map(|r| r.borrow().id.clone());
    assert_eq!(found("b").unwrap(), "b1");
    assert_eq!(found("arn:aws:ecs:us-east-1:0:task/default/aa2").unwrap(), "aa2");
    assert!(found("aa").unwrap_err().starts_with("more than one task"));
    assert!(found("c").unwrap_err().starts_with("there is no task c"));
    assert!(found("").is_err());
}

#[test]
fn ended_tasks_are_forgotten_with_their_files_when_their_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let now = Time::now().millis();
    for (id, stopped_at) in [("old", Some(now - 3_600_001)), ("new", Some(now - 1000)), ("runs", None)] {
        store.write(&record(id, stopped_at), false).unwrap();
        fs::create_dir(dir.path().join("tasks").join(id)).unwrap();
    }
    drop(store);
    let agent = agent(dir.path());
    agent.sweep();
    let mut left: Vec<String> = agent.list().into_iter().map(|r| r.id).collect();
    left.sort();
    assert_eq!(left, ["new", "runs"]);
    assert!(!dir.path().join("tasks/old").exists() && dir.path().join("tasks/new").exists());
    assert!(!dir.path().join("records/old.json").exists());
}
