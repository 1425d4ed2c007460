//! What one can look at after a step failed that ran no process.

use frontend::FailedPart;
use llb::{Action, ActionKind, Copy, File, Mkdir, OpKind};
use ops::Output;
use solver::{JobId, OpContext};

use crate::setup::{World, mount, sh};

/// Rows: A16
#[tokio::test]
async fn privileged_a_failed_action_leaves_inputs_and_trees() {
    let Some(world) = World::new().await else {
        return;
    };
    let (base, client) = (world.tree(&[("base", "b\n")]), world.plain());
    let action = |input, secondary, output, kind| Action {
        input,
        secondary,
        output,
        kind,
    };
    let mkdir = ActionKind::Mkdir(Mkdir {
        path: "/foo".into(),
        mode: 0o755,
        ..Mkdir::default()
    });
    let copy = ActionKind::Copy(Copy::new("/foo", "/none/foo"));
    let file = File {
        actions: vec![
            action(None, None, None, mkdir),
            action(Some(0), Some(1), Some(0), copy),
        ],
    };
    let op = client.file_op(file, 1).unwrap();
    let failed = client.run_op(&*op, &[&base]).await;
    assert!(failed.why().contains("/none"), "{}", failed.why());
    let remains = failed.remains();
    assert!(matches!(&remains.op.kind, OpKind::File(file) if file.actions.len() == 2));
    assert_eq!(
        (remains.part, remains.places),
        (FailedPart::Action(1), 2),
        "{}",
        failed.why()
    );
    assert_eq!(remains.inputs, [Some(base)]);
    assert_eq!(remains.written().collect::<Vec<_>>(), [0, 1]);
    let copied_from = remains.output(0).await.unwrap();
    assert_eq!(world.read(&copied_from, "foo").await.unwrap(), "");
    let changed = remains.output(1).await.unwrap();
    assert_eq!(world.read(&changed, "base").await.unwrap(), "b\n");
}

/// A small disk of its own.
struct Disk(std::path::PathBuf);

impl Disk {
    fn at(path: std::path::PathBuf) -> Disk {
        use rustix::mount::{MountFlags, mount};
        std::fs::create_dir(&path).unwrap();
        mount("tmpfs", &path, "tmpfs", MountFlags::empty(), c"size=16m").unwrap();
        Disk(path)
    }

    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        stat.f_bfree * stat.f_frsize
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

/// Who fills the disk does not hold what filled it.
///
/// Rows: A16
#[tokio::test]
async fn privileged_a_full_disk_keeps_nothing_to_look_at() {
    if !executor::testing::is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::at(dir.path().join("layers"));
    let world = World::on(dir).await.unwrap();
    let before = disk.free();
    let client = world.plain();
    let mkfile = |path: &str, size: usize| {
        ActionKind::Mkfile(llb::Mkfile {
            path: path.into(),
            data: vec![b'x'; size].into(),
            mode: 0o644,
            ..llb::Mkfile::default()
        })
    };
    let action = |input, output, kind| Action {
        input,
        secondary: None,
        output,
        kind,
    };
    let file = File {
        actions: vec![
            action(None, None, mkfile("/some", 4 << 20)),
            action(Some(0), Some(0), mkfile("/more", 14 << 20)),
        ],
    };
    let op = client.file_op(file, 0).unwrap();
    let failed = client.run_op(&*op, &[]).await;
    assert!(failed.why().contains("No space left"), "{}", failed.why());
    let remains = failed.remains();
    assert_eq!(remains.part, FailedPart::Action(1));
    assert_eq!(remains.written().count(), 0);
    // What is thrown away is removed by somebody else.
    let (slack, asked) = (1 << 20, std::time::Instant::now());
    while disk.free() + slack < before {
        assert!(
            asked.elapsed().as_secs() < 30,
            "{} of {before}",
            disk.free()
        );
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Rows: A16
#[tokio::test]
async fn privileged_an_input_without_the_path_can_be_looked_into() {
    let Some(world) = World::new().await else {
        return;
    };
    let client = world.plain();
    let data = world.tree(&[("found/data", "d\n")]);
    let mut exec = sh("true");
    exec.mounts.push(llb::Mount {
        input: Some(1),
        selector: "/notfound".into(),
        readonly: true,
        ..mount("/src", llb::MountKind::Bind)
    });
    let op = client.op(exec, 2).unwrap();
    let cx = OpContext {
        step: progress::StepProgress::none(),
        job: JobId(1),
        vertex: None,
        missed: None,
    };
    for input in [&data, &Output(None)] {
        let error = op.content_key(&cx, 1, input).await.unwrap_err();
        let step = error.downcast_ref::<ops::StepError>();
        let step = step.unwrap_or_else(|| panic!("{error}"));
        assert!(step.to_string().contains("notfound"), "{step}");
        let remains = &step.remains;
        assert!(matches!(&remains.op.kind, OpKind::Exec(_)));
        assert_eq!((remains.part, remains.places), (FailedPart::Input(1), 0));
        assert_eq!(remains.inputs, [Some(input.clone())]);
        assert_eq!(remains.written().count(), 0);
    }
}

/// Also of a step that leaves nothing to look at one is told what it should have done.
///
/// Rows: A16
#[tokio::test]
async fn privileged_a_source_that_cannot_be_had_names_its_step() {
    let Some(world) = World::new().await else {
        return;
    };
    let source = OpKind::Source(llb::Source {
        identifier: "local://nobody-has-it".into(),
        attrs: std::collections::BTreeMap::new(),
    });
    let op = world.plain().op_of(source, 0, None, llb::Meta::default());
    let failed = world.plain().run_op(&*op.unwrap(), &[]).await;
    let remains = failed.remains();
    assert!(
        matches!(&remains.op.kind, OpKind::Source(source) if source.identifier == "local://nobody-has-it")
    );
    assert_eq!((remains.part, remains.places), (FailedPart::Whole, 0));
    assert!(remains.inputs.is_empty() && remains.written().count() == 0);
}
