//! Files of vendors, and what becomes of them.

use std::sync::Arc;

use super::*;
use crate::process::MountSource;

struct Dirs(tempfile::TempDir);

impl Dirs {
    fn new() -> Dirs {
        Dirs(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn read(&self) -> Devices {
        self.read_with(&[])
    }

    fn read_with(&self, auto_allowed: &[&str]) -> Devices {
        let cdi = Cdi {
            dirs: ["a", "b"].map(|dir| self.0.path().join(dir)).to_vec(),
            auto_allowed: auto_allowed
                .iter()
                .map(|name| (*name).to_string())
                .collect(),
        };
        cdi.read()
    }
}

const GPUS: &str = r#"
cdiVersion: "0.6.0"
kind: "vendor.com/gpu"
annotations:
  org.mobyproject.buildkit.device.autoallow: true
containerEdits:
  env: ["DRIVER=2"]
devices:
- name: first
  annotations:
    org.mobyproject.buildkit.device.class: big
  containerEdits:
    env: ["CARD=0", "PATH=/gpu"]
    deviceNodes:
    - path: /dev/gpu0
      hostPath: /dev/null
      permissions: rw
      fileMode: 0600
- name: "2"
  annotations:
    org.mobyproject.buildkit.device.class: big
    org.mobyproject.buildkit.device.autoallow: "false"
  containerEdits:
    env: ["CARD=1"]
    mounts:
    - {hostPath: /etc/hostname, containerPath: /driver, options: [ro, nosuid, bind]}
    hooks:
    - {hookName: createContainer, path: /bin/true, args: [true-ish], env: [A=b]}
"#;

fn names(devices: &Devices) -> Vec<String> {
    devices
        .list()
        .into_iter()
        .map(|device| device.name)
        .collect()
}

fn process() -> Process {
    let root = Arc::new(snapshot::Tree::open("/").unwrap());
    let mut process = Process::new(root, ["true"]);
    process.env = vec!["PATH=/bin".into(), "X=1".into()];
    process
}

/// Rows: X13
#[test]
fn names_kinds_classes_and_wildcards_are_found() {
    let dirs = Dirs::new();
    dirs.write("a/gpus.yaml", GPUS);
    dirs.write("a/README", "nothing");
    let devices = dirs.read();
    assert_eq!(
        names(&devices),
        ["vendor.com/gpu=2", "vendor.com/gpu=first"]
    );
    let find = |name: &str| devices.find(name, false).map_err(|error| error.to_string());
    let both = vec![
        "vendor.com/gpu=2".to_string(),
        "vendor.com/gpu=first".to_string(),
    ];
    assert_eq!(find("vendor.com/gpu=first").unwrap(), both[1..]);
    assert_eq!(find("vendor.com/gpu").unwrap(), both[..1]);
    assert_eq!(find("vendor.com/gpu=*").unwrap(), both);
    assert_eq!(find("vendor.com/gpu=big").unwrap(), both);
    assert_eq!(devices.find("vendor.com/gpu=none", true).unwrap(), [""; 0]);
    assert!(
        find("vendor.com/gpu=none")
            .unwrap_err()
            .contains("it is not registered")
    );
    assert!(find("vendor!/gpu").unwrap_err().contains("is no name"));
    assert!(find("").unwrap_err().contains("it has no name"));
}

/// Rows: X13
#[test]
fn a_class_is_asked_for_by_its_name_alone_and_has_devices_of_several_kinds() {
    let dirs = Dirs::new();
    dirs.write("a/gpus.yaml", GPUS);
    let other = GPUS.replace("vendor.com/gpu", "other.org/tpu");
    let other = other.replace("class: big", "class: other.org/fast=1");
    dirs.write("b/tpus.yaml", &other.replacen("other.org/fast=1", "big", 1));
    let devices = dirs.read();
    let find = |name: &str| devices.find(name, false).map_err(|error| error.to_string());
    let big = [
        "other.org/tpu=first",
        "vendor.com/gpu=2",
        "vendor.com/gpu=first",
    ];
    assert_eq!(find("big").unwrap(), big);
    // A class may be called like a device of a kind that there is none of.
    assert_eq!(find("other.org/fast=1").unwrap(), ["other.org/tpu=2"]);
    assert!(find("gpu").unwrap_err().contains("it is not registered"));
    assert_eq!(devices.find("gpu", true).unwrap(), [""; 0]);

    let mut grants = Grants::default();
    grants.add("big").unwrap();
    let wanted = [("vendor.com/gpu=2".to_string(), false)];
    assert_eq!(devices.allow(&wanted, &grants).unwrap(), wanted);
    let Err(Refused::Forbidden(forbidden)) = devices.allow(&wanted, &Grants::default()) else {
        panic!("the device does not allow itself");
    };
    assert_eq!(forbidden, ["vendor.com/gpu=2"]);
}

/// Rows: X13
#[test]
fn a_process_is_given_what_its_devices_need_once() {
    let dirs = Dirs::new();
    dirs.write("a/gpus.yaml", GPUS);
    let mut process = process();
    let wanted = [
        ("vendor.com/gpu=first".to_string(), false),
        ("vendor.com/gpu=*".into(), false),
    ];
    dirs.read().apply(&wanted, &mut process).unwrap();
    assert_eq!(process.env, ["X=1", "DRIVER=2", "PATH=/gpu", "CARD=1"]);
    let [node] = &process.devices[..] else {
        panic!("{:?}", process.devices)
    };
    assert_eq!((node.major, node.minor, node.mode), (1, 3, 0o600));
    assert_eq!(
        (node.path.as_str(), node.access.as_str()),
        ("/dev/gpu0", "rw")
    );
    let [mount] = &process.mounts[..] else {
        panic!("one mount")
    };
    assert!(mount.readonly && mount.target == "/driver");
    assert!(matches!(&mount.source, MountSource::Host { restrict, .. } if restrict.nosuid));
    assert_eq!(process.hooks.len(), 1);
}

/// Rows: X13, P11
#[test]
fn rights_are_given_by_annotation_by_configuration_and_by_the_build() {
    let dirs = Dirs::new();
    dirs.write("a/gpus.yaml", GPUS);
    let wanted = |name: &str| [(name.to_string(), false)];
    let (first, second) = (wanted("vendor.com/gpu=first"), wanted("vendor.com/gpu=2"));
    let none = Grants::default();
    let devices = dirs.read();
    assert_eq!(devices.allow(&first, &none).unwrap(), first);
    let Err(Refused::Forbidden(refused)) = devices.allow(&second, &none) else {
        panic!("its own annotation says no")
    };
    assert_eq!(refused, ["vendor.com/gpu=2"]);
    let allowed = dirs.read_with(&["vendor.com/gpu"]);
    assert_eq!(allowed.allow(&second, &none).unwrap(), second);
    let mut given = Grants::default();
    given.add("vendor.com/gpu=2").unwrap();
    assert_eq!(devices.allow(&second, &given).unwrap(), second);
    let mut aliased = Grants::default();
    aliased.add("vendor.com/gpu=2,alias=other.com/any").unwrap();
    assert_eq!(
        devices.allow(&wanted("other.com/any"), &aliased).unwrap(),
        second
    );
    assert!(
        devices.allow(&second, &aliased).is_err(),
        "only under its alias"
    );
    let mut all = Grants::default();
    all.add("").unwrap();
    assert_eq!(devices.allow(&second, &all).unwrap(), second);
    assert_eq!(
        none.clone().add("x,y"),
        Err("invalid device config \"y\"".to_string())
    );
    assert_eq!(
        none.clone().add("x,y=z"),
        Err("unknown device config key \"y\"".to_string())
    );
}

/// Rows: X13
#[test]
fn later_directories_win_and_two_of_one_are_nobodys() {
    let dirs = Dirs::new();
    let spec = |value: &str| {
        format!(
            r#"{{"cdiVersion": "0.3.0", "kind": "v.com/c", "devices": [{{"name": "d",
                "containerEdits": {{"env": ["WHO={value}"]}}}}]}}"#
        )
    };
    let who = || {
        let mut process = process();
        dirs.read()
            .apply(&[("v.com/c=d".into(), true)], &mut process)
            .unwrap();
        process.env.last().cloned().unwrap()
    };
    dirs.write("a/one.json", &spec("a"));
    assert_eq!(who(), "WHO=a");
    dirs.write("b/one.json", &spec("b"));
    assert_eq!(who(), "WHO=b");
    dirs.write("b/two.json", &spec("c"));
    assert_eq!(who(), "X=1", "two files of one directory describe it");
}

/// Rows: X13
#[test]
fn a_file_that_is_wrong_is_left_out() {
    let device = r#""devices": [{"name": "d", "containerEdits": {"env": ["A=b"]}}]"#;
    for (spec, wrong) in [
        (
            r#""cdiVersion": "2.0.0", "kind": "v.com/c""#,
            "unknown cdiVersion",
        ),
        (r#""cdiVersion": "0.3.0", "kind": "v.com""#, "is not like"),
        (
            r#""cdiVersion": "0.3.0", "kind": "v.com/c.d""#,
            "but uses what came with 0.6.0",
        ),
        (
            r#""cdiVersion": "0.5.0", "kind": "v.com/c", "annotations": {"a": "b"}"#,
            "but uses what came with 0.6.0",
        ),
        (
            r#""cdiVersion": "0.6.0", "kind": "v.com/c", "colour": 1"#,
            "unknown field",
        ),
        (
            r#""cdiVersion": "0.6.0", "kind": "v.com/c", "containerEdits": {"env": ["A"]}"#,
            "is no environment variable",
        ),
        (
            r#""cdiVersion": "0.6.0", "kind": "v.com/c",
               "containerEdits": {"deviceNodes": [{"path": "/dev/x", "permissions": "x"}]}"#,
            "permissions",
        ),
    ] {
        let value = serde_json::from_str(&format!("{{{spec}, {device}}}")).unwrap();
        let error = Spec::parse(value).unwrap_err();
        assert!(error.contains(wrong), "{spec}: {error}");
    }
    let fine = format!(r#"{{"cdiVersion": "1.1.0", "kind": "v.com/c", {device}}}"#);
    Spec::parse(serde_json::from_str(&fine).unwrap()).unwrap();
    let dirs = Dirs::new();
    dirs.write("a/wrong.yaml", "a: [");
    dirs.write("a/fine.json", &fine);
    assert_eq!(names(&dirs.read()), ["v.com/c=d"]);
}
