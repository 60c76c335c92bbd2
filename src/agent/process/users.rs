//! Users and groups by name or number, as docker finds them.
//!
//! Enters: `user[:group]` and the texts of `/etc/passwd` and `/etc/group`. Leaves: numbers, further groups, the home
//! directory. Can go wrong: a name that is in neither file.

/// Whom a container runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) home: String,
}

/// Finds a user. Nothing is root.
///
/// # Errors
/// In docker's words.
pub(super) fn find(user: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (name, wanted) = user.split_once(':').unwrap_or((user, ""));
    let name = if name.is_empty() { "0" } else { name };
    let entry = passwd.lines().map(fields).find(|f| f.first() == Some(&name) || f.get(2) == Some(&name));
    let number = |f: &[&str], at: usize| f.get(at).and_then(|n| n.parse::<u32>().ok());
    let mut found = User { uid: 0, gid: 0, groups: Vec::new(), home: "/".to_owned() };
    match (&entry, name.parse::<u32>()) {
        (Some(entry), _) => {
            found.uid = number(entry, 2).unwrap_or_default();
            found.gid = number(entry, 3).unwrap_or_default();
            found.home = entry.get(5).filter(|h| !h.is_empty()).map_or("/".to_owned(), |h| (*h).to_owned());
        }
        (None, Ok(uid)) if uid <= i32::MAX as u32 => found.uid = uid,
        (None, Ok(_)) => return Err("uids and gids must be in range 0-2147483647".to_owned()),
        (None, Err(_)) => {
            return Err(format!("unable to find user {name}: no matching entries in passwd file"));
        }
    }
    let groups = || group.lines().map(fields);
    if wanted.is_empty() {
        let login = entry.and_then(|e| e.first().copied()).unwrap_or_default();
        found.groups = groups()
            .filter(|g| !login.is_empty() && g.get(3).is_some_and(|m| m.split(',').any(|m| m == login)))
            .filter_map(|g| number(&g, 2))
            .collect();
        return Ok(found);
    }
    let entry = groups().find(|g| g.first() == Some(&wanted) || g.get(2) == Some(&wanted));
    found.gid = match (entry.and_then(|g| number(&g, 2)), wanted.parse::<u32>()) {
        (Some(gid), _) => gid,
        (None, Ok(gid)) if gid <= i32::MAX as u32 => gid,
        (None, Ok(_)) => return Err("uids and gids must be in range 0-2147483647".to_owned()),
        (None, Err(_)) => {
            return Err(format!("unable to find group {wanted}: no matching entries in group file"));
        }
    };
    Ok(found)
}

fn fields(line: &str) -> Vec<&str> {
    line.split(':').map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:100:101::/srv/web:/bin/false\n";
    const GROUP: &str = "root:x:0:\nweb:x:101:\nlogs:x:7:root,web\naudio:x:8:web\n";

    fn ids(user: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        find(user, PASSWD, GROUP).map(|u| (u.uid, u.gid, u.groups, u.home))
    }

    #[test]
    fn users_and_groups_are_names_or_numbers() {
        for (user, want) in [
            ("", (0, 0, vec![7], "/root")),
            ("root", (0, 0, vec![7], "/root")),
            ("web", (100, 101, vec![7, 8], "/srv/web")),
            ("100", (100, 101, vec![7, 8], "/srv/web")),
            ("web:logs", (100, 7, vec![], "/srv/web")),
            ("web:0", (100, 0, vec![], "/srv/web")),
            ("1337", (1337, 0, vec![], "/")),
            ("1337:1338", (1337, 1338, vec![], "/")),
            ("1337:audio", (1337, 8, vec![], "/")),
        ] {
            let (uid, gid, groups, home) = want;
            assert_eq!(ids(user).unwrap(), (uid, gid, groups, home.to_owned()), "{user}");
        }
    }

    #[test]
    fn a_name_in_no_file_is_refused_in_dockers_words() {
        assert_eq!(
            ids("nobody").unwrap_err(),
            "unable to find user nobody: no matching entries in passwd file"
        );
        assert_eq!(ids("web:x").unwrap_err(), "unable to find group x: no matching entries in group file");
        assert!(ids("4294967295").is_err());
    }
}
