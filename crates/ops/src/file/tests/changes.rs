//! Files, directories and links that are made, and what is removed.

use llb::{Action, ActionKind, Chown, Mkdir, Mkfile, Rm, Symlink, User};
use stdx::Kind;

use super::*;
use crate::file::{change, owner};

fn mkfile(path: &str) -> Mkfile {
    Mkfile {
        path: path.into(),
        mode: 0o640,
        data: "text".into(),
        ..Mkfile::default()
    }
}

/// Rows: L11
#[test]
fn files_are_written_anew() {
    let at = place(&["d/old = 1", "l -> d/target", "up -> ../../victim", "dir/"]);
    at.root.link("d/old", "d/other").unwrap();
    change::mkfile(&at.root, &mkfile("/d/old"), None).unwrap();
    change::mkfile(&at.root, &mkfile("l"), None).unwrap();
    change::mkfile(&at.root, &mkfile("/up"), None).unwrap();
    assert_eq!(
        at.lines(),
        [
            "d/",
            "d/old = text",
            "d/other = 1",
            "d/target = text",
            "dir/",
            "l -> d/target",
            "up -> ../../victim",
            "victim = text"
        ]
    );
    assert_eq!(at.root.lstat("d/old").unwrap().mode, 0o640);
    let timed = Mkfile {
        timestamp: Some(5_500_000_000),
        ..mkfile("/timed")
    };
    change::mkfile(&at.root, &timed, None).unwrap();
    let time = at.root.lstat("timed").unwrap().mtime;
    assert_eq!((time.seconds, time.nanos), (5, 500_000_000));
    for (bad, kind) in [
        ("/", Kind::InvalidInput),
        ("", Kind::InvalidInput),
        ("/..", Kind::InvalidInput),
        ("/dir", Kind::Internal),
        ("/no/dir", Kind::NotFound),
    ] {
        let error = change::mkfile(&at.root, &mkfile(bad), None).unwrap_err();
        assert_eq!(error.kind(), kind, "{bad}");
        assert!(error.to_string().contains(bad));
    }
}

/// Rows: L11
#[test]
fn privileged_directories_are_made_with_those_above() {
    if !is_root() {
        return;
    }
    let at = place(&["there/", "file = 1", "l -> there"]);
    let mkdir = |path: &str, make_parents| Mkdir {
        path: path.into(),
        mode: 0o711,
        make_parents,
        timestamp: Some(3_000_000_000),
        ..Mkdir::default()
    };
    change::mkdir(&at.root, &mkdir("/l/a/b", true), Some((3, 4))).unwrap();
    for path in ["there/a", "there/a/b"] {
        let stat = at.root.lstat(path).unwrap();
        assert_eq!((stat.mode, stat.uid, stat.gid), (0o711, 3, 4));
    }
    assert_eq!(mtime(&at.root, "there/a/b"), 3);
    assert_eq!(
        at.root.lstat("there").unwrap().uid,
        0,
        "what was there stays"
    );
    change::mkdir(&at.root, &mkdir("/there", false), Some((3, 4))).unwrap();
    change::mkdir(&at.root, &mkdir("/", true), None).unwrap();
    assert_eq!(
        change::mkdir(&at.root, &mkdir("/x/y", false), None)
            .unwrap_err()
            .kind(),
        Kind::NotFound
    );
    assert!(change::mkdir(&at.root, &mkdir("/file", true), None).is_err());
    assert!(change::mkdir(&at.root, &mkdir("/file/x", true), None).is_err());
}

/// Rows: L11
#[test]
fn links_say_what_they_are_told() {
    let at = place(&["d/", "in -> d"]);
    let link = |path: &str| Symlink {
        target: "../../victim".into(),
        path: path.into(),
        timestamp: Some(9_000_000_000),
        ..Symlink::default()
    };
    change::symlink(&at.root, &link("/in/l"), None).unwrap();
    assert_eq!(at.lines(), ["d/", "d/l -> ../../victim", "in -> d"]);
    assert_eq!(mtime(&at.root, "d/l"), 9);
    assert!(change::symlink(&at.root, &link("/d"), None).is_err());
}

/// Rows: L11
#[test]
fn removing_follows_no_link_at_the_end() {
    let at = place(&[
        "d/a = 1",
        "d/b.o = 2",
        "d/c.o = 3",
        "l -> d",
        "dangling -> none",
        "up -> ../..",
    ]);
    let rm = |path: &str| Rm {
        path: path.into(),
        ..Rm::default()
    };
    change::rm(&at.root, &rm("/dangling")).unwrap();
    change::rm(
        &at.root,
        &Rm {
            allow_wildcard: true,
            ..rm("/l/*.o")
        },
    )
    .unwrap();
    assert!(
        at.lines().contains(&"d/b.o = 2".to_owned()),
        "a link before a wildcard is not walked"
    );
    change::rm(
        &at.root,
        &Rm {
            allow_wildcard: true,
            ..rm("/d/*.o")
        },
    )
    .unwrap();
    assert_eq!(at.lines(), ["d/", "d/a = 1", "l -> d", "up -> ../.."]);
    change::rm(&at.root, &rm("/l")).unwrap();
    for bad in ["/", "", ".", "..", "../..", "d/../.."] {
        assert_eq!(
            change::rm(&at.root, &rm(bad)).unwrap_err().kind(),
            Kind::InvalidInput,
            "{bad}"
        );
    }
    for none in ["/none", "/none/x", "/up/victim", "../victim"] {
        assert_eq!(
            change::rm(&at.root, &rm(none)).unwrap_err().kind(),
            Kind::NotFound,
            "{none}"
        );
        change::rm(
            &at.root,
            &Rm {
                allow_not_found: true,
                ..rm(none)
            },
        )
        .unwrap();
    }
    change::rm(
        &at.root,
        &Rm {
            allow_wildcard: true,
            ..rm("/*.none")
        },
    )
    .unwrap();
    change::rm(&at.root, &rm("d")).unwrap();
    assert_eq!(at.lines(), ["up -> ../.."]);
}

/// Rows: L11, F24
#[test]
fn owners_are_found_by_name() {
    let users =
        "root:x:0:0::/:/bin/sh\nbroken\napp:x:1000:1001:App:/home:/bin/sh\nbad:x:no:1::/:/\n";
    let at = place(&[
        &format!("usr/passwd = {users}"),
        "usr/group = app:x:1001:\nstaff:x:50:app\n",
        "etc -> usr",
    ]);
    let name = |name: &str| {
        Some(User::Name {
            name: name.into(),
            input: 0,
        })
    };
    let resolve = |user: Option<User>, group: Option<User>| {
        let kind = ActionKind::Mkdir(Mkdir {
            owner: Some(Chown { user, group }),
            ..Mkdir::default()
        });
        let action = Action {
            input: None,
            secondary: None,
            output: None,
            kind,
        };
        struct Opened(Root);
        impl AsRef<Root> for Opened {
            fn as_ref(&self) -> &Root {
                &self.0
            }
        }
        owner::resolve(&action, |_| Ok(Opened(at.root.try_clone().unwrap())))
    };
    assert_eq!(resolve(name("app"), None).unwrap(), Some((1000, 1001)));
    assert_eq!(
        resolve(name("app"), name("staff")).unwrap(),
        Some((1000, 50))
    );
    assert_eq!(resolve(Some(User::Id(7)), None).unwrap(), Some((7, 7)));
    assert_eq!(resolve(None, Some(User::Id(8))).unwrap(), Some((0, 8)));
    assert_eq!(
        resolve(Some(User::Id(7)), name("app")).unwrap(),
        Some((7, 1001))
    );
    let error = resolve(name("nobody"), None).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (Kind::InvalidInput, "no user \"nobody\" in /etc/passwd")
    );
    assert!(resolve(name("bad"), None).is_err());
    assert!(resolve(None, name("nobody")).is_err());
    let negative = Some(User::Name {
        name: "app".into(),
        input: -1,
    });
    assert_eq!(
        resolve(negative, None).unwrap_err().to_string(),
        "invalid user index -1"
    );
}
